//! A child process that writes to a store as fast as it can and says on a pipe what is durable. It is this test binary
//! again, running the same test with `BMID_TEST_CHILD` set.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bmi::model::{Change, Id, Index, Mac, Node, NodeState, NodeType, Owner, Table, Time, ViewExt as _};
use bmid::store::{OpenError, Opened, Options, Store};

const ENV: &str = "BMID_TEST_CHILD";

pub(crate) fn options() -> Options {
    Options {
        cache_bytes: 16 << 20,
        log_bytes: 64 << 10,
        engine_name: "engine1".parse().unwrap(),
        release: "0.1.0".to_owned(),
        now: Time(1),
        random: [7; 16],
        on_failed: Box::new(|_| {}),
    }
}

pub(crate) fn open(dir: &Path) -> Result<Opened, OpenError> {
    Store::open(dir, options())
}

/// Node number `n`: everything in it derives from the number, so that a half-written one would show.
pub(crate) fn node(n: u64) -> Node {
    let (mut id, b) = ([0u8; 16], n.to_be_bytes());
    // Bytes 6 and 8 have bits of an id's own: what was counted there would be the same again from 4096 on.
    id[..6].copy_from_slice(&b[2..]);
    let mac: Mac = format!("52:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[3], b[4], b[5], b[6], b[7]).parse().unwrap();
    Node {
        id: Id::from_random(id),
        owner: Owner::default_project(),
        name: format!("n{n}").parse().unwrap(),
        kind: NodeType::Virtual,
        mac,
        nic: None,
        network: Id::from_random([1; 16]),
        address: None,
        state: NodeState::Ready,
        cause: Some("x".repeat(usize::try_from(n % 700).unwrap())),
        settings: [].into(),
        created_at: Time(n),
        updated_at: Time(n),
        operation: None,
    }
}

/// In the child: writes node after node from four threads, each with two more of its neighbours' rows, until it is killed.
/// In the parent: gives none, and the test goes on.
pub(crate) fn serve() -> Option<()> {
    let dir = PathBuf::from(std::env::var_os(ENV)?);
    let store = match open(&dir) {
        Ok(o) => o.store,
        Err(e) => {
            eprintln!("cannot open: {e}");
            std::process::exit(3);
        }
    };
    let first = store.read(|v| Ok(v.ids(Index::Live, &[Table::Node as u8])?.len() as u64)).unwrap();
    let next = AtomicU64::new(first);
    let out = Mutex::new(std::io::stderr());
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    // Churn beside it, so that sled moves pages around.
                    let touched = Node { updated_at: Time(n), ..node(n / 2) };
                    let changes = [Change::from(node(n)), Change::from(touched)];
                    let done = store
                        .write(|tx| {
                            tx.apply(&changes[0])?;
                            if tx.before(&changes[1])?.is_some() { tx.apply(&changes[1]) } else { Ok(()) }
                        })
                        .and_then(|((), ticket)| ticket.wait());
                    if done.is_err() {
                        return;
                    }
                    writeln!(out.lock().unwrap(), "ack {n}").unwrap();
                }
            });
        }
    });
    // The store has failed: say nothing more, wait for the end.
    std::thread::sleep(std::time::Duration::from_secs(600));
    Some(())
}

/// A running child.
pub(crate) struct Writer {
    child: Child,
    said: BufReader<ChildStderr>,
    /// What it said is durable.
    pub(crate) acked: Vec<u64>,
}

impl Writer {
    /// Starts the test `name` again as a child that writes to the store in `dir`.
    pub(crate) fn start(name: &str, dir: &Path) -> Writer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(ENV, dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Writer { child, said, acked: Vec::new() }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Listens until `count` more are durable.
    pub(crate) fn hear(&mut self, count: usize) {
        let wanted = self.acked.len() + count;
        while self.acked.len() < wanted {
            let line = self.line();
            assert!(!line.is_empty() && !line.starts_with("cannot open"), "the child ended by itself: {line}");
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        // A line cut by the kill is no acknowledgement.
        if let Some(n) = line.strip_prefix("ack ").and_then(|l| l.strip_suffix('\n')) {
            self.acked.push(n.parse().unwrap());
        }
        line
    }

    /// SIGKILL, and whatever it had said before.
    pub(crate) fn kill(mut self) -> Vec<u64> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        while !self.line().is_empty() {}
        std::mem::take(&mut self.acked)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens the store and proves that everything acknowledged is there, whole, and that nothing is torn.
pub(crate) fn prove(dir: &Path, acked: &[u64]) {
    let store = open(dir).unwrap_or_else(|e| panic!("the store does not open again: {e}")).store;
    let missing: Vec<u64> = store
        .read(|v| {
            let mut missing = Vec::new();
            for n in acked {
                let wanted = node(*n);
                let found = v.get::<Node>(wanted.id)?.map(|found| Node { updated_at: wanted.updated_at, ..found });
                if found.as_ref() != Some(&wanted) {
                    missing.push(*n);
                }
            }
            Ok(missing)
        })
        .unwrap();
    assert!(missing.is_empty(), "{} of {} acknowledged writes are missing: {missing:?}", missing.len(), acked.len());
    let problems = store.check().unwrap();
    let torn: Vec<&String> = problems.iter().filter(|p| !p.contains("its network")).collect();
    assert!(torn.is_empty(), "{torn:#?}");
}
