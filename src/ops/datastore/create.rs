//! `datastore create`: a folder becomes a datastore; with `--loop` an XFS file of our own is made and mounted there. Or a pool
//! of a Ceph cluster becomes one.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{DatastoreView, view_of};
use crate::model::record::kinded;
use crate::model::{
    Bytes, Fault, Id, Index, Kind, Name, Place, RbdExport, RbdPlace, Server, ServerKind, ServerState, View, ViewExt,
};
use crate::ops::args::HostPath;
use crate::ops::{Answering, Asking, Cx, Effect, Facts, Op, PartPlan, Plan, Resolve, Right, Shape, Sheet};
use crate::rules::wanted;
use crate::step::{AdoptStore, Fact, Look};

/// Drivers a datastore can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DatastoreKind {
    /// A folder.
    #[default]
    File,
    /// A pool of a Ceph cluster.
    Rbd,
}

/// What somebody who asks for a sparse file must know.
const THIN: &str = "a thin datastore can run out of space while its machines still see free disk: their writes are lost then; leave --thin out unless you watch the host's free space";

/// Why a namespace has to be mapped by the kernel.
const NAMESPACE: &str = "tgtd's own rbd module knows no namespaces: it would look for the disks in the pool itself";

/// Make a datastore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct DatastoreCreate {
    /// Its name
    pub name: Name,
    /// Driver
    #[arg(long, value_enum, default_value = "file")]
    #[serde(default)]
    pub kind: DatastoreKind,
    /// The folder; it must be empty or not exist
    #[arg(long, value_name = "DIR")]
    #[serde(default)]
    pub path: Option<HostPath>,
    /// Make an XFS file of this size (at least 300M), keep it mounted on DIR: clones are instant there on any host file system
    #[arg(long = "loop", value_name = "SIZE")]
    #[serde(rename = "loop")]
    pub loop_size: Option<Bytes>,
    /// Make that file sparse. A full host then loses tenants' writes
    #[arg(long, requires = "loop_size")]
    #[serde(default)]
    pub thin: bool,
    /// The pool, with --kind rbd
    #[arg(long)]
    #[serde(default)]
    pub pool: Option<String>,
    /// A namespace of the pool; its disks must be mapped by the kernel
    #[arg(long)]
    #[serde(default)]
    pub namespace: Option<String>,
    /// The cluster's configuration file
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub conf: Option<HostPath>,
    /// The Ceph user, without `client.`
    #[arg(long, value_name = "USER")]
    #[serde(default)]
    pub id: Option<String>,
    /// The user's keyring file, if it is not where the configuration says
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    pub keyring: Option<HostPath>,
    /// How targets get the disks: `kernel` maps them, with `librbd` tgtd opens them itself; `auto` is kernel where this host's
    /// has the rbd module [default: auto]
    #[arg(long, value_name = "WAY")]
    #[serde(default)]
    pub export: Option<RbdExport>,
    /// Take over the datastore that stands there already and whose engine is gone for good: its id. Without one, lists them
    #[arg(long, value_name = "ID", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    #[serde(default)]
    pub adopt: Option<String>,
}

impl Op for DatastoreCreate {
    type Out = DatastoreView;

    const SHEET: Sheet = Sheet {
        noun: "datastore",
        verb: "create",
        about: "Make a datastore out of a folder or a Ceph pool",
        examples: &[
            "datastore create fast --kind file --path /srv/bmi --loop 100G",
            "datastore create nas --path /mnt/nas/bmi",
            "datastore create ceph --kind rbd --pool bmi --conf /etc/ceph/ceph.conf --id bmi --keyring /etc/ceph/bmi.keyring",
            "datastore create ceph --kind rbd --pool bmi --conf /etc/ceph/ceph.conf --id bmi --adopt",
        ],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Admin,
        columns: &[],
        destroys: "the hold another engine has on its datastore (only with --adopt)",
    };

    fn destroys(&self) -> &'static str {
        match self.adopt.as_deref() {
            None | Some("") => "",
            Some(_) => "the hold another engine has on its datastore: it must not run any more",
        }
    }

    fn resolve(&mut self, client: &mut dyn Resolve) -> Result<(), Fault> {
        if self.thin {
            client.warn(THIN);
        }
        for path in [&mut self.path, &mut self.conf, &mut self.keyring].into_iter().flatten() {
            client.absolute(path)?;
        }
        Ok(())
    }

    fn looks(&self, _at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
        // Only who takes one over asks what stands there: whether a pool can be reached is found out by the step otherwise.
        let mut looks = if self.adopt.is_some() { vec![self.look()?] } else { Vec::new() };
        if self.kind == DatastoreKind::Rbd {
            looks.push(Look::RbdClient);
        }
        Ok(looks)
    }

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let mut id = cx.id();
        let mut place = self.place(id, cx.facts)?;
        if let Some(old) = cx.view.by_key::<Server>(Index::ServerName, &kinded(ServerKind::Datastore, &self.name))? {
            let whole = old.state == ServerState::Active || self.adopt.is_some() && old.state == ServerState::Adopted;
            if old.place.as_ref().is_some_and(|p| self.same(p, &place)) && whole {
                return Ok(Plan::already("datastore", old.id, &old.name));
            }
            return Err(Fault::new(
                Kind::Duplicate,
                format!("there is a datastore {} already, and it is another one", self.name),
            )
            .fix("choose another name"));
        }
        apart(cx.view, &place)?;
        let adopted = self.adopted(cx.view, cx.facts, &place)?;
        if let Some(found) = &adopted {
            id = found.datastore;
            place = self.place(id, cx.facts)?;
        }
        let server = Server {
            id,
            name: self.name.clone(),
            kind: ServerKind::Datastore,
            driver: if self.kind == DatastoreKind::Rbd { "rbd" } else { "file" }.to_owned(),
            url: None,
            ip: None,
            port: None,
            place: Some(place.clone()),
            state: ServerState::Creating,
            created_at: cx.now,
            operation: Some(cx.operation),
        };
        let mut part = PartPlan::default();
        part.about("datastore", server.id, &server.name);
        let state = match adopted {
            Some(found) => {
                part.script.first(AdoptStore { datastore: id, place, to: cx.engine(), from: found.engine });
                ServerState::Adopted
            }
            None => {
                part.script.first(wanted::make_store(cx.view, &server, place));
                ServerState::Active
            }
        };
        part.row(server.clone(), Server { state, operation: None, ..server });
        Ok(part.into())
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<DatastoreView>, Fault> {
        at.subjects.iter().map(|s| Ok(view_of(&at.view.must::<Server>(s.id)?, at.facts))).collect()
    }
}

impl DatastoreCreate {
    /// Whether the same was asked for. Its id is chosen when a datastore is made, and so is what `auto` came to.
    fn same(&self, old: &Place, new: &Place) -> bool {
        match (old, new) {
            (Place::Rbd(old), Place::Rbd(new)) => {
                let any = self.export.unwrap_or_default() == RbdExport::Auto;
                let export = if any { old.export } else { new.export };
                *old == RbdPlace { datastore: old.datastore, export, ..new.clone() }
            }
            (old, new) => old == new,
        }
    }

    /// Where it is; `id` stands in the names of a pool's images.
    fn place(&self, id: Id, facts: &Facts) -> Result<Place, Fault> {
        Ok(match self.kind {
            DatastoreKind::File => self.folder()?,
            DatastoreKind::Rbd => Place::Rbd(self.pool(id, self.way(facts, self.namespace.is_some())?)?),
        })
    }

    /// The question which datastores stand at its place. The answer hangs neither on an id nor on how disks are exported.
    pub(super) fn look(&self) -> Result<Look, Fault> {
        let place = match self.kind {
            DatastoreKind::File => self.folder()?,
            DatastoreKind::Rbd => Place::Rbd(self.pool(Id([0; 16]), RbdExport::Auto)?),
        };
        Ok(Look::Stores((&place).into()))
    }

    fn folder(&self) -> Result<Place, Fault> {
        let pools = [self.pool.is_some(), self.namespace.is_some(), self.conf.is_some(), self.id.is_some()];
        if pools.contains(&true) || self.keyring.is_some() || self.export.is_some() {
            return Err(Fault::invalid("--pool, --namespace, --conf, --id, --keyring and --export are for --kind rbd")
                .fix("say --kind rbd, or leave them out"));
        }
        let Some(HostPath(path)) = &self.path else {
            return Err(Fault::invalid("a datastore of kind file is a folder, and none is named").fix("say --path DIR"));
        };
        let path = absolute(path, "a folder")?.trim_end_matches('/');
        Ok(Place::Folder { path: path.to_owned(), loop_size: self.loop_size, thin: self.thin })
    }

    /// How targets get the disks of the pool: as asked for, or what can be done here.
    fn way(&self, facts: &Facts, namespace: bool) -> Result<RbdExport, Fault> {
        let (asked, lacking) = (self.export.unwrap_or_default(), lacking(facts));
        match (asked, lacking) {
            (RbdExport::Librbd, _) if namespace => Err(Fault::invalid(NAMESPACE)
                .fix("leave `--export librbd` out: the kernel's client has namespaces; or use a pool of its own")),
            (RbdExport::Librbd, _) => Ok(RbdExport::Librbd),
            (_, None) => Ok(RbdExport::Kernel),
            (RbdExport::Kernel, Some(why)) => Err(why),
            (RbdExport::Auto, Some(why)) if namespace => {
                let no = format!("{NAMESPACE}; and the kernel cannot map them: {}", why.why);
                Err(Fault::new(why.kind, no).fix(format!("{}; or use a pool of its own, without --namespace", why.fix)))
            }
            (RbdExport::Auto, Some(_)) => Ok(RbdExport::Librbd),
        }
    }

    fn pool(&self, id: Id, export: RbdExport) -> Result<RbdPlace, Fault> {
        if self.path.is_some() || self.loop_size.is_some() || self.thin {
            return Err(Fault::invalid("--path, --loop and --thin are for --kind file").fix("leave them out"));
        }
        let needed = |what: &str| Fault::invalid(format!("a datastore of kind rbd needs --{what}"));
        let word = |what: &str, given: &Option<String>| match given {
            None => Ok(None),
            Some(w) if plain(w) => Ok(Some(w.clone())),
            Some(w) => Err(Fault::invalid(format!("{w:?} cannot be a {what}"))
                .fix("give letters, digits, `.`, `-` and `_`, at most 64; tgtd and librbd take no others everywhere")),
        };
        let path = |given: &HostPath| absolute(&given.0, "a file").map(str::to_owned);
        let namespace = word("namespace", &self.namespace)?;
        Ok(RbdPlace {
            pool: word("pool", &self.pool)?.ok_or_else(|| needed("pool"))?,
            namespace,
            conf: path(self.conf.as_ref().ok_or_else(|| needed("conf"))?)?,
            user: word("Ceph user", &self.id)?.ok_or_else(|| needed("id"))?,
            keyring: self.keyring.as_ref().map(path).transpose()?,
            datastore: id,
            export,
        })
    }
}

fn plain(word: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !word.is_empty() && word.len() <= 64 && !word.starts_with(['.', '-']) && word.bytes().all(ok)
}

/// A path that the daemon may use.
fn absolute<'a>(path: &'a str, what: &str) -> Result<&'a str, Fault> {
    let odd = path.chars().any(|c| c.is_control() || c == ',');
    if !path.starts_with('/') || path.split('/').any(|p| p == "..") || odd {
        return Err(Fault::invalid(format!("{path:?} is not an absolute path of {what}"))
            .fix("give a path that begins with / and has no .., comma or control character"));
    }
    Ok(path)
}

/// Why this host's kernel cannot map disks of pools.
fn lacking(facts: &Facts) -> Option<Fault> {
    match facts.get(&Look::RbdClient) {
        Some(Fact::RbdClient(lacking)) => lacking.clone(),
        Some(Fact::Unknown(why)) => Some(Fault::new(Kind::Unavailable, why.clone())),
        _ => Some(Fault::internal("nobody was asked what the kernel can")),
    }
}

/// Datastores in one another would count the same space twice, and taking the outer one away would take the inner one's
/// bytes.
fn apart(view: &dyn View, place: &Place) -> Result<(), Fault> {
    for old in view.live::<Server>()? {
        let why = match (&old.place, place) {
            (Some(Place::Folder { path: taken, .. }), Place::Folder { path, .. }) => {
                match (Path::new(path).starts_with(taken), Path::new(taken).starts_with(path)) {
                    (true, true) => format!("{path} is datastore {}", old.name),
                    (true, false) => format!("{path} lies in {taken}, which is datastore {}", old.name),
                    (false, true) => format!("{taken}, which is datastore {}, lies in {path}", old.name),
                    (false, false) => continue,
                }
            }
            (Some(taken @ Place::Rbd(r)), Place::Rbd(_)) if taken.word() == place.word() => {
                format!("pool {} is datastore {}", r.spec(), old.name)
            }
            _ => continue,
        };
        return Err(Fault::new(Kind::Duplicate, why).fix("choose another folder or pool"));
    }
    Ok(())
}
