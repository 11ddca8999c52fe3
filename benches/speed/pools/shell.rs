//! What operators do today, with the tools' own commands: `rbd clone`, some lines in a file, `tgt-admin --execute`.

use super::super::figures::{Figures, ms, note, ratio, title};
use super::super::house::{House, sh};
use super::super::target::{self, Tgtd};
use super::{NODES, POOL, Pooled, USER, away};

const ROUNDS: usize = 10;

/// Measures and prints.
pub(super) fn run(house: &House, pooled: &mut Pooled) {
    title("pool: against a shell: rbd clone, tgt-admin --execute (without marks, DHCP or boot script)");
    let tgtd = Tgtd::start(std::path::Path::new("/run/shell-pool"), 3_264);
    let targets = house.path("pool-targets.conf");
    let (conf, keyring) = (pooled.ceph.conf(), pooled.ceph.path(&format!("keyring.{USER}")));
    let script = |i: usize| {
        format!(
            "rbd --conf {conf} --id {USER} --keyring {keyring} --rbd-default-clone-format 2 clone {POOL}/{golden}@base {POOL}/shell.{i}; \
             cat >>{targets} <<'END'\n\
             <target iqn.2026-11.internal.shell:{i:06}>\n  <backing-store {POOL}/shell.{i}>\n    bs-type rbd\n    bsopts \"'{options}'\"\n  \
             </backing-store>\n  initiator-name iqn.2026-11.internal.shell:{i:06}:init\n</target>\nEND\n\
             TGT_IPC_SOCKET={ipc} tgt-admin --execute -c {targets}",
            conf = conf.display(),
            keyring = keyring.display(),
            golden = pooled.golden,
            targets = targets.display(),
            options = pooled.options(),
            ipc = tgtd.ipc.display(),
        )
    };
    for i in 0..NODES {
        sh(&script(i));
    }
    let scripts: Vec<String> = (0..ROUNDS).map(|round| script(NODES + round)).collect();
    let (mut shell, mut ours) = (Figures::default(), Figures::default());
    let mut client = house.connect();
    for (round, script) in scripts.into_iter().enumerate() {
        shell.time(|| sh(&script));
        assert_eq!(target::count(&tgtd.socket), Some(NODES + round + 1), "tgt-admin made the target");
        let name = format!("shell{round}");
        let provision = pooled.one("rack1", &name);
        ours.time(|| client.must(provision));
        away(&mut client, &name);
        pooled.settle();
    }
    let by = ratio(shell.median(), ours.median());
    let found = format!("{by:.1} times faster ({} to {})", ms(ours.median()), ms(shell.median()));
    note(&format!("node provision at {NODES} targets"), &found);
}
