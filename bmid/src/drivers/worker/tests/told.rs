//! Workers that are told what to serve by a file: dnsmasq and the server of boot files.

use super::*;

#[test]
fn a_dnsmasq_without_its_address_says_so() {
    let g = Ground::new();
    g.configure("10.9.0.77");
    let error = g.start(WorkerKind::Dnsmasq).unwrap_err();
    assert!(error.kind == Kind::Outside && error.why.contains("10.9.0.77"), "{error}");
    assert_eq!(g.pid(WorkerKind::Dnsmasq), None);
}

#[test]
fn what_is_told_by_a_file_starts_anew_when_that_has_changed() {
    let g = Ground::new();
    let kinds = [WorkerKind::Dnsmasq, WorkerKind::Http];
    let before = kinds.map(|kind| {
        assert!(g.start(kind).unwrap());
        assert!(!g.start(kind).unwrap());
        g.pid(kind).unwrap()
    });
    g.rack.engine(|| sh("ip addr add 10.9.0.2/24 dev v0"));
    g.configure("10.9.0.2");
    for (kind, first) in kinds.into_iter().zip(before) {
        assert!(g.start(kind).unwrap());
        assert!(g.pid(kind).unwrap() != first && gone(first));
    }
    std::fs::remove_dir_all(g.paths.boot(g.network)).unwrap();
    for kind in kinds {
        g.stop(kind).unwrap();
        assert_eq!(g.start(kind).unwrap_err().kind, Kind::Conflict, "nothing is laid out");
    }
}

#[test]
fn boot_files_are_served_by_http_and_a_port_that_is_taken_is_told() {
    let g = Ground::new();
    let root = g.paths.boot(g.network).join("tftp");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("boot.ipxe"), "#!ipxe\n").unwrap();
    let taken = g.rack.engine(|| std::net::TcpListener::bind("0.0.0.0:8067").unwrap());
    let error = g.start(WorkerKind::Http).unwrap_err();
    assert!(error.kind == Kind::Outside && error.why.contains("10.9.0.1:8067"), "{error}");
    drop(taken);
    g.start(WorkerKind::Http).unwrap();
    let got = g.rack.machine(|| {
        sh("ip addr add 10.9.0.200/24 dev v1");
        let mut stream = std::net::TcpStream::connect("10.9.0.1:8067").unwrap();
        std::io::Write::write_all(&mut stream, b"GET /boot.ipxe HTTP/1.0\r\n\r\n").unwrap();
        std::io::read_to_string(stream).unwrap()
    });
    assert!(got.starts_with("HTTP/1.0 200") && got.ends_with("#!ipxe\n"), "{got}");
    let log = std::fs::read_to_string(own(&g.paths, g.network, WorkerKind::Http).join("log")).unwrap();
    assert!(log.contains("10.9.0.200 asked for boot.ipxe: 200"), "{log}");
}
