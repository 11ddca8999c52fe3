//! The order of starting, on one screen, and of stopping.
//!
//! Nothing here repairs or decides: a part that cannot start says what is wrong and what to do.

use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bmi::model::{Fault, Kind, Target, Time, ViewExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc;

use super::args::Args;
use super::config::{Config, DEFAULT_FILE, Workers};
use super::keyring::{self, Keyring};
use super::manager::{self, Asked};
use super::{Failure, log};
use crate::drivers::{DriverSet, Paths, Unseal, worker};
use crate::listen::{self, Limits, Made};
use crate::run::{self, Cancel, Engine};
use crate::store::lock::{self, Lock, NoLock};
use crate::store::{LOG_BYTES, Opened, Options, Store, keep_memory_together};

/// How long opening the state may take: a large one is read through once.
const OPENING: Duration = Duration::from_secs(300);
/// After so long a stop is no longer waited for: what hangs goes on after the next start.
const STOPPING: Duration = Duration::from_secs(7);
/// Calls that block, at once: a dozen hanging networks and datastores must leave threads for the others.
const BLOCKING: usize = 256;

/// Starts, serves, stops.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config = load(args)?;
    if args.check_config {
        print!("{}", config.shown());
        return Ok(());
    }
    if args.check {
        return check(&config);
    }
    keep_memory_together();
    let log = log::start(&config.log)?;
    let passed = listen::inherited()?;
    let asked = manager::signals()?;
    raise_descriptor_limit();
    manager::starting("opening the state", OPENING);
    let opened = Store::open(&config.state_dir, options(&config)).map_err(Fault::from)?;
    tell_aside(&config.state_dir, &opened);
    make_folder(&config.run_dir)?;
    let workers_are_ours = hold(&config.run_dir)?;
    let parts = parts(&config, args, &opened)?;
    let runtime = runtime()?;
    let _entered = runtime.enter();
    let engine = Engine::start(parts)?;
    let (listener, made) = door(&config, passed)?;
    let running = Running { args: args.clone(), config, log, asked, engine, made };
    let served = runtime.block_on(running.serve(listener));
    drop(_entered);
    runtime.shutdown_timeout(Duration::from_millis(200));
    drop(opened);
    drop(workers_are_ours);
    served.map_err(Failure::from)
}

fn load(args: &Args) -> Result<Config, Failure> {
    Config::load(args, &|name| std::env::var(name).ok(), Path::new(DEFAULT_FILE))
        .map_err(|fault| Failure { fault, code: 2 })
}

/// How the store is opened.
fn options(config: &Config) -> Options {
    let mut random = [0; 16];
    keyring::fill(&mut random);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Options {
        cache_bytes: config.cache_mib << 20,
        log_bytes: LOG_BYTES,
        engine_name: config.engine_name.clone(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
        now: Time(u64::try_from(since.as_micros()).unwrap_or(u64::MAX)),
        random,
        on_failed: Box::new(|fault| {
            // What is in memory may be more than what is on disk: nothing further may be served from it.
            tracing::error!("the store has failed, bmid ends for its manager to start it again: {fault}");
            std::process::exit(1);
        }),
    }
}

/// Says which stores stand aside, and which dump would bring their records back.
fn tell_aside(dir: &Path, opened: &Opened) {
    let (_, dump) = Store::beside(dir);
    let then = dump.map_or("there is no dump to restore".to_owned(), |d| {
        format!("`bmictl state restore {} --yes` brings its records back", d.display())
    });
    for aside in &opened.aside {
        let at = aside.display();
        tracing::warn!("a store that did not open stands aside at {at}: {then}; remove it when you need it no more");
    }
}

/// What the engine is made of.
fn parts(config: &Config, args: &Args, opened: &Opened) -> Result<run::Config, Fault> {
    let key = Arc::new(Keyring::open(&config.state_dir, !holds_secrets(&opened.store)?)?);
    let paths = Paths { state: config.state_dir.clone(), run: config.run_dir.clone() };
    let unseal: Arc<dyn Unseal> = Arc::clone(&key) as _;
    let drivers = match &args.sim {
        Some(world) => {
            let world = world.clone().unwrap_or_else(|| config.state_dir.join("sim"));
            tracing::warn!("everything outside is simulated in {}: no machine can boot", world.display());
            DriverSet::sim(&world, unseal)?
        }
        None => DriverSet::real(&paths, unseal, workers(config)),
    };
    // A fresh store beside one that did not open waits for a dump, which goes into an empty one only.
    let waits_for_dump = opened.fresh && !opened.aside.is_empty();
    Ok(run::Config {
        store: opened.store.clone(),
        drivers: Arc::new(drivers),
        defaults: config.defaults(),
        seal: Box::new(move |secret| key.seal(secret)),
        reconcile_every: config.reconcile_every,
        default_datastore: config.default_datastore.clone().filter(|_| !waits_for_dump),
    })
}

fn holds_secrets(store: &Store) -> Result<bool, Fault> {
    let in_rows = store.read(|view| Ok(view.live::<Target>()?.iter().any(|t| t.chap.is_some())))?;
    Ok(in_rows || !store.intents()?.is_empty())
}

fn workers(config: &Config) -> worker::Manager {
    match config.workers {
        Workers::Auto => worker::Manager::auto(&config.run_dir),
        Workers::Systemd => worker::Manager::Systemd,
        Workers::Detached => worker::Manager::Detached,
    }
}

fn make_folder(run: &PathBuf) -> Result<(), Fault> {
    if run.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o755).create(run);
    // Whatever the umask is: the socket is in it, and its own mode says who may connect.
    made.and_then(|()| std::fs::set_permissions(run, Permissions::from_mode(0o755))).map_err(|e| {
        Fault::new(Kind::Unavailable, e.to_string())
            .trying(format!("make the run folder {}", run.display()))
            .fix("run bmid as root, or give it another one with --run-dir")
    })
}

/// Takes the run folder for this bmid alone. The workers in it are another's tgtds otherwise, and to reconcile they would
/// be nobody's: it would end them under running nodes.
fn hold(run: &Path) -> Result<Lock, Fault> {
    let tried = format!("use the run folder {}", run.display());
    let lock = lock::take(run).map_err(|no| match no {
        NoLock::Held(pid) => Fault::conflict(format!("process {pid} uses it already; its workers run there"))
            .trying(&tried)
            .fix("stop that bmid, or give this one another folder with --run-dir"),
        NoLock::Io(e) => Fault::new(Kind::Unavailable, e.to_string())
            .trying(&tried)
            .fix("run bmid as root, or give it another one with --run-dir"),
    })?;
    lock.sign();
    Ok(lock)
}

/// Two threads are enough for what waits; what blocks has threads of its own, which go when they are idle.
fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING)
        .thread_name("bmid")
        .enable_all()
        .build()
        .map_err(|e| Fault::new(Kind::Outside, e.to_string()).trying("start bmid's threads"))
}

/// The socket that systemd passed, else one of our own.
fn door(config: &Config, passed: Option<UnixListener>) -> Result<(UnixListener, Option<Made>), Fault> {
    match passed {
        Some(listener) => Ok((listener, None)),
        None => listen::make(&config.socket, config.socket_group.as_deref()).map(|(l, made)| (l, Some(made))),
    }
}

/// What a tgtd may have open, as its unit says: a process without a manager has what bmid can give it.
const FILES_OF_A_WORKER: u64 = 524_288;

/// Thousands of clients, and files of their own for each import: more than the usual 1,024. And for the workers, which inherit the hard
/// limit, more than the host's where bmid may raise that: a tgtd needs two files a disk.
fn raise_descriptor_limit() {
    let raise = |hard: u64| setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard);
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| raise(hard.max(FILES_OF_A_WORKER)).or_else(|_| raise(hard)));
    if let Err(e) = raised {
        tracing::debug!("the limit of open files stays as it is: {e}");
    }
}

/// A bmid that serves.
struct Running {
    args: Args,
    config: Config,
    log: log::Handle,
    asked: mpsc::Receiver<Asked>,
    engine: Arc<Engine>,
    made: Option<Made>,
}

impl Running {
    async fn serve(mut self, listener: UnixListener) -> Result<(), Fault> {
        let stop = Cancel::default();
        let service = Arc::clone(&self.engine);
        let mut serving = tokio::spawn(listen::serve(listener, service, Limits::default(), stop.clone()));
        tokio::spawn(manager::watchdog());
        let status = format!("listening on {}", self.config.socket.display());
        manager::ready(&status);
        tracing::info!(release = env!("CARGO_PKG_VERSION"), "{status}");
        let ended = loop {
            tokio::select! {
                asked = self.asked.recv() => match asked {
                    Some(Asked::Reload) => {
                        manager::reloading();
                        self.reload();
                        manager::ready(&status);
                    }
                    Some(Asked::Stop) | None => break Ok(()),
                },
                ended = &mut serving => {
                    let why = match ended {
                        Ok(Err(e)) => e.to_string(),
                        Ok(Ok(())) => "it ended by itself".to_owned(),
                        Err(e) => e.to_string(),
                    };
                    break Err(Fault::internal(why).trying(format!("listen on {}", self.config.socket.display())));
                }
            }
        };
        manager::stopping();
        tracing::info!("stopping");
        give_up_after(STOPPING);
        stop.cancel();
        self.engine.stop().await;
        if !serving.is_finished() {
            // Its own time to drain has long begun; a panic in it was said where it happened.
            let _ = serving.await;
        }
        drop(self.made);
        ended
    }

    /// Takes over what can be taken over, and says what cannot. A configuration with a mistake changes nothing.
    fn reload(&mut self) {
        let new = match load(&self.args) {
            Ok(new) => new,
            Err(Failure { fault, .. }) => return tracing::error!("the old configuration stays: {fault}"),
        };
        if let Err(fault) = self.log.change(&new.log) {
            tracing::error!("{fault}");
        }
        self.engine.set_reconcile_every(new.reconcile_every);
        let waiting = self.config.needs_restart(&new);
        if !waiting.is_empty() {
            tracing::warn!("restart bmid for the new {}; nodes keep their disks", waiting.join(", "));
        }
        tracing::info!("configuration read again");
    }
}

/// A call that hangs must not hold the stop up: what it was part of goes on after the next start.
fn give_up_after(longest: Duration) {
    let waiting = std::thread::Builder::new().name("stop".to_owned()).stack_size(manager::LOGS).spawn(move || {
        std::thread::sleep(longest);
        tracing::warn!("something hangs; bmid ends without it");
        std::process::exit(0);
    });
    if let Err(e) = waiting {
        tracing::debug!("nobody watches over the stop: {e}");
    }
}

/// `bmid --check`.
fn check(config: &Config) -> Result<(), Failure> {
    let dir = &config.state_dir;
    let tried = || format!("check the state in {}", dir.display());
    if !dir.join("db").exists() {
        return Err(no_state(dir).trying(tried()).into());
    }
    let opened = Store::open_to_look(dir, options(config)).map_err(|e| Fault::from(e).trying(tried()))?;
    let problems = opened.store.check()?;
    for problem in &problems {
        println!("{problem}");
    }
    if problems.is_empty() {
        println!("the state in {} is whole", dir.display());
        return Ok(());
    }
    let why = format!("{} problems in {}", problems.len(), dir.display());
    Err(Fault::new(Kind::Corrupt, why).fix("restore the newest dump, or look at each record named above").into())
}

/// Why there is no store in a folder, and what to do.
fn no_state(dir: &Path) -> Fault {
    let (aside, dump) = Store::beside(dir);
    let Some(aside) = aside.last() else {
        return Fault::new(Kind::NotFound, "there is no state there").fix("give the folder with --state-dir");
    };
    let why = format!("the store was damaged and stands aside at {}", aside.display());
    Fault::new(Kind::Corrupt, why).fix(match dump {
        Some(dump) => {
            format!("start bmid: it comes up with an empty store; then `bmictl state restore {} --yes`", dump.display())
        }
        None => "there is no dump; put a copy of the folder back, or start bmid with an empty store".to_owned(),
    })
}
