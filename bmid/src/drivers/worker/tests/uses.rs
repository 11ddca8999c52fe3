//! What a tgtd uses and where that ends, of a real one.

use super::*;

#[test]
fn what_a_tgtd_uses_is_told_with_its_limits_and_what_another_disk_would_cost() {
    let g = Ground::new();
    assert_eq!(g.workers().look(&Look::Room(g.network)).unwrap().unwrap(), Fact::Room(None), "none runs");
    g.start(WorkerKind::Tgtd).unwrap();
    let Fact::Room(Some(room)) = g.workers().look(&Look::Room(g.network)).unwrap().unwrap() else { panic!() };
    let pid = g.pid(WorkerKind::Tgtd).unwrap();
    let (tasks, open) = ["task", "fd"].map(|f| std::fs::read_dir(format!("/proc/{pid}/{f}")).unwrap().count()).into();
    assert_eq!(room.used.threads, tasks as u64);
    assert!(room.used.files.abs_diff(open as u64) <= 2 && room.used.memory > 1 << 20, "{room:?}");
    let each = detached::IO_THREADS.parse().unwrap();
    assert_eq!((room.file.threads, room.pool.threads), (each, each), "as it was started");
    for name in ["RLIMIT_NOFILE", "kernel.pid_max", "kernel.threads-max", "vm.max_map_count", "memory"] {
        let limit = room.limits.iter().find(|l| l.name.contains(name)).unwrap_or_else(|| panic!("{name}: {room:?}"));
        assert!(limit.used > 0 && limit.most > limit.used && !limit.raise.is_empty(), "{limit:?}");
    }
    assert!(health(&g, WorkerKind::Tgtd).room.is_some() && health(&g, WorkerKind::Dnsmasq).room.is_none());
}

#[test]
fn the_limits_of_all_cgroups_above_a_tgtd_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("a/b");
    std::fs::create_dir_all(&inner).unwrap();
    for (folder, most, used) in [("a", "4000", "3300"), ("a/b", "max", "12")] {
        std::fs::write(dir.path().join(folder).join("pids.max"), most).unwrap();
        std::fs::write(dir.path().join(folder).join("pids.current"), used).unwrap();
    }
    let told: Vec<_> = room::above(dir.path(), "/a/b").into_iter().map(|l| (l.name, l.used, l.most)).collect();
    assert_eq!(told, [("pids.max of cgroup /a".to_owned(), 3300, 4000)]);
}

#[test]
fn networks_that_the_kernel_has_no_room_for_are_told_before_and_a_dnsmasq_that_found_none_says_what_to_raise() {
    assert!(room::tight(60, 128).is_none());
    let told = room::tight(103, 128).unwrap();
    assert!(
        told.severity == Severity::Warning && told.found.contains("128") && told.fix.contains("sysctl"),
        "{told:?}"
    );
    assert!(room::advice("dnsmasq: failed to create inotify: Too many open files").contains("max_user_instances"));
    assert!(room::advice("dnsmasq: unknown interface eth7").contains("interface"));
}

#[test]
fn a_log_that_machines_can_make_long_is_emptied_whenever_its_worker_is_looked_at() {
    let g = Ground::new();
    for kind in [WorkerKind::Tgtd, WorkerKind::Dnsmasq] {
        g.start(kind).unwrap();
        let log = g.paths.network(g.network).join(kind.as_str()).join("log");
        let length = || log.metadata().unwrap().len();
        std::fs::OpenOptions::new().append(true).open(&log).unwrap().set_len(1 << 20).unwrap();
        // It may write another line of its start.
        assert!(health(&g, kind).running && length() >= 1 << 20, "a log of an ordinary length is kept");
        std::fs::OpenOptions::new().append(true).open(&log).unwrap().set_len(8 << 20).unwrap();
        assert!(health(&g, kind).running && length() < 1 << 20, "{} bytes", length());
    }
}
