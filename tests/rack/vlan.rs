//! The whole rack: an engine on a trunk, a switch, machines on access ports. Engine and switch are under a kernel of their own that
//! has 802.1Q (User-mode Linux), machines beside it. What goes over the trunk is counted at the switch's end of it, tag by tag.
//!
//! The same test runs in two places: outside it plugs machines in and powers them on, under the other kernel it is switch and engine.
//! They tell each other by files in the outer host's folder.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::MAC;
use super::support::engine::Engine;
use super::support::host::Host;
use super::support::machine::{Firmware, Machine, file_on, golden};
use super::support::{run, script};

const NAME: &str = "vlan::a_machine_boots_over_its_tagged_vlan_and_the_same_one_gets_nothing_on_another";
/// Under the other kernel: the outer host's folder.
const FOLDER: &str = "BMID_TEST_RACK";
const MODULES: [&str; 5] = ["8021q", "veth", "bridge", "ipv6", "af_packet"];
/// The tenant's VLAN, and another's.
const VLANS: [u16; 2] = [100, 200];

#[test]
fn a_machine_boots_over_its_tagged_vlan_and_the_same_one_gets_nothing_on_another() {
    match std::env::var_os(FOLDER) {
        Some(folder) => switch_and_engine(Path::new(&folder)),
        None => machines(),
    }
}

/// Waits for a file that is written whole.
fn told(path: &Path, alive: impl Fn() -> bool) -> String {
    let since = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(path) {
            return text;
        }
        assert!(alive() && since.elapsed() < Duration::from_secs(900), "nobody wrote {}", path.display());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn tell(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// What the other kernel said, for whoever reads of a failure.
struct Said(PathBuf);

impl Said {
    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("under the other kernel:\n{}", self.text());
        }
    }
}

/// Two machines with one and the same card, each in a port of the switch.
fn machines() {
    super::ceph::guard();
    super::support::bmictl();
    let host = Host::new("rack");
    golden(&host, "golden", "once");
    let mut uml = host.command(script("uml"));
    uml.arg(host.path("uml"));
    for vlan in VLANS {
        host.sh(&format!("ip link add cable{vlan} type bridge; ip link set cable{vlan} up"));
        for end in ["port", "card"] {
            host.add_tap(&format!("{end}{vlan}"));
            host.sh(&format!("ip link set {end}{vlan} master cable{vlan}"));
        }
        uml.args(["--tap", &format!("port{vlan}")]);
    }
    for module in MODULES {
        uml.args(["--module", module]);
    }
    uml.arg("env").arg(format!("{FOLDER}={}", host.folder().display()));
    uml.arg(std::env::current_exe().unwrap()).args(["--nocapture", "--exact", NAME]);
    let said = Said(host.path("said"));
    let output = std::fs::File::create(&said.0).unwrap();
    let mut uml = uml.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
    let pid = uml.id();
    let alive = || !std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "));
    told(&host.path("serves"), alive);

    let mut right = Machine::boot(&host, "card100", MAC, Firmware::Bios, None);
    let wrong = Machine::boot(&host, "card200", MAC, Firmware::Bios, None);
    wrong.wait("No bootable device");
    let heard = wrong.said();
    for gift in ["boot.ipxe", "undionly", "tftp://", "10.100.", "10.200.", "SAN", "IBFT", "NODE-"] {
        assert!(!heard.contains(gift), "on another VLAN it was given {gift:?}:\n{heard}");
    }
    right.wait("NODE-DONE|No bootable device");
    right.line("NODE-DONE");
    right.powered_off();
    let mark = right.line("NODE-MARK");
    assert!(mark.contains("golden-id=golden root=/dev/sda1 disk=IET"), "{mark}");
    tell(&host.path("wrote"), &right.line("written by node"));
    let status = uml.wait().unwrap();
    let text = said.text();
    assert!(status.success() && text.contains("1 passed; 0 failed"), "the switch's and engine's part: {status}");
    // What was counted, for whoever reads the test's output.
    text.lines().filter(|l| l.starts_with("counted")).for_each(|l| println!("{l}"));
}

/// Under the other kernel.
fn switch_and_engine(outside: &Path) {
    run(Command::new("bash").args([
        "-euc",
        "
        # A switch has no addresses of its own.
        echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
        ip link add sw type bridge vlan_filtering 1 vlan_default_pvid 0
        ip link add eth1 type veth peer name trunk
        ip link set trunk master sw; ip link set trunk up; ip link set sw up
        for n in 1 2; do
            ip link set vec$n master sw; echo 1 >/proc/sys/net/ipv6/conf/vec$n/disable_ipv6
            bridge vlan add dev vec$n vid ${n}00 pvid untagged; ip link set vec$n up
            bridge vlan add dev trunk vid ${n}00
        done",
    ]));
    let host = Host::new("engine");
    let mut counting = Counting::on("trunk");
    run(Command::new("ip").args(["link", "set", "eth1", "netns", host.init()]));
    // A trunk has no address: with IPv6 on it the kernel itself would look for routers there, untagged.
    host.sh("echo 1 >/proc/sys/net/ipv6/conf/eth1/disable_ipv6; ip link set eth1 up");
    let engine = Engine::start(&host);
    let image = outside.join("golden.raw");
    engine.ctl(&["image", "import", image.to_str().unwrap(), "--name", "golden", "--format", "raw"]);
    for vlan in VLANS {
        let (name, number, address) = (format!("t{vlan}"), vlan.to_string(), format!("10.{vlan}.0.1/24"));
        engine.ctl(&["network", "create", &name, "--interface", "eth1", "--vlan", &number, "--address", &address]);
    }
    let node = provision_on(&engine, "n1", MAC, "t100");
    provision_on(&engine, "n2", "52:54:00:00:00:02", "t200");
    tell(&outside.join("serves"), "");

    let wrote = told(&outside.join("wrote"), || true);
    assert_eq!(file_on(&engine.disk_of("n1"), "/var/node-wrote").trim(), wrote.trim(), "the clone");
    let sessions = |node: &str| engine.json(&["node", "show", node])["sessions"].clone();
    let of_right = sessions("n1");
    assert!(of_right.as_array().is_some_and(|s| !s.is_empty()), "{of_right}");
    assert!(of_right.to_string().contains(node["address"].as_str().unwrap()), "{of_right}");
    assert_eq!(sessions("n2").as_array().map(Vec::len), Some(0), "somebody logged in on the other VLAN");
    counted(&counting.end());
}

fn provision_on(engine: &Engine<'_>, name: &str, mac: &str, network: &str) -> serde_json::Value {
    engine.ctl(&["node", "provision", name, "--image", "golden", "--mac", mac, "--network", network]);
    engine.json(&["node", "show", name])
}

/// What the frames on the trunk have to say. `in` is what the engine sent: it is counted at the switch's end.
fn counted(frames: &BTreeMap<(String, String, String), u64>) {
    frames.iter().for_each(|((way, tag, kind), n)| println!("counted: {way} {tag} {kind} {n}"));
    let sum = |way: &str, tag: &str, kinds: &[&str]| -> u64 {
        let fits = |(w, t, k): &(String, String, String)| {
            w == way && t == tag && (kinds.is_empty() || kinds.contains(&k.as_str()))
        };
        frames.iter().filter(|(key, _)| fits(key)).map(|(_, n)| n).sum()
    };
    let tags: Vec<&str> =
        frames.keys().map(|(_, tag, _)| tag.as_str()).filter(|t| !["100", "200"].contains(t)).collect();
    assert!(tags.is_empty(), "frames that carry no VLAN or another one: {frames:?}");
    for (way, kind, least) in [("in", "dhcp", 2), ("out", "dhcp", 2), ("in", "iscsi", 1_000), ("out", "iscsi", 1_000)] {
        let n = sum(way, "100", &[kind]);
        assert!(n >= least, "{n} frames of {kind} {way} on VLAN 100: {frames:?}");
    }
    assert!(sum("in", "100", &["http", "tftp"]) > 0, "the script came over the VLAN: {frames:?}");
    assert!(sum("out", "200", &["dhcp"]) >= 2, "the machine on the other VLAN asked: {frames:?}");
    assert_eq!(sum("in", "200", &["dhcp", "dhcp6", "tftp", "http", "iscsi"]), 0, "and was answered: {frames:?}");
}

/// Counts frames until it is told to end.
struct Counting(Child, BufReader<std::process::ChildStdout>);

impl Counting {
    fn on(interface: &str) -> Counting {
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/rack/count.py");
        let mut process = Command::new("python3").arg(program).arg(interface).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "counting\n");
        Counting(process, said)
    }

    /// Frames by their way, tag and kind.
    fn end(&mut self) -> BTreeMap<(String, String, String), u64> {
        run(Command::new("kill").arg(self.0.id().to_string()));
        let mut said = String::new();
        self.1.read_to_string(&mut said).unwrap();
        let mut frames = BTreeMap::new();
        for line in said.lines() {
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                [way, tag, kind, n] => {
                    frames.insert(((*way).to_owned(), (*tag).to_owned(), (*kind).to_owned()), n.parse().unwrap());
                }
                _ => assert_eq!(line, "lost 0", "not all were counted:\n{said}"),
            }
        }
        assert!(!frames.is_empty());
        frames
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
