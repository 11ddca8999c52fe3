//! What a request does, to what, in a few words: what a refusal says was tried. Pure.

use super::Request;
use super::datastore::scan::DatastoreScan;

impl Request {
    /// `create network rack1`. What is missing here is told by its command.
    #[must_use]
    pub fn doing(&self) -> String {
        match self {
            Request::DatastoreCreate(o) => format!("create datastore {}", o.name),
            Request::DatastoreShow(o) => format!("show datastore {}", o.datastore),
            Request::DatastoreScan(DatastoreScan { datastore: Some(d), .. }) => format!("scan datastore {d}"),
            Request::StateRebuild(o) => format!("rebuild the records of datastore {}", o.datastore),
            Request::DatastoreRm(o) => format!("remove datastore {}", o.datastore),
            Request::NetworkCreate(o) => format!("create network {}", o.name),
            Request::NetworkShow(o) => format!("show network {}", o.network),
            Request::NetworkRm(o) => format!("remove network {}", o.network),
            Request::ImageImport(o) => match (&o.from_rbd, &o.source) {
                (Some(from), _) => format!("take over {from} as image {}", o.name),
                (None, Some(source)) => format!("import {} as image {}", source.name, o.name),
                (None, None) => format!("import image {}", o.name),
            },
            Request::ImageShow(o) => format!("show image {}", o.image),
            Request::ImageRename(o) => format!("rename image {} to {}", o.image, o.name),
            Request::ImageCopy(o) => format!("copy image {} to {}", o.image, o.name),
            Request::ImageRm(o) => format!("remove image {}", o.image),
            Request::ImageExport(o) => format!("export image {}", o.image),
            Request::ImageCreate(o) => format!("make image {} of node {}", o.name, o.from_node),
            Request::VolumeShow(o) => format!("show volume {}", o.volume),
            Request::VolumeRm(o) => format!("remove volume {}", o.volume),
            Request::OpShow(o) => format!("show operation {}", o.id),
            Request::OpWatch(o) => format!("wait for operation {}", o.id),
            Request::OpCancel(o) => format!("cancel operation {}", o.id),
            Request::OpRetry(o) => format!("retry operation {}", o.id),
            Request::OpAbandon(o) => format!("abandon operation {}", o.id),
            Request::TargetShow(o) => format!("show the target of node {}", o.node),
            other => other.doing_to_node().unwrap_or_else(|| other.sheet().command()),
        }
    }

    /// Whether `--check` answers what would be, and not only whether anything would.
    #[must_use]
    pub fn foretells(&self) -> bool {
        matches!(self, Request::StateRebuild(_) | Request::DatastoreScan(_))
    }

    /// Whether it may leave rows whose outside is still to be made.
    #[must_use]
    pub fn leaves_to_reconcile(&self) -> bool {
        matches!(self, Request::StateRebuild(_))
    }

    fn doing_to_node(&self) -> Option<String> {
        Some(match self {
            Request::NodeProvision(o) => match &o.name {
                Some(name) => format!("provision node {name}"),
                None => format!("provision {} nodes", o.nodes.len()),
            },
            Request::NodeShow(o) => format!("show node {}", o.node),
            Request::NodeDeprovision(o) => format!("deprovision node {}", o.node),
            Request::NodeMigrate(o) => format!("migrate node {}", o.node),
            Request::NodeRebase(o) => format!("rebase node {} onto image {}", o.node, o.image),
            Request::NodeReprovision(o) => format!("reprovision node {}", o.node),
            Request::NodeBootScript(o) => format!("print the boot script of node {}", o.node),
            Request::NodeSnapshot(o) => format!("make image {} of node {}", o.name, o.node),
            Request::NodeChapSecret(o) => format!("show the CHAP secret of node {}", o.node),
            Request::TagLs(o) => format!("list tags of node {}", o.node.as_ref()?),
            Request::TagCreate(o) => format!("create tag {} of node {}", o.tag, o.node),
            Request::TagShow(o) => format!("show tag {} of node {}", o.tag, o.node),
            Request::TagRename(o) => format!("rename tag {} of node {}", o.tag, o.node),
            Request::TagRm(o) => format!("remove tag {} of node {}", o.tag, o.node),
            Request::TagRollback(o) => format!("roll node {} back to tag {}", o.node, o.tag),
            _ => return None,
        })
    }
}
