//! The one table of operations, and what follows from it: the closed `Request` and `Reply` enums, dispatch, commands.
//!
//! Order is frozen: a variant's position crosses the wire. Append only.

use clap::FromArgMatches;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::fields::fields;
use super::op::{Answering, Asking, Op, Sheet};
use super::plan::{Cx, Plan};
use super::{Resolve, datastore, event, host, image, network, node, operation, state, tag, target, vlan, volume};
use crate::model::Fault;
use crate::step::Look;

macro_rules! ops {
    ($($v:ident = $t:path;)*) => {
        /// Any request. Append only.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum Request { $(#[doc = concat!("`", stringify!($t), "`")] $v($t),)* }

        /// One item of any answer. Append only.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum Reply { $(#[doc = concat!("An item of `", stringify!($t), "`")] $v(<$t as Op>::Out),)* }

        /// A row of the table.
        #[derive(Clone, Copy)]
        pub struct Entry {
            /// What it says about itself.
            pub sheet: &'static Sheet,
            /// Adds its arguments to a command.
            pub augment: fn(clap::Command) -> clap::Command,
            /// Reads its arguments.
            pub parse: fn(&clap::ArgMatches) -> Result<Request, clap::Error>,
            /// The fields of an item of its answer, in order.
            pub fields: fn() -> &'static [&'static str],
        }

        /// Every operation.
        pub const OPS: &[Entry] = &[$(Entry {
            sheet: &<$t as Op>::SHEET,
            augment: <$t as clap::Args>::augment_args,
            parse: |m| <$t as FromArgMatches>::from_arg_matches(m).map(Request::$v),
            fields: fields::<<$t as Op>::Out>,
        },)*];

        impl Request {
            /// Its line of the table.
            #[must_use]
            pub fn sheet(&self) -> &'static Sheet {
                match self { $(Request::$v(_) => &<$t as Op>::SHEET,)* }
            }
            /// Client only: see [`Op::resolve`].
            pub fn resolve(&mut self, client: &mut dyn Resolve) -> Result<(), Fault> {
                match self { $(Request::$v(op) => op.resolve(client),)* }
            }
            /// See [`Op::many`].
            #[must_use]
            pub fn many(&self) -> bool {
                match self { $(Request::$v(op) => op.many(),)* }
            }
            /// See [`Op::destroys`].
            #[must_use]
            pub fn destroys(&self) -> &'static str {
                match self { $(Request::$v(op) => op.destroys(),)* }
            }
            /// See [`Op::looks`].
            pub fn looks(&self, at: &Asking<'_>) -> Result<Vec<Look>, Fault> {
                match self { $(Request::$v(op) => op.looks(at),)* }
            }
            /// See [`Op::plan`].
            pub fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
                let plan = match self { $(Request::$v(op) => op.plan(cx)?,)* };
                super::notes::add(cx, plan)
            }
            /// See [`Op::answer`].
            pub fn answer(&self, at: &Answering<'_>) -> Result<Vec<Reply>, Fault> {
                match self { $(Request::$v(op) => Ok(op.answer(at)?.into_iter().map(Reply::$v).collect()),)* }
            }
            /// The request that a raw call means: `method` as in [`Sheet::method`], parameters from `d`. None: no such method.
            pub fn from_call<'de, D: Deserializer<'de>>(method: &str, d: D) -> Option<Result<Request, D::Error>> {
                $(if <$t as Op>::SHEET.method() == method { return Some(<$t>::deserialize(d).map(Request::$v)); })*
                let _ = d;
                None
            }
        }

        impl Serialize for Bare<'_> {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                match self.0 { $(Reply::$v(out) => out.serialize(s),)* }
            }
        }
    };
}

/// A reply's item without the enum around it: what JSON shows.
pub struct Bare<'a>(pub &'a Reply);

ops! {
    DatastoreCreate = datastore::create::DatastoreCreate;
    DatastoreLs = datastore::list::DatastoreLs;
    DatastoreShow = datastore::list::DatastoreShow;
    DatastoreRm = datastore::remove::DatastoreRm;
    NetworkCreate = network::create::NetworkCreate;
    NetworkLs = network::list::NetworkLs;
    NetworkShow = network::list::NetworkShow;
    NetworkRm = network::remove::NetworkRm;
    ImageImport = image::import::ImageImport;
    ImageLs = image::list::ImageLs;
    ImageShow = image::list::ImageShow;
    ImageRename = image::rename::ImageRename;
    ImageCopy = image::copy::ImageCopy;
    ImageRm = image::remove::ImageRm;
    ImageExport = image::export::ImageExport;
    ImageFormats = image::list::ImageFormats;
    ImageCreate = image::create::ImageCreate;
    NodeProvision = node::provision::NodeProvision;
    NodeLs = node::list::NodeLs;
    NodeShow = node::list::NodeShow;
    NodeDeprovision = node::deprovision::NodeDeprovision;
    NodeMigrate = node::migrate::NodeMigrate;
    NodeRebase = node::rebase::NodeRebase;
    NodeReprovision = node::rebase::NodeReprovision;
    NodeBootScript = node::script::NodeBootScript;
    NodeSnapshot = image::create::NodeSnapshot;
    TagCreate = tag::create::TagCreate;
    TagLs = tag::list::TagLs;
    TagShow = tag::list::TagShow;
    TagRename = tag::change::TagRename;
    TagRm = tag::change::TagRm;
    TagRollback = tag::rollback::TagRollback;
    VolumeLs = volume::list::VolumeLs;
    VolumeShow = volume::list::VolumeShow;
    VolumeRm = volume::remove::VolumeRm;
    TargetLs = target::list::TargetLs;
    TargetShow = target::list::TargetShow;
    OpLs = operation::OpLs;
    OpShow = operation::OpShow;
    OpWatch = operation::OpWatch;
    OpCancel = operation::OpCancel;
    OpRetry = operation::OpRetry;
    OpAbandon = operation::OpAbandon;
    EventLs = event::EventLs;
    EventWatch = event::EventWatch;
    StateDump = state::StateDump;
    StateRestore = state::StateRestore;
    StateCheck = state::StateCheck;
    Reconcile = host::Reconcile;
    Status = host::Status;
    Doctor = host::Doctor;
    NodeChapSecret = node::secret::NodeChapSecret;
    StateRebuild = state::rebuild::StateRebuild;
    DatastoreScan = datastore::scan::DatastoreScan;
    VlanAdd = vlan::add::VlanAdd;
    VlanLs = vlan::list::VlanLs;
    VlanRm = vlan::remove::VlanRm;
    NetworkUpdate = network::update::NetworkUpdate;
    NetworkAttach = network::attach::NetworkAttach;
    NetworkDetach = network::attach::NetworkDetach;
}
