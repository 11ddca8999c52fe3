//! Many networks: how long one takes to be made against the bare start of its workers, bmid started again among them, and all of half
//! of them, with ten nodes each, killed at once. BMI_BENCH_NETWORKS says how many; with hundreds it takes many minutes (docs/performance.md).

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::client::request;
use super::figures::{Figures, line, ms, ratio, title};
use super::house::{House, mac, sh};
use super::target::{self, Tgtd};

/// Unless told otherwise.
const MANY: usize = 50;
const NODES: usize = 10;
/// Numbers of their machines: others than those of other parts.
const MACHINES: usize = 200_000;
const ROUNDS: usize = 10;
const STARTS: usize = 5;
const WATCHES: &str = "/proc/sys/fs/inotify/max_user_instances";

/// Measures and prints.
pub(crate) fn run(house: &mut House) {
    let all = std::env::var("BMI_BENCH_NETWORKS").ok().and_then(|n| n.parse().ok()).unwrap_or(MANY);
    title(&format!("{all} networks"));
    let mut batch = String::new();
    for n in 0..all + ROUNDS {
        let _ = write!(batch, "link add l{n} type veth peer name m{n}\nlink set l{n} up\nlink set m{n} up\n");
    }
    for n in all..all + ROUNDS {
        let _ = writeln!(batch, "addr add {}/24 dev l{n}", address(n));
    }
    std::fs::write(house.path("links"), batch).expect("written");
    sh(&format!("ip -batch {}", house.path("links").display()));
    // Each dnsmasq takes one, and the kernel gives few; bmid's sysctl.d file says so to hosts.
    let few = std::fs::read_to_string(WATCHES).expect("read");
    std::fs::write(WATCHES, "8192").expect("written");
    create(house, all);
    restart(house);
    killed(house, all / 2);
    std::fs::write(WATCHES, few).expect("written");
}

fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 16 + (n >> 8) as u8, n as u8, 1)
}

fn create(house: &House, all: usize) {
    let (mut ours, mut floor) = (Figures::default(), Figures::default());
    for n in 0..all {
        let request = request(&format!("network create many{n} --interface l{n} --address {}/24", address(n)));
        ours.time(|| house.connect().must(request));
        if n < ROUNDS {
            floor.add(bare(all + n));
        }
    }
    let times = ratio(ours.median(), floor.median());
    let found = format!(
        "{times:.2} x floor ({} to {}; worst of {all}: {})",
        ms(ours.median()),
        ms(floor.median()),
        ms(ours.worst())
    );
    line("network create, against its workers' bare start", &found, "<= 1.5", times <= 1.5);
}

/// A tgtd and a dnsmasq, side by side, until both are ready. The interface and its address are there.
fn bare(n: usize) -> Duration {
    let folder = PathBuf::from(format!("/run/bare{n}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    let begun = Instant::now();
    let mut dnsmasq = dnsmasq(&folder, n);
    let tgtd = Tgtd::start(&folder, u16::try_from(20_000 + n).expect("a port"));
    while std::fs::read(folder.join("pid")).unwrap_or_default().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = begun.elapsed();
    drop(tgtd);
    dnsmasq.kill().expect("killed");
    dnsmasq.wait().expect("ended");
    took
}

fn dnsmasq(folder: &Path, n: usize) -> Child {
    let [a, b, c, _] = address(n).octets();
    let file = |what: &str, name: &str| format!("--{what}={}", folder.join(name).display());
    Command::new("dnsmasq")
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--bind-interfaces"])
        .args([format!("--interface=l{n}"), format!("--dhcp-range={a}.{b}.{c}.10,{a}.{b}.{c}.200")])
        .args([file("pid-file", "pid"), file("dhcp-leasefile", "leases")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("dnsmasq (package dnsmasq-base) starts")
}

fn settle(house: &House) -> Duration {
    let begun = Instant::now();
    house.connect().must(request("reconcile"));
    begun.elapsed()
}

fn restart(house: &mut House) {
    let (mut answers, mut looked) = (Figures::default(), Figures::default());
    for _ in 0..STARTS {
        house.kill();
        answers.add(house.up());
        looked.add(settle(house));
    }
    let found = format!("{} (worst of {STARTS}: {})", ms(answers.median()), ms(answers.worst()));
    line("bmid started again, to its first answer", &found, "< 1 s", answers.worst() < Duration::from_secs(1));
    let whole = answers.worst() + looked.worst();
    let found = format!("{} after it (worst of {STARTS}: {})", ms(looked.median()), ms(looked.worst()));
    line("the same, until all networks are looked at", &found, "< 1 s both", whole < Duration::from_secs(1));
}

fn killed(house: &mut House, full: usize) {
    for n in 0..full {
        let machines = (0..NODES).map(|i| format!("--node of{n}-{i},{}", mac(MACHINES + n * NODES + i)));
        let machines = machines.collect::<Vec<_>>().join(" ");
        house.connect().must(request(&format!("node provision --image golden --network many{n} {machines}")));
    }
    let sockets: Vec<PathBuf> = sh("ls /run/bmid/net/*/tgtd/sock.0")
        .lines()
        .map(PathBuf::from)
        .filter(|s| target::count(s) >= Some(NODES))
        .collect();
    assert!(sockets.len() >= full, "{} networks have targets", sockets.len());
    let before: Vec<_> = sockets.iter().map(|s| target::count(s)).collect();
    house.kill();
    // The third worker of each is bmid's own program; the brackets keep this shell out of it.
    sh("killall -9 tgtd dnsmasq; pkill -9 -f -- '[-]-boot-files' || true");
    let begun = Instant::now();
    house.up();
    let end = begun + Duration::from_secs(300);
    let back = |(socket, count): (&PathBuf, &Option<usize>)| target::count(socket) == *count && target::is_open(socket);
    while !sockets.iter().zip(&before).all(back) {
        assert!(Instant::now() < end, "not all came back");
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = begun.elapsed();
    let dnsmasq = sh("pgrep -c dnsmasq");
    let found =
        format!("{:.2} s: {} tgtd with their targets, {} dnsmasq", took.as_secs_f64(), sockets.len(), dnsmasq.trim());
    super::figures::note(&format!("bmid and all workers killed ({full} networks with {NODES} nodes)"), &found);
}
