//! Where the disks of a test are: in the datastore that the first start makes, a folder, or in a pool of a real Ceph.

use serde_json::Value;

use crate::ceph::Ceph;
use crate::house::{disk, sh, tries};
use crate::rig::Rig;

/// One of them.
pub enum Store<'a> {
    Folder,
    /// A pool of a cluster in this namespace, and the line that makes it datastore `ceph`.
    Pool {
        cluster: &'a Ceph,
        pool: String,
        line: String,
    },
}

impl Store<'_> {
    /// A fresh pool, and a user for it.
    pub fn pool<'a>(cluster: &'a Ceph, pool: &str) -> Store<'a> {
        cluster.tool(&["ceph", "osd", "pool", "create", pool, "8", "8", "--size", "1"]);
        cluster.tool(&["rbd", "pool", "init", pool]);
        let key = cluster.user(pool, "profile rbd", &format!("profile rbd pool={pool}"));
        let (conf, key) = (cluster.conf().display().to_string(), key.display().to_string());
        let line = format!(
            "datastore create ceph --kind rbd --pool {pool} --conf {conf} --id {pool} --keyring {key} --export librbd"
        );
        Store::Pool { cluster, pool: pool.to_owned(), line }
    }

    /// A network `net1` and an image `golden` there.
    pub async fn ground(&self, rig: &Rig) {
        rig.run("network create net1 --interface eth1 --address 10.9.0.1/24 --range 10.9.0.100-10.9.0.150").await;
        let golden = disk(&rig.dir.join("golden.raw"), 64);
        let mut import = format!("image import {golden} --name golden --format raw");
        if let Store::Pool { line, .. } = self {
            rig.run(line).await;
            import += " --datastore ceph";
        }
        rig.run(&import).await;
    }

    /// The disks of volumes: files, or images of the pool.
    pub fn volumes(&self, rig: &Rig) -> Vec<String> {
        let all = match self {
            Store::Folder => sh(&format!("find {}/datastore/volumes -name '*.raw'", rig.dir.display())),
            Store::Pool { cluster, pool, .. } => cluster.tool(&["rbd", "ls", pool]),
        };
        let volumes = all.lines().filter(|l| l.ends_with(".raw") || l.contains(".v."));
        volumes.map(str::to_owned).collect()
    }

    /// The first bytes of a disk, as whoever looks past the engine sees them.
    pub fn begins(&self, volume: &str) -> String {
        let read = match self {
            Store::Folder => format!("cat {volume}"),
            Store::Pool { cluster, pool, .. } => {
                format!("rbd --conf {} export --no-progress {pool}/{volume} -", cluster.conf().display())
            }
        };
        sh(&format!("{read} | sha256sum"))
    }

    /// Nothing of a disk is left, the trash of a pool included. The watch of a tgtd that was killed holds its disk for up to
    /// half a minute.
    pub async fn emptied(&self, rig: &Rig) {
        let left = || match self {
            Store::Folder => {
                let store = rig.dir.join("datastore");
                sh(&format!("cd {}; find images volumes snapshots staging -mindepth 1", store.display()))
            }
            Store::Pool { cluster, pool, .. } => {
                cluster.tool(&["rbd", "ls", pool]) + &cluster.tool(&["rbd", "trash", "ls", "--all", pool])
            }
        };
        for _ in 0..600 {
            if left().is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("{}", left());
    }
}

/// Writes to the node's disk as its machine would.
pub fn write(node: &Value) {
    let text = |field: &str| node[field].as_str().unwrap().to_owned();
    let url = format!("iscsi://{}/{}/1", text("portal"), text("iqn"));
    let test = format!("iscsi-test-cu -i {} --dataloss --test=SCSI.Write16.Simple {url}", text("initiator"));
    let (_, said) = tries(&test);
    assert!(said.contains("...passed"), "{said}");
}
