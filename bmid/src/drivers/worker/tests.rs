//! The worker driver with real processes in namespaces of a test's own, and its simulator through the same suite.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::sys::resource::{Resource, setrlimit};

use super::sim::SimWorkers;
use bmi::step::StartWorker;

use super::*;
use crate::drivers::proving::{Rack, both_ways, fails_at_each, id, program, sh};
use crate::drivers::sim::World;

mod hang;
mod told;
mod uses;

/// A host's folders and one network. Its workers end with it.
struct Ground {
    rack: Rack,
    paths: Paths,
    network: Id,
    _dir: tempfile::TempDir,
}

impl Drop for Ground {
    fn drop(&mut self) {
        for kind in KINDS {
            let _ = self.workers().stop(&StopWorker { network: self.network, kind });
        }
    }
}

impl Ground {
    fn new() -> Ground {
        build_bmid();
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { state: dir.path().join("state"), run: dir.path().join("run") };
        let ground = Ground { rack: Rack::new(), paths, network: id(), _dir: dir };
        ground.configure("10.9.0.1");
        ground.rack.engine(|| sh("ip addr add 10.9.0.1/24 dev v0"));
        ground
    }

    /// A dnsmasq for one address. The driver asks of a configuration only where it is.
    fn configure(&self, address: &str) {
        let (boot, own) = (self.paths.boot(self.network), self.paths.dnsmasq(self.network));
        let text = format!(
            "port=0\ninterface=v0\nlisten-address={address}\nbind-interfaces\nuser=root\ngroup=root\nenable-tftp\n\
             tftp-root={}\npid-file={}\nlog-facility=-\ndhcp-range=10.9.0.0,static\ndhcp-leasefile={}\n",
            boot.display(),
            own.join("pid").display(),
            own.join("leases").display(),
        );
        std::fs::create_dir_all(&boot).unwrap();
        std::fs::create_dir_all(own).unwrap();
        std::fs::write(boot.join("dnsmasq.conf"), text).unwrap();
        let http = super::own(&self.paths, self.network, WorkerKind::Http);
        let text = format!(
            "listen={address}:8067\nfrom=10.9.0.0/24\nroot={}\npid={}\n",
            boot.join("tftp").display(),
            http.join("pid").display()
        );
        std::fs::write(conf(&self.paths, self.network, WorkerKind::Http), text).unwrap();
    }

    /// A driver that knows nothing yet: as of a bmid that has just started.
    fn workers(&self) -> Workers {
        Workers::new(self.paths.clone(), Manager::Detached)
    }

    fn steps(&self, kind: WorkerKind) -> (WorkerStep, WorkerStep) {
        steps(self.network, kind)
    }

    fn start(&self, kind: WorkerKind) -> Result<bool, DriverError> {
        self.apply(&self.workers(), &self.steps(kind).0)
    }

    fn stop(&self, kind: WorkerKind) -> Result<bool, DriverError> {
        self.apply(&self.workers(), &self.steps(kind).1)
    }

    fn apply(&self, workers: &Workers, step: &WorkerStep) -> Result<bool, DriverError> {
        self.rack.engine(|| workers.apply(step, &StepCx::PLAIN)).map(|d| d.changed)
    }

    fn scope(&self) -> Scope {
        scope(self.network)
    }

    /// The worker's process id as a driver sees it that knows nothing yet.
    fn pid(&self, kind: WorkerKind) -> Option<u32> {
        pid(&self.workers().observe(&self.scope()).unwrap(), kind)
    }
}

/// The program that serves boot files, built now unless `make test` has done it: cargo builds none for tests beside the code.
fn build_bmid() {
    static BUILT: std::sync::Once = std::sync::Once::new();
    BUILT.call_once(|| {
        if std::env::var_os("BMI_BUILT").is_some() {
            return;
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "bmid", "--bin", "bmid"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if std::env::current_exe().unwrap().ancestors().nth(2).unwrap().ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "bmid does not build");
    });
}

fn steps(network: Id, kind: WorkerKind) -> (WorkerStep, WorkerStep) {
    let start = WorkerStep::StartWorker(StartWorker { network, kind, slot: 3, port: 3260 });
    (start, WorkerStep::StopWorker(StopWorker { network, kind }))
}

fn scope(network: Id) -> Scope {
    Scope::Network { network, interface: "v0".to_owned() }
}

fn pid(seen: &[Seen], kind: WorkerKind) -> Option<u32> {
    seen.iter().find_map(|s| match s {
        Seen::Worker(k, pid) if *k == kind => Some(*pid),
        _ => None,
    })
}

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
}

fn gone(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.is_empty() || status.contains("State:\tZ")
}

#[test]
fn the_simulator_passes_the_same_suite_and_fails_where_the_script_says() {
    for kind in KINDS {
        let (dir, network) = (tempfile::tempdir().unwrap(), id());
        let (start, stop) = steps(network, kind);
        let runs = |seen: &[Seen]| pid(seen, kind).is_some();
        let sim = SimWorkers::new(World::open(dir.path()).unwrap());
        both_ways(&sim, &scope(network), &start, &stop, &runs);
        assert_eq!(sim.observe(&Scope::Networks).unwrap(), vec![]);
        let names = [(&start, "worker.start"), (&stop, "worker.stop")];
        fails_at_each(&SimWorkers::new, &scope(network), &[], names, &runs);
    }
}

#[test]
fn a_simulated_tgtd_starts_empty_whatever_the_one_before_held() {
    let (dir, network, other) = (tempfile::tempdir().unwrap(), id(), id());
    let world = World::open(dir.path()).unwrap();
    let (sim, target) = (SimWorkers::new(world.clone()), crate::drivers::target::sim::SimTarget::new(world.clone()));
    let (start, stop) = steps(network, WorkerKind::Tgtd);
    for network in [network, other] {
        let start = steps(network, WorkerKind::Tgtd).0;
        sim.apply(&start, &StepCx::PLAIN).unwrap();
        target.apply(&bmi::step::TargetStep::OpenPortal(portal_of(network)), &StepCx::PLAIN).unwrap();
        world.del("worker", &format!("{network}@tgtd")).unwrap();
        sim.apply(&start, &StepCx::PLAIN).unwrap();
        assert_eq!(target.observe(&scope(network)).unwrap(), vec![], "that was another tgtd's");
        target.apply(&bmi::step::TargetStep::OpenPortal(portal_of(network)), &StepCx::PLAIN).unwrap();
    }
    assert!(!sim.apply(&start, &StepCx::PLAIN).unwrap().changed);
    assert_eq!(target.observe(&scope(network)).unwrap().len(), 1, "it runs already");
    sim.apply(&stop, &StepCx::PLAIN).unwrap();
    assert!(target.observe(&scope(network)).is_err(), "it does not run");
    assert_eq!(target.observe(&scope(other)).unwrap().len(), 1);
}

fn portal_of(network: Id) -> bmi::step::OpenPortal {
    bmi::step::OpenPortal { network, address: "10.9.0.1".parse().unwrap(), port: 3260, slot: 3 }
}

#[test]
fn a_simulated_death_is_told_once() {
    let (dir, network) = (tempfile::tempdir().unwrap(), id());
    let world = World::open(dir.path()).unwrap();
    let sim = SimWorkers::new(world.clone());
    sim.apply(&steps(network, WorkerKind::Tgtd).0, &StepCx::PLAIN).unwrap();
    assert_eq!(sim.died(Duration::ZERO), vec![]);
    world.del("worker", &format!("{network}@tgtd")).unwrap();
    let told = sim.died(LONG);
    assert!(matches!(told[..], [Death { kind: WorkerKind::Tgtd, .. }]), "{told:?}");
    assert_eq!(sim.died(Duration::ZERO), vec![]);
}

#[test]
fn real_workers_start_and_stop_and_leave_nothing() {
    let g = Ground::new();
    for kind in KINDS {
        let workers = g.workers();
        let (start, stop) = g.steps(kind);
        g.rack.engine(|| both_ways(&workers, &g.scope(), &start, &stop, &|seen| pid(seen, kind).is_some()));
    }
    assert_eq!(g.workers().observe(&Scope::Networks).unwrap(), vec![]);
    assert!(!g.paths.network(g.network).join("tgtd").exists());
    g.start(WorkerKind::Tgtd).unwrap();
    assert_eq!(g.workers().observe(&Scope::Networks).unwrap(), vec![Seen::Network(g.network)]);
    let Fact::Workers(health) = g.workers().look(&Look::Workers(g.network)).unwrap().unwrap() else { panic!() };
    assert!(health[0].running && health[0].memory > 100_000 && health[0].threads > 0, "{health:?}");
    assert_eq!(health[1].problem.as_deref(), Some("it does not run"));
}

#[test]
fn workers_keep_uid_0_and_no_capability_they_do_not_need() {
    let g = Ground::new();
    let dnsmasq = 1 << 10 | 1 << 12 | 1 << 13 | 1 << 6;
    for (kind, capabilities) in [(WorkerKind::Tgtd, 0u64), (WorkerKind::Dnsmasq, dnsmasq), (WorkerKind::Http, 0)] {
        g.start(kind).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", g.pid(kind).unwrap())).unwrap();
        for set in ["CapInh:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t0\t0\t0\t0", "Gid:\t0\t0\t0\t0"] {
            assert!(status.contains(set), "{set} in {status}");
        }
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert!(status.contains(&format!("{set}:\t{capabilities:016x}")), "{set} in {status}");
        }
    }
}

/// Run in a child process that is killed once its workers run.
#[test]
fn workers_survive_the_death_of_who_started_them_and_are_found_again() {
    if let Ok(run) = std::env::var("BMID_WORKER_RUN") {
        let network: Id = std::env::var("BMID_WORKER_NETWORK").unwrap().parse().unwrap();
        let workers = Workers::new(Paths { state: PathBuf::from("/"), run: run.into() }, Manager::Detached);
        setrlimit(Resource::RLIMIT_NOFILE, 800, 900).unwrap();
        for kind in KINDS {
            workers.apply(&steps(network, kind).0, &StepCx::PLAIN).unwrap();
        }
        signal(std::process::id(), nix::sys::signal::SIGKILL);
        unreachable!();
    }
    let g = Ground::new();
    let name = "drivers::worker::tests::workers_survive_the_death_of_who_started_them_and_are_found_again";
    let status = g.rack.engine(|| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env("BMID_WORKER_RUN", &g.paths.run)
            .env("BMID_WORKER_NETWORK", g.network.to_string())
            .stdout(Stdio::null())
            .status()
            .unwrap()
    });
    assert_eq!(status.signal(), Some(9));
    for kind in KINDS {
        let pid = g.pid(kind).expect("found by a driver that did not start it");
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let files = limits.lines().find_map(|l| l.strip_prefix("Max open files")).unwrap();
        let files: Vec<&str> = files.split_whitespace().take(2).collect();
        assert_eq!(files, ["900", "900"], "{kind:?} may open what who started it could have raised its limit to");
        // The hints may be lost, too.
        let _ = std::fs::remove_file(g.paths.network(g.network).join(kind.as_str()).join("pid"));
        assert_eq!(g.pid(kind), Some(pid));
        assert!(!gone(pid));
        assert!(g.stop(kind).unwrap());
        assert!(gone(pid));
    }
}

#[test]
fn a_death_is_told_once_and_a_stop_or_restart_is_none() {
    let g = Ground::new();
    let workers = g.workers();
    for kind in KINDS {
        let (start, stop) = g.steps(kind);
        g.apply(&workers, &start).unwrap();
        assert_eq!(workers.died(Duration::ZERO), vec![]);
        let pid = g.pid(kind).unwrap();
        signal(pid, nix::sys::signal::SIGKILL);
        assert_eq!(workers.died(LONG), vec![Death { network: g.network, kind, pid, unseen: false }]);
        assert_eq!(workers.died(Duration::ZERO), vec![]);
        assert_eq!(g.pid(kind), None);
        assert!(g.apply(&workers, &start).unwrap(), "it starts again over what the dead one left");
        let Fact::Workers(health) = workers.look(&Look::Workers(g.network)).unwrap().unwrap() else { panic!() };
        assert_eq!(health.iter().find(|h| h.kind == kind).unwrap().restarts, 1);
        let (before, WorkerStep::StartWorker(again)) = (g.pid(kind).unwrap(), start) else { panic!() };
        g.apply(&workers, &WorkerStep::RestartWorker(bmi::step::RestartWorker { start: again })).unwrap();
        assert!(gone(before) && g.pid(kind).is_some_and(|p| p != before), "another one runs");
        g.apply(&workers, &stop).unwrap();
        assert_eq!(workers.died(Duration::ZERO), vec![]);
    }
}

#[test]
fn who_waits_for_deaths_waits_for_a_worker_that_starts_meanwhile_too() {
    let g = Ground::new();
    let workers = g.workers();
    let waiting = {
        let workers = workers.clone();
        std::thread::spawn(move || workers.died(LONG))
    };
    g.apply(&workers, &g.steps(WorkerKind::Tgtd).0).unwrap();
    let pid = g.pid(WorkerKind::Tgtd).unwrap();
    signal(pid, nix::sys::signal::SIGKILL);
    let death = Death { network: g.network, kind: WorkerKind::Tgtd, pid, unseen: false };
    assert_eq!(waiting.join().unwrap(), vec![death]);
}

#[test]
fn a_worker_that_died_while_no_bmid_looked_is_told_at_the_first_look_and_one_that_lives_is_not() {
    let g = Ground::new();
    for kind in KINDS {
        g.start(kind).unwrap();
        let pid = g.pid(kind).unwrap();
        let next = g.workers();
        next.observe(&g.scope()).unwrap();
        assert!(next.died(Duration::ZERO).iter().all(|d| d.kind != kind), "it lives");
        signal(pid, nix::sys::signal::SIGKILL);
        crate::drivers::proving::until(|| gone(pid));
        let next = g.workers();
        next.observe(&g.scope()).unwrap();
        let told: Vec<Death> = next.died(Duration::ZERO).into_iter().filter(|d| d.kind == kind).collect();
        assert_eq!(told, vec![Death { network: g.network, kind, pid, unseen: true }]);
        g.stop(kind).unwrap();
        let next = g.workers();
        next.observe(&g.scope()).unwrap();
        assert!(next.died(Duration::ZERO).iter().all(|d| d.kind != kind), "it was told to end");
    }
}

fn health(g: &Ground, kind: WorkerKind) -> Health {
    let Fact::Workers(health) = g.workers().look(&Look::Workers(g.network)).unwrap().unwrap() else { panic!() };
    health.into_iter().find(|h| h.kind == kind).unwrap()
}

#[test]
fn a_stopped_worker_is_told_as_one_that_lives_and_does_not_answer_without_being_waited_for() {
    let g = Ground::new();
    for kind in KINDS {
        g.start(kind).unwrap();
        let pid = g.pid(kind).unwrap();
        signal(pid, nix::sys::signal::SIGSTOP);
        crate::drivers::proving::until(|| !health(&g, kind).running);
        let health = health(&g, kind);
        let problem = health.problem.clone().unwrap_or_default();
        assert!(health.pid == pid && problem.contains("stopped by a signal") && !health.held, "{health:?}");
        let networks = vec![(g.network, "v0".to_owned(), "10.9.0.1/24".to_owned())];
        let Fact::Findings(found) = g.workers().look(&Look::Doctor { networks }).unwrap().unwrap() else { panic!() };
        let told = found.iter().find(|f| f.check == format!("{} on v0", kind.as_str())).expect("a finding");
        assert!(told.found.contains(&pid.to_string()) && told.fix.contains(&format!("kill -9 {pid}")), "{told:?}");
        signal(pid, nix::sys::signal::SIGCONT);
        assert_eq!(g.pid(kind), Some(pid), "it is the same one, and answers");
        signal(pid, nix::sys::signal::SIGSTOP);
        assert!(g.stop(kind).unwrap() && gone(pid), "it can be ended as it is");
    }
}

#[test]
fn a_tgtd_that_lives_and_answers_nobody_is_told_after_it_was_asked() {
    let g = Ground::new();
    g.start(WorkerKind::Tgtd).unwrap();
    let pid = g.pid(WorkerKind::Tgtd).unwrap();
    let socket = g.paths.tgtd_socket(g.network);
    std::fs::remove_file(&socket).unwrap();
    let _nobody = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let health = health(&g, WorkerKind::Tgtd);
    assert!(!health.running && health.pid == pid && health.problem.unwrap().contains("does not answer"));
    assert!(!gone(pid));
}

#[test]
fn a_tgtd_that_hangs_does_not_count_as_running_and_is_not_restarted_unasked_but_can_be_stopped() {
    let g = Ground::new();
    g.start(WorkerKind::Tgtd).unwrap();
    let pid = g.pid(WorkerKind::Tgtd).unwrap();
    // It ignores SIGTERM, so that only a SIGKILL ends it; stopped, it does not answer.
    signal(pid, nix::sys::signal::SIGTERM);
    assert_eq!(g.pid(WorkerKind::Tgtd), Some(pid));
    signal(pid, nix::sys::signal::SIGSTOP);
    assert_eq!(g.pid(WorkerKind::Tgtd), None);
    let error = g.start(WorkerKind::Tgtd).unwrap_err();
    assert!(error.kind == Kind::Unavailable && error.why.contains(&pid.to_string()), "{error}");
    assert!(!gone(pid), "machines may still have their disks there");
    assert!(g.stop(WorkerKind::Tgtd).unwrap());
    assert!(gone(pid));
    assert!(g.start(WorkerKind::Tgtd).unwrap());
}

#[test]
fn a_process_that_has_the_number_of_a_dead_worker_is_left_alone() {
    let g = Ground::new();
    let mut other = crate::drivers::proving::Running(Command::new("sleep").arg("1000").spawn().unwrap());
    // Same program, another network's.
    let neighbour = Ground::new();
    neighbour.start(WorkerKind::Tgtd).unwrap();
    let its = neighbour.pid(WorkerKind::Tgtd).unwrap();
    for pid in [other.0.id(), its] {
        for kind in KINDS {
            let file = g.paths.network(g.network).join(kind.as_str()).join("pid");
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, pid.to_string()).unwrap();
            assert_eq!(g.pid(kind), None);
            g.stop(kind).unwrap();
        }
    }
    assert!(other.0.try_wait().unwrap().is_none());
    assert_eq!(neighbour.pid(WorkerKind::Tgtd), Some(its));
}

#[test]
fn a_tgtd_that_cannot_start_says_why() {
    let g = Ground::new();
    // Its socket cannot be made there.
    std::fs::create_dir_all(g.paths.tgtd_socket(g.network)).unwrap();
    let error = g.start(WorkerKind::Tgtd).unwrap_err();
    assert!(matches!(error.kind, Kind::Outside | Kind::Timeout), "{error}");
    assert!(error.why.len() > 30, "{error}");
    assert_eq!(g.pid(WorkerKind::Tgtd), None);
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    let g = Ground::new();
    let empty = tempfile::tempdir().unwrap();
    let workers = Workers::build(g.paths.clone(), Manager::Detached, Some(empty.path().to_owned()));
    for kind in KINDS {
        let error = g.apply(&workers, &g.steps(kind).0).unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        let program = program_of(kind);
        assert!(error.why.contains(program) && error.fix.contains(package(program)), "{error:?}");
    }
    let doctor = |w: &Workers| match w.look(&Look::Doctor { networks: vec![] }).unwrap().unwrap() {
        Fact::Findings(found) => found,
        other => panic!("{other:?}"),
    };
    let missing = doctor(&workers).into_iter().filter(|f| f.check.starts_with("program"));
    assert!(missing.clone().count() == 2 && missing.clone().all(|f| f.severity == Severity::Error), "{missing:?}");
    g.rack.engine(|| assert!(doctor(&g.workers()).iter().all(|f| f.severity == Severity::Ok)));
}

#[test]
fn a_port_that_another_program_holds_is_told_before_a_tgtd_lives_without_a_portal() {
    let g = Ground::new();
    let _other = g.rack.engine(|| std::net::TcpListener::bind("0.0.0.0:3260").unwrap());
    let error = g.start(WorkerKind::Tgtd).unwrap_err();
    assert!(error.kind == Kind::Conflict && error.fix.contains("tgt.service"), "{error:?}");
    assert_eq!(g.pid(WorkerKind::Tgtd), None);
    let look = Look::Doctor { networks: vec![] };
    let Fact::Findings(found) = g.rack.engine(|| g.workers().look(&look)).unwrap().unwrap() else { panic!() };
    assert!(found.iter().any(|f| f.check == "TCP port 3260" && f.severity == Severity::Error));
}

#[test]
fn units_are_used_only_by_a_bmid_that_is_a_system_service() {
    let (run, service) = (Path::new("/run/bmid"), "0::/system.slice/bmid.service\n");
    assert_eq!(Manager::choose(true, service, true, run), Manager::Systemd);
    assert_eq!(Manager::choose(false, service, true, run), Manager::Detached);
    assert_eq!(Manager::choose(true, service, false, run), Manager::Detached);
    assert_eq!(Manager::choose(true, "0::/user.slice/user-0.slice/session-1.scope\n", true, run), Manager::Detached);
    assert_eq!(Manager::choose(true, service, true, Path::new("/tmp/x")), Manager::Detached);
}

#[test]
fn the_units_are_sound_and_say_what_the_driver_writes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    let text =
        |kind: WorkerKind| std::fs::read_to_string(folder.join(format!("bmid-{}@.service", kind.as_str()))).unwrap();
    for kind in KINDS {
        let file = folder.join(format!("bmid-{}@.service", kind.as_str()));
        let out = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        // bmid is not installed here; tests/systemd has it. What a template is tried out as differs between releases of systemd.
        let (unit, missing) = (format!("bmid-{}@", kind.as_str()), "Command /usr/local/sbin/bmid is not executable");
        assert!(said.lines().all(|l| l.starts_with(&unit) && l.contains(missing)), "{said}");
        assert!(out.status.success() || !said.is_empty(), "{out:?}");
        let threshold = ["security", "--no-pager", "--offline=yes", "--threshold=26"];
        let out = Command::new("systemd-analyze").args(threshold).arg(&file).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        for tie in ["PartOf=", "BindsTo=", "Requires="] {
            assert!(!text(kind).contains(tie), "{tie} would end it with bmid");
        }
    }
    let network = id();
    let paths = Paths { state: "/var/lib/bmid".into(), run: systemd::RUN.into() };
    let start = StartWorker { network, kind: WorkerKind::Tgtd, slot: 258, port: 3261 };
    let environment = systemd::environment(&paths, &start);
    for line in environment.lines() {
        let name = line.split('=').next().unwrap();
        // What tgtd and the dynamic linker read themselves stands in no command line.
        let read_itself = matches!(name, "TGT_IPC_SOCKET" | "LD_PRELOAD");
        assert!(read_itself || text(WorkerKind::Tgtd).contains(&format!("${{{name}}}")), "{line}");
    }
    assert!(environment.contains("PORTAL=127.97.1.2:3261,nop_"));
    for kind in [WorkerKind::Dnsmasq, WorkerKind::Http] {
        let conf = conf(&paths, network, kind).display().to_string().replace(&network.to_string(), "%i");
        assert!(text(kind).contains(&conf));
    }
    let elsewhere = Paths { state: "/".into(), run: "/tmp/elsewhere".into() };
    assert_eq!(systemd::start(&elsewhere, &start).unwrap_err().kind, Kind::Invalid);
}
