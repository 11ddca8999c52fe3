//! Drivers know ids alone; people know names. A failed step's words get the names of what they speak of, the id behind them.
//!
//! Must never fail: words without names are better than none. Ids inside paths stay as they are.

use bmi::model::record::under;
use bmi::model::{Attachment, Fault, Id, Image, Index, Kind, Network, Node, Server, Snapshot, View, ViewExt, Volume};
use bmi::step::{Lane, Step};

use super::Engine;

impl Engine {
    /// The same fault, with names; of a full datastore it is said which one is full.
    pub(super) fn named(&self, lane: Lane, fault: Fault) -> Fault {
        let told = self.store.read(|view| {
            let name = |text: &str| with_names(text, &|id, bare| Some(format!("{} ({bare})", name_of(view, id)?)));
            let mut told = Fault { tried: name(&fault.tried), why: name(&fault.why), ..fault.clone() };
            if let (Kind::Full, Lane::Datastore(id) | Lane::Import(id)) = (fault.kind, lane)
                && let Some(store) = name_of(view, id)
            {
                told.why = format!("datastore {store} is full: {}", told.why);
                told.fix = format!(
                    "`bmictl datastore show {store}` tells how much is free; remove images or kept volumes there"
                );
            }
            Ok(told)
        });
        told.unwrap_or(fault)
    }

    /// What a step does, with names in place of ids: a line that is looked at while it goes on.
    pub(super) fn called(&self, step: &Step) -> String {
        let what = step.describe();
        self.store.read(|view| Ok(with_names(&what, &|id, _| name_of(view, id)))).unwrap_or(what)
    }
}

/// What people call the object of that id.
fn name_of(view: &dyn View, id: Id) -> Option<String> {
    let image = || Some(view.get::<Image>(id).ok()??.name.to_string());
    let tag = || Some(view.get::<Snapshot>(id).ok()??.name.to_string());
    let node = || Some(view.get::<Node>(id).ok()??.name.to_string());
    let network = || Some(view.get::<Network>(id).ok()??.name.to_string());
    let server = || Some(view.get::<Server>(id).ok()??.name.to_string());
    let volume = || {
        let volume = view.get::<Volume>(id).ok()??;
        let of: Option<Attachment> = view.by_key(Index::AttachmentOfVolume, &under(id, &[])).ok()?;
        let node = || Some(view.get::<Node>(of?.node).ok()??.name.to_string());
        volume.name.map(|n| n.to_string()).or_else(node)
    };
    image().or_else(volume).or_else(tag).or_else(node).or_else(network).or_else(server)
}

/// The text with what `name` says for each id that stands alone; it is given the word, too. An IQN is the id it ends with.
fn with_names(text: &str, name: &dyn Fn(Id, &str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, word) in text.split(' ').enumerate() {
        if i > 0 {
            out.push(' ');
        }
        let bare = word.trim_end_matches([',', ';', ':', '.']);
        // A volume's backing is ID.GENERATION.
        let id = bare
            .split_once('.')
            .map_or(bare, |(id, generation)| if generation.bytes().all(|b| b.is_ascii_digit()) { id } else { bare });
        let id = bare.strip_prefix("iqn.").and_then(|iqn| iqn.rsplit_once(':')).map_or(id, |(_, id)| id);
        match id.parse::<Id>().ok().and_then(|id| name(id, bare)) {
            Some(name) => {
                out.push_str(&name);
                out.push_str(&word[bare.len()..]);
            }
            None => out.push_str(word),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_stand_alone_get_names_and_those_in_paths_do_not() {
        let known = "0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b";
        let name = |id: Id, bare: &str| (id.to_string() == known).then(|| format!("debian-12 ({bare})"));
        let told = |text: &str| with_names(&text.replace("ID", known), &name).replace(known, "ID");
        assert_eq!(told("take in image ID"), "take in image debian-12 (ID)");
        assert_eq!(told("clone volume ID.3 from ID: no"), "clone volume debian-12 (ID.3) from debian-12 (ID): no");
        assert_eq!(told("/srv/images/ID.raw is iqn.x:init-ID"), "/srv/images/ID.raw is iqn.x:init-ID");
        let short =
            with_names(&"clone volume ID.0 from ID.0: no".replace("ID", known), &|_, _| Some("web1".to_owned()));
        assert_eq!(short, "clone volume web1 from web1: no");
        assert_eq!(told("make target iqn.x:ID"), "make target debian-12 (iqn.x:ID)");
        assert_eq!(
            with_names("image 1f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b", &name),
            "image 1f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b"
        );
    }
}
