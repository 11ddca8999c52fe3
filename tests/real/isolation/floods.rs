//! More than anybody needs: connections, logins, sessions, data. B works meanwhile and notices nothing; A's own tgtd stands it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::bench::{A, B, Bench, attack, attack_without_vlans, tgtd};
use super::iscsi::{command, dial, is_closed, log_in};
use super::names::logs_in;
use super::wire::at;
use crate::house::sh;

pub fn portal(bench: &Bench, node: usize) -> SocketAddr {
    bench.of(node, "portal").parse().unwrap()
}

/// Does something to A while a machine of B writes and reads its disk. That must not fail once, by the session it has and by one
/// that it makes afterwards, at the tgtd it had.
pub fn while_b_works<T>(bench: &Bench, hostile: impl FnOnce() -> T) -> T {
    let (stop, before) = (AtomicBool::new(false), tgtd(bench, B));
    let mut session = logs_in(bench, "b", B, B).unwrap();
    let work = || {
        let mut rounds = 0u64;
        loop {
            let ends = stop.load(Ordering::Relaxed);
            let block = [rounds as u8; 512];
            session.write(8 + rounds % 64, &block).unwrap();
            assert_eq!(session.read(8 + rounds % 64, 1).unwrap(), block);
            rounds += 1;
            if ends {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let out = std::thread::scope(|scope| {
        let b = scope.spawn(work);
        let stopped = StopAtEnd(&stop);
        let out = hostile();
        drop(stopped);
        b.join().expect("B's machine works on");
        out
    });
    logs_in(bench, "b", B, B).expect("B's machine logs in again");
    assert_eq!(tgtd(bench, B), before, "B's tgtd is the one it was");
    out
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn stays_up(bench: &Bench, before: u32) {
    logs_in(bench, "a2", A, A).expect("another machine of A logs in");
    assert_eq!(tgtd(bench, A), before, "A's tgtd is the one it was");
}

#[test]
fn connections_that_never_log_in_are_few_a_machine_and_cost_another_network_nothing() {
    let name = "isolation::floods::connections_that_never_log_in_are_few_a_machine_and_cost_another_network_nothing";
    attack(name, |bench| {
        let before = tgtd(bench, A);
        while_b_works(bench, || {
            let held: Vec<TcpStream> = at("a", || (0..400).map(|_| dial(portal(bench, A), None).unwrap()).collect());
            // The last one was refused, and so everything before it was judged.
            assert!(is_closed(held.last().unwrap(), Duration::from_secs(30)));
            let open = held.iter().filter(|s| !is_closed(s, Duration::from_millis(1))).count();
            assert_eq!(open, 64, "connections that one machine keeps open");
            let files = std::fs::read_dir(format!("/proc/{before}/fd")).unwrap().count();
            assert!(files < 200, "{files} files of tgtd");
            stays_up(bench, before);
        });
        bench.until("doctor", |f| {
            f["check"] == "door on bmi-v100" && f["found"].as_str().is_some_and(|t| t.contains("too many"))
        });
        // What has ended counts no more.
        logs_in(bench, "a", A, A).expect("the machine itself, once it has let go");
    });
}

#[test]
fn a_flood_of_logins_and_refusals_fills_no_log_and_ends_no_tgtd() {
    attack("isolation::floods::a_flood_of_logins_and_refusals_fills_no_log_and_ends_no_tgtd", |bench| {
        let before = tgtd(bench, A);
        let log = |network: usize| {
            bench.run_folder().join("net").join(&bench.networks[network]).join("tgtd/log").metadata().unwrap().len()
        };
        let quiet = log(B);
        while_b_works(bench, || {
            at("a", || {
                for n in 0..600 {
                    let (iqn, initiator) = match n % 3 {
                        0 => (bench.of(A, "iqn"), bench.of(B, "initiator")),
                        1 => (bench.of(B, "iqn"), bench.of(B, "initiator")),
                        _ => ("iqn.2026-11.internal.bmi:none", "iqn.2026-11.example:none"),
                    };
                    let mut stream = dial(portal(bench, A), None).unwrap();
                    let status = log_in(&mut stream, iqn, initiator, n);
                    assert!(!matches!(status, Ok(0)), "let in as {initiator} to {iqn}");
                    drop(dial(portal(bench, B), None));
                }
            });
        });
        stays_up(bench, before);
        assert_eq!(log(B), quiet, "B's tgtd wrote not a line of it");
        let all = sh(&format!("du -sk {} | cut -f1", bench.run_folder().display()));
        assert!(all.trim().parse::<u64>().unwrap() < 32 << 10, "{all} KiB of files");
    });
}

#[test]
fn four_thousand_sessions_from_as_many_addresses_as_it_takes_stall_nobody() {
    let name = "isolation::floods::four_thousand_sessions_from_as_many_addresses_as_it_takes_stall_nobody";
    attack_without_vlans(name, |bench| {
        let before = tgtd(bench, A);
        let addresses: Vec<Ipv4Addr> = (160..230).map(|n| Ipv4Addr::new(10, 100, 0, n)).collect();
        for address in &addresses {
            sh(&format!("ip -n a addr add {address}/24 dev card"));
        }
        while_b_works(bench, || {
            let mut held = Vec::new();
            at("a", || {
                for (n, address) in addresses.iter().cycle().take(4_000).enumerate() {
                    let mut stream = dial(portal(bench, A), Some(*address)).unwrap();
                    let status = log_in(&mut stream, bench.of(A, "iqn"), bench.of(A, "initiator"), n as u32).unwrap();
                    assert_eq!(status, 0, "session {n}");
                    held.push(stream);
                }
            });
            stays_up(bench, before);
            let mut other = logs_in(bench, "a2", A, A).unwrap();
            other.write(8, &[7; 512]).unwrap();
            assert_eq!(other.read(8, 1).unwrap(), [7; 512], "another machine of A works");
        });
        for address in &addresses {
            sh(&format!("ip -n a addr del {address}/24 dev card"));
        }
    });
}

#[test]
fn data_that_is_asked_for_by_the_gigabyte_costs_the_host_no_memory() {
    attack("isolation::floods::data_that_is_asked_for_by_the_gigabyte_costs_the_host_no_memory", |bench| {
        const EACH: u32 = 60 << 20;
        let before = tgtd(bench, A);
        while_b_works(bench, || {
            let mut held = Vec::new();
            at("a", || {
                for n in 0..40 {
                    let mut stream = dial(portal(bench, A), None).unwrap();
                    let status = log_in(&mut stream, bench.of(A, "iqn"), bench.of(A, "initiator"), 9_000 + n).unwrap();
                    assert_eq!(status, 0, "session {n}");
                    stream.write_all(&command(0x81, 0, 1, &[])).unwrap();
                    stream.read_exact(&mut [0; 48]).unwrap();
                    let mut read = vec![0x88];
                    read.resize(10, 0);
                    read.extend((EACH / 512).to_be_bytes());
                    // One that it may have, and one for as much as there can be.
                    stream.write_all(&command(0xc1, EACH, 2, &read)).unwrap();
                    if n % 2 == 1 {
                        let _ = stream.write_all(&command(0xc1, u32::MAX, 3, &read));
                    }
                    held.push(stream);
                }
            });
            stays_up(bench, before);
        });
        let status = std::fs::read_to_string(format!("/proc/{before}/status")).unwrap();
        let most = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap().trim();
        assert!(most.parse::<u64>().unwrap() < 400 << 10, "tgtd had {most} KiB");
        bench.until("doctor", |f| {
            f["check"] == "door on bmi-v100" && f["found"].as_str().is_some_and(|t| t.contains("more memory"))
        });
    });
}
