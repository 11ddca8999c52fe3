//! Many networks: how long one takes to be made against the bare start of its workers, bmid started again among them, and all of half
//! of them, with ten nodes each, killed at once. BMI_BENCH_NETWORKS says how many.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::bare::Bare;
use super::client::request;
use super::figures::{Figures, line, ms, ratio, title};
use super::house::{House, mac, sh};
use super::target;

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
    for n in 0..all + 2 * ROUNDS {
        let _ = write!(batch, "link add l{n} type veth peer name m{n}\nlink set l{n} up\nlink set m{n} up\n");
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

/// The engine's address on the nth network.
pub(crate) fn address(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 16 + (n >> 8) as u8, n as u8, 1)
}

fn create(house: &House, all: usize) {
    let (mut ours, mut floor, mut in_turn) = (Figures::default(), Figures::default(), Figures::default());
    for n in 0..all {
        let request = request(&format!("network create many{n} --interface l{n} --address {}/24", address(n)));
        ours.time(|| house.connect().must(request));
        // Among the last: the more networks there are, the longer all of them take.
        if let Some(round) = (n + ROUNDS).checked_sub(all) {
            floor.add(Bare::new(n, all + 2 * round).made(true));
            in_turn.add(Bare::new(n, all + 2 * round + 1).made(false));
        }
    }
    let last = ours.last(ROUNDS);
    let found = |floor: &Figures| {
        let times = ratio(last.median(), floor.median());
        let (ours, bare, worst) = (ms(last.median()), ms(floor.median()), ms(ours.worst()));
        (format!("{times:.2} x floor ({ours} to {bare}; worst of {all}: {worst})"), times <= 1.5)
    };
    let (text, reached) = found(&floor);
    line("network create, against bare netlink and its workers' bare start", &text, "<= 1.5", reached);
    super::figures::note("the same, against workers started one after another", &found(&in_turn).0);
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
    // Those that were killed may be listed still.
    let dnsmasq = sh("ps -C dnsmasq -o stat= | grep -vc Z");
    let found =
        format!("{:.2} s: {} tgtd with their targets, {} dnsmasq", took.as_secs_f64(), sockets.len(), dnsmasq.trim());
    super::figures::note(&format!("bmid and all workers killed ({full} networks with {NODES} nodes)"), &found);
}
