//! Workers that hang at their start: programs of a test's own in their place, and ports that are taken.

use super::*;

/// A program of a test's own in a worker's place.
fn programs(worker: WorkerKind, script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    program(&folder.path().join(program_of(worker)), &format!("#!/bin/sh\n{script}\n"));
    folder
}

#[test]
fn a_program_that_never_comes_so_far_as_to_answer_is_ended_and_its_last_words_are_told() {
    std::thread::scope(|all| {
        for kind in KINDS {
            all.spawn(move || {
                let g = Ground::new();
                let mark = g.paths.run.join("pid");
                std::fs::create_dir_all(&g.paths.run).unwrap();
                let script = format!("echo $$ >{}; echo waiting for Godot; exec sleep 1000", mark.display());
                let folder = programs(kind, &script);
                let workers = Workers::build(g.paths.clone(), Manager::Detached, Some(folder.path().to_owned()));
                let error = g.apply(&workers, &g.steps(kind).0).unwrap_err();
                assert!(error.kind == Kind::Timeout && error.why.contains("waiting for Godot"), "{error}");
                let pid = std::fs::read_to_string(mark).unwrap().trim().parse().unwrap();
                assert!(gone(pid), "nothing of it stays");
                assert!(g.start(kind).unwrap(), "the real one starts in its place");
            });
        }
    });
}

#[test]
fn a_tgtd_whose_socket_somebody_else_has_is_a_time_out_and_is_ended() {
    let g = Ground::new();
    // It opens the socket and never answers on it.
    let script = "exec python3 -c 'import os,socket,time; s=socket.socket(socket.AF_UNIX); \
                  s.bind(os.environ[\"TGT_IPC_SOCKET\"]+\".0\"); s.listen(); time.sleep(1000)'";
    let folder = programs(WorkerKind::Tgtd, script);
    let workers = Workers::build(g.paths.clone(), Manager::Detached, Some(folder.path().to_owned()));
    let error = g.apply(&workers, &g.steps(WorkerKind::Tgtd).0).unwrap_err();
    assert_eq!(error.kind, Kind::Timeout, "{error}");
    assert_eq!(workers.observe(&g.scope()).unwrap(), vec![]);
    g.stop(WorkerKind::Tgtd).unwrap();
    assert!(g.start(WorkerKind::Tgtd).unwrap());
}

#[test]
fn a_dnsmasq_whose_port_another_program_holds_says_so() {
    let g = Ground::new();
    let _other = g.rack.engine(|| std::net::UdpSocket::bind("0.0.0.0:67").unwrap());
    let error = g.start(WorkerKind::Dnsmasq).unwrap_err();
    assert!(error.kind == Kind::Outside && error.why.contains("in use"), "{error}");
    assert_eq!(g.pid(WorkerKind::Dnsmasq), None);
}

#[test]
fn machines_that_are_logged_in_are_asked_whether_they_are_still_there() {
    let g = Ground::new();
    g.start(WorkerKind::Tgtd).unwrap();
    let line = std::fs::read(format!("/proc/{}/cmdline", g.pid(WorkerKind::Tgtd).unwrap())).unwrap();
    assert!(String::from_utf8_lossy(&line).contains(detached::ASKS_MACHINES));
}
