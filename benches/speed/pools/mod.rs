//! Disks in a pool of a real Ceph, which is started here and ends with this program: one host, one OSD, on the measurement's disk.
//! Everything that is measured, Ceph too, shares this machine's cores; what counts are the ratios.

#[path = "../../../tests/support/ceph.rs"]
mod ceph;
mod clients;
mod cores;
mod ffi;
mod floor;
mod provision;
mod shell;
mod tags;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::client::{Client, request};
use super::figures::title;
use super::house::{House, mac, sh};
use ceph::Ceph;
use ffi::Pool;

const POOL: &str = "bmi";
const USER: &str = "bmi";
/// Nodes that are there in the measurements of one.
const NODES: usize = 10;
/// How many networks there are, each with a tgtd of its own.
const NETWORKS: usize = 8;
/// Numbers of the machines that come and go.
const GUESTS: usize = 60_000;

/// Measures and prints.
type Part = fn(&House, &mut Pooled);

/// What is measured, in this order; BMI_BENCH_POOLS says which of it, if not all. The last leaves a thousand nodes behind.
const PARTS: [(&str, Part); 4] =
    [("provision", provision::run), ("shell", shell::run), ("tags", tags::run), ("clients", clients::run)];

/// The cluster with its pool, and what is bare beside bmid.
struct Pooled {
    ceph: Ceph,
    pool: Pool,
    /// The golden image's name in the pool.
    golden: String,
    machines: usize,
}

/// Measures and prints.
pub(crate) fn run(house: &mut House) {
    let begun = Instant::now();
    let mut pooled = Pooled::new(house);
    title(&format!(
        "disks in a pool: Ceph {} with one OSD on this machine, up in {:.0} s",
        sh("ceph --version | cut -d' ' -f3").trim(),
        begun.elapsed().as_secs_f64()
    ));
    let only = std::env::var("BMI_BENCH_POOLS").unwrap_or_default();
    for (name, run) in PARTS {
        if only.is_empty() || only.split_whitespace().any(|word| word == name) {
            run(house, &mut pooled);
        }
    }
}

impl Pooled {
    /// Starts Ceph, and makes a pool, a datastore, networks and a golden image.
    fn new(house: &House) -> Pooled {
        let at = house.path("ceph");
        std::fs::create_dir(&at).expect("a folder");
        let ceph = Ceph::here_at(&at);
        ceph.tool(&["ceph", "osd", "pool", "create", POOL, "32", "32", "--size", "1"]);
        ceph.tool(&["rbd", "pool", "init", POOL]);
        let keyring = ceph.user(USER, "profile rbd", &format!("profile rbd pool={POOL}"));
        let (conf, key) = (ceph.conf(), keyring.clone());
        let [conf, key] = [&conf, &key].map(|p| p.to_str().expect("text"));
        let datastore = ["datastore", "create", "pool", "--kind", "rbd", "--pool", POOL, "--conf", conf];
        house.ctl(&[datastore.as_slice(), &["--id", USER, "--keyring", key, "--export", "librbd"]].concat());
        for n in 1..=NETWORKS {
            sh(&format!("ip link add up{n} type veth peer name down{n}; ip link set up{n} up; ip link set down{n} up"));
            let (second, interface) = (20 + n, format!("up{n}"));
            let (address, range) = (format!("10.{second}.0.1/20"), format!("10.{second}.1.0-10.{second}.12.255"));
            let network = ["network", "create", &format!("rack{n}"), "--interface", &interface];
            house.ctl(&[network.as_slice(), &["--address", &address, "--range", &range]].concat());
        }
        let disk = house.golden();
        let import = ["image", "import", disk.to_str().expect("text"), "--name", "pooled", "--format", "raw"];
        house.ctl(&[import.as_slice(), &["--datastore", "pool"]].concat());
        let pool = Pool::connect(&ceph.conf(), &keyring, USER, POOL);
        let mut pooled = Pooled { ceph, pool, golden: String::new(), machines: 0 };
        pooled.golden = pooled.image(".i.");
        let nodes: Vec<String> = (0..NODES).map(|n| format!("there{n}")).collect();
        house.connect().must(pooled.several("rack1", &nodes));
        pooled
    }

    /// The only image whose name holds this.
    fn image(&self, part: &str) -> String {
        let all = self.ceph.tool(&["rbd", "ls", POOL]);
        let found: Vec<&str> = all.lines().filter(|l| l.contains(part)).collect();
        assert_eq!(found.len(), 1, "images with {part}: {found:?}");
        found[0].to_owned()
    }

    /// The address of a machine that was not there before.
    fn mac(&mut self) -> String {
        self.machines += 1;
        mac(GUESTS + self.machines)
    }

    /// The request for a node on a network.
    fn one(&mut self, network: &str, name: &str) -> bmi::ops::Request {
        request(&format!("node provision {name} --image pooled --mac {} --network {network}", self.mac()))
    }

    /// The request for several.
    fn several(&mut self, network: &str, names: &[String]) -> bmi::ops::Request {
        let nodes: Vec<String> = names.iter().map(|name| format!("--node {name},{}", self.mac())).collect();
        request(&format!("node provision --image pooled --network {network} {}", nodes.join(" ")))
    }

    /// Waits until bmid's background has emptied the trash: it must not run beside what is measured next.
    fn settle(&self) {
        let end = Instant::now() + Duration::from_secs(300);
        while !self.pool.trash_is_empty() {
            assert!(
                Instant::now() < end,
                "the trash is not emptied: {}",
                self.ceph.tool(&["rbd", "trash", "ls", POOL])
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What bmid tells the tgtd of its networks about Ceph, for a tgtd that must not be told less.
    fn options(&self) -> String {
        let conf: PathBuf = sh("ls /run/bmid/net/*/tgtd/ceph-*.conf | head -1").trim().into();
        format!("conf={};id={USER}", conf.display())
    }
}

/// Takes a node away, as fast as can be.
fn away(client: &mut Client, name: &str) {
    client.must(request(&format!("node deprovision {name}")));
}
