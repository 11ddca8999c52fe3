//! What operators do today, with the tools' own commands: `cp --reflink`, a line in a file, `tgt-admin --execute`.

use std::fmt::Write as _;

use super::client::request;
use super::figures::{Figures, line, ms, ratio, title};
use super::house::{House, mac, sh};
use super::target::{self, Tgtd};

const TARGETS: usize = 1_000;
const ROUNDS: usize = 10;
const GOAL: f64 = 20.0;
/// Numbers of the machines that come and go.
const GUESTS: usize = 30_000;

/// Measures and prints.
pub(crate) fn run(house: &mut House) {
    title("against a shell: cp --reflink, tgt-admin --execute (without fsync, DHCP or boot script)");
    house.fill(TARGETS);
    let tgtd = Tgtd::start(std::path::Path::new("/run/shell"), 3_262);
    let at = house.path("disk/shell");
    std::fs::create_dir_all(&at).expect("a folder");
    let conf = house.path("targets.conf");
    let mut text = String::new();
    for i in 0..TARGETS {
        let disk = at.join(format!("{i}.raw"));
        sh(&format!("cp --reflink=always {} {}", house.golden().display(), disk.display()));
        text.push_str(&entry(i, &disk.display().to_string()));
        target::make(&tgtd.socket, u32::try_from(i + 1).expect("few"), &iqn(i), &disk);
    }
    std::fs::write(&conf, text).expect("written");
    let (mut shell, mut ours) = (Figures::default(), Figures::default());
    let mut client = house.connect();
    for round in 0..ROUNDS {
        let i = TARGETS + round;
        let disk = at.join(format!("{i}.raw")).display().to_string();
        let lines = entry(i, &disk);
        let script = format!(
            "cp --reflink=always {} {disk}; cat >>{c} <<'END'\n{lines}END\nTGT_IPC_SOCKET={} tgt-admin --execute -c {c}",
            house.golden().display(),
            tgtd.ipc.display(),
            c = conf.display()
        );
        shell.time(|| sh(&script));
        assert_eq!(target::count(&tgtd.socket), Some(i + 1), "tgt-admin made the target");
        let line = format!("node provision shell{round} --image golden --mac {} --network net1", mac(GUESTS + round));
        let provision = request(&line);
        ours.time(|| client.must(provision));
        client.must(request(&format!("node deprovision shell{round}")));
    }
    let by = ratio(shell.median(), ours.median());
    let found = format!("{by:.0} times faster ({} to {})", ms(ours.median()), ms(shell.median()));
    line(&format!("at {TARGETS} targets"), &found, &format!(">= {GOAL}"), by >= GOAL);
}

fn iqn(i: usize) -> String {
    format!("iqn.2026-11.internal.shell:{i:06}")
}

fn entry(i: usize, disk: &str) -> String {
    let mut text = format!("<target {}>\n  backing-store {disk}\n", iqn(i));
    let _ = writeln!(text, "  initiator-name {}:init\n</target>", iqn(i));
    text
}
