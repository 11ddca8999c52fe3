//! The process that is killed: this test program again, told by a variable where its job lies. It opens an engine, runs
//! command lines or lets open operations recover, writes down what it was answered, and ends itself as by kill -9 at the
//! very moment it is done. It judges nothing.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bmi::model::{Fault, Id};
use bmi::protocol::Envelope;
use nix::sys::signal::{Signal, kill};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::disks;
use crate::rig::{Plain, Rig};

const ENV: &str = "BMID_KILL_CHILD";

/// What a child does.
#[derive(Serialize, Deserialize)]
pub struct Job {
    /// The folder with `state` and `world`.
    pub dir: PathBuf,
    /// Command lines; none: it waits until no operation is open.
    pub lines: Vec<String>,
    /// The datastore of the first start.
    pub default: Option<PathBuf>,
    /// Whether it reconciles by itself.
    pub reconcile: bool,
}

/// What a line was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Said {
    /// Its items.
    Done(Vec<Value>),
    /// Why not.
    Refused(Fault),
}

/// The id under which the line of that number runs.
pub fn op_id(line: usize) -> Id {
    let mut bytes = [0x6b; 16];
    bytes[15] = u8::try_from(line).expect("few lines");
    Id::from_random(bytes)
}

/// In a child: does the job and never returns. In the parent: nothing.
pub fn serve() {
    let Some(job) = std::env::var_os(ENV) else { return };
    let job: Job = serde_json::from_slice(&fs::read(&job).expect("a job")).expect("a job reads back");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        work(job).await;
        // In here: a runtime that goes before its process calls off what the engine has just begun, and that is noted.
        let _ = kill(nix::unistd::Pid::this(), Signal::SIGKILL);
    });
}

async fn work(job: Job) {
    let drivers = disks::drivers(&job.dir, Arc::new(Plain));
    // A store that fails ends the daemon.
    let on_failed = Box::new(|_| {
        let _ = kill(nix::unistd::Pid::this(), Signal::SIGKILL);
    });
    let store = Rig::open_until_it_fails(&job.dir, on_failed);
    let rig = Rig::over(&job.dir, store, drivers, job.default.clone(), job.reconcile);
    if job.lines.is_empty() {
        while job.default.is_some() && !first_start_is_over(&rig).await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        return rig.settle().await.expect("it recovers");
    }
    for (number, line) in job.lines.iter().enumerate() {
        let said = ask(&rig, op_id(number), line).await;
        let text = serde_json::to_string(&said).expect("JSON");
        let file = OpenOptions::new().create(true).append(true).open(job.dir.join("said"));
        file.and_then(|mut f| f.write_all(format!("{text}\n").as_bytes())).expect("an answer is written down");
    }
}

/// Runs a line under an operation id.
pub async fn ask(rig: &Rig, id: Id, line: &str) -> Said {
    let (line, no_wait) = line.strip_prefix('&').map_or((line, false), |l| (l, true));
    let envelope = Envelope { op_id: Some(id), no_wait, ..Envelope::default() };
    match rig.ask(Rig::root(), envelope, line.trim()).await {
        Ok(answer) => Said::Done(answer.items),
        Err(fault) => Said::Refused(fault),
    }
}

/// Whether the datastore of the first start is there, or was tried in vain.
async fn first_start_is_over(rig: &Rig) -> bool {
    let there =
        rig.try_run("datastore show default").await.is_ok_and(|a| a.items.iter().any(|d| d["state"] == "active"));
    let failed = |e: &Value| e["method"] == "datastore.create" && e["outcome"] == "failed";
    there || rig.run("event ls").await.items.iter().any(failed)
}

/// What a child did before it died.
pub struct Died {
    /// The points it passed, in order.
    pub trace: Vec<String>,
    /// What its lines were answered.
    pub said: Vec<Said>,
}

/// Runs a child with a script of faults until it is dead. `test` is the name of the calling test, which calls [`serve`].
pub fn run(test: &str, job: &Job, script: &str) -> Result<Died, String> {
    let world = job.dir.join("world");
    for old in ["hits", "trace"] {
        let path = world.join(old);
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    fs::create_dir_all(&world).expect("a world");
    fs::write(world.join("faults"), script).expect("a script");
    let path = job.dir.join("job");
    fs::write(&path, serde_json::to_vec(job).expect("JSON")).expect("a job");
    let out = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ENV, &path)
        .stdin(Stdio::null())
        .output()
        .expect("a child");
    let signal = std::os::unix::process::ExitStatusExt::signal(&out.status);
    if signal != Some(Signal::SIGKILL as i32) {
        let text = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
        return Err(format!("the child ended by itself ({}):\n{text}", out.status));
    }
    fs::remove_file(world.join("faults")).expect("the script is taken away");
    Ok(Died { trace: lines(&world.join("trace")), said: said(&job.dir) })
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A line cut by the kill is no answer.
fn said(dir: &Path) -> Vec<Said> {
    lines(&dir.join("said")).iter().filter_map(|l| serde_json::from_str(l).ok()).collect()
}
