//! What clients cost the real daemon.

use super::client::Client;
use super::house::House;

/// Memory of the process that is its own, in KiB.
fn own_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).expect("the kernel says");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

#[test]
fn a_thousand_idle_connections_cost_little_and_leave_nothing() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("asked");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard).expect("set");
    let house = House::running();
    super::house::eventually("it has settled", || (house.call("datastore.ls").len() == 1).then_some(()));
    let before = own_memory(house.pid());
    let idle: Vec<Client> = (0..1000).map(|_| house.client()).collect();
    assert!(descriptors(house.pid()) >= 1000);
    let cost = own_memory(house.pid()).saturating_sub(before);
    println!("1,000 idle connections cost {cost} KiB, {before} KiB before");
    assert!(cost < 16 << 10, "{cost} KiB");
    assert_eq!(house.call("status").len(), 1);
    drop(idle);
    super::house::eventually("their descriptors are closed", || (descriptors(house.pid()) < 100).then_some(()));
}

#[test]
fn many_clients_with_half_a_large_frame_each_do_not_fill_the_memory() {
    let house = House::running();
    house.call("status");
    let before = own_memory(house.pid());
    let mut clients: Vec<(Client, usize)> = (0..200)
        .map(|_| {
            let mut client = house.client();
            client.bytes(&(1u32 << 20).to_be_bytes());
            client.stream.set_nonblocking(true).expect("set");
            (client, 900 << 10)
        })
        .collect();
    // Until the daemon takes no more of them.
    let mut quiet = 0;
    while quiet < 20 {
        let mut moved = 0;
        for (client, left) in &mut clients {
            let n = std::io::Write::write(&mut client.stream, &vec![0; *left]).unwrap_or(0);
            *left -= n;
            moved += n;
        }
        quiet = if moved == 0 { quiet + 1 } else { 0 };
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let stuck = clients.iter().filter(|(_, left)| *left > 0).count();
    assert!(stuck > 50, "only {stuck} clients are held up");
    let cost = own_memory(house.pid()).saturating_sub(before);
    println!("half frames cost {cost} KiB");
    assert!(cost < 100 << 10, "{cost} KiB for half frames");
    assert_eq!(house.call("status").len(), 1);
}

fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").count()
}

#[test]
fn two_hundred_datastores_that_came_and_went_leave_no_thread() {
    let house = House::running();
    super::house::eventually("it has settled", || (house.call("datastore.ls").len() == 1).then_some(()));
    let before = threads(house.pid());
    let mut client = house.client();
    for n in 0..200u64 {
        let create = format!(r#"{{"name":"d{n}","kind":"file","path":"/srv/bmid-test/d{n}"}}"#);
        for (id, method, params) in
            [(2 * n + 1, "datastore.create", create), (2 * n + 2, "datastore.rm", format!(r#"{{"datastore":"d{n}"}}"#))]
        {
            client.send(&super::client::call(id, method, &params));
            assert_eq!(client.called(id).1, None, "{method} {n}");
        }
    }
    assert!(threads(house.pid()) < before + 20, "{} threads, {before} before", threads(house.pid()));
    super::house::eventually("its threads have ended", || (threads(house.pid()) <= before).then_some(()));
}
