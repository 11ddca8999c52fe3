//! Boot scripts, which hold secrets: who gets which.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};

use super::bench::{A, B, MACS, attack, on, prefix};
use super::iscsi::PATIENCE;
use super::wire::{Card, Question, ask_for, at, mac};

const ENGINE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 100, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 200, 0, 1))];

/// A machine asks a server for a file by HTTP: what is told, with its head; nothing if the connection is not answered.
fn by_http(machine: &str, server: IpAddr, path: &str) -> String {
    at(machine, || {
        let Ok(mut stream) = TcpStream::connect_timeout(&(server, 8067).into(), PATIENCE) else { return String::new() };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut told = Vec::new();
        let _ = stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
        let _ = stream.read_to_end(&mut told);
        String::from_utf8_lossy(&told).into_owned()
    })
}

fn script(mac: &str) -> String {
    format!("mac/{}.ipxe", mac.replace(':', "-"))
}

/// A machine asks its own engine and is answered.
fn gets(machine: &str, network: usize, file: &str) -> String {
    let file = at(machine, || ask_for(ENGINE[network], file).file()).unwrap_or_else(|e| panic!("{file}: {e}"));
    String::from_utf8(file).unwrap()
}

#[test]
fn a_boot_script_of_another_network_is_not_to_be_had() {
    attack("isolation::scripts::a_boot_script_of_another_network_is_not_to_be_had", |bench| {
        let wanted = script(MACS[B]);
        assert!(gets("b", B, &wanted).contains(bench.of(B, "iqn")), "B's own machine has it");
        let told = at("a", || ask_for(ENGINE[A], &wanted).file()).unwrap_err();
        assert!(told.contains("not found"), "by B's MAC, of its own engine's address: {told}");
        let url = format!("/{wanted}");
        assert!(by_http("b", ENGINE[B], &url).contains(bench.of(B, "iqn")), "and by HTTP");
        assert!(by_http("a", ENGINE[A], &url).contains(" 404 "), "not by HTTP either");
        for path in ["/../../../", "/..%2f..%2f..%2f", "//../../../", "/mac/..%2f../../../../"] {
            let path = format!("{path}{}/boot/tftp/{wanted}", bench.networks[B]);
            assert!(!by_http("a", ENGINE[A], &path).contains("ipxe\n"), "{path}");
        }
        let told = by_http("a", ENGINE[B], &url);
        assert_eq!(told, "", "A is answered by B's server");
        // By B's address, through a route of its own: IPv4, and the private IPv6.
        let six: IpAddr = format!("{}1", prefix(&bench.networks[B])).parse().unwrap();
        for server in [ENGINE[B], six] {
            at("a", || {
                let asked = ask_for(server, &wanted);
                gets("b", B, &wanted);
                let leaked = asked.leaked().map(|f| String::from_utf8_lossy(&f).into_owned());
                assert!(leaked.is_none(), "A has B's script from {server}: {leaked:?}");
            });
        }
    });
}

#[test]
fn a_file_beside_the_boot_files_is_not_to_be_had_by_any_path() {
    attack("isolation::scripts::a_file_beside_the_boot_files_is_not_to_be_had_by_any_path", |bench| {
        let net = bench.run_folder().join("net");
        let (own, other) = (net.join(&bench.networks[A]), net.join(&bench.networks[B]));
        let wanted = other.join("boot/tftp").join(script(MACS[B]));
        assert!(wanted.is_file() && own.join("boot/dnsmasq.conf").is_file(), "there is something to be had");
        let b = format!("../../../{}/boot/tftp/{}", bench.networks[B], script(MACS[B]));
        let mut tries = vec![
            wanted.display().to_string(),
            own.join("boot/dnsmasq.conf").display().to_string(),
            b.clone(),
            format!("mac/../{b}"),
            format!("/{b}"),
            format!("./{b}"),
            format!("mac//..//{b}"),
            b.replace('/', "\\"),
            b.replace('/', "\\/"),
            b.replace("..", "%2e%2e"),
            b.replace("../", "....//"),
            "../dnsmasq.conf".to_owned(),
            "mac/../../dnsmasq.conf".to_owned(),
            "..".to_owned(),
            ".".to_owned(),
            "mac".to_owned(),
            "mac/".to_owned(),
            String::new(),
            "/etc/passwd".to_owned(),
            "/proc/self/environ".to_owned(),
        ];
        tries.push(format!("{}/../../../../../../../../../etc/passwd", "x".repeat(300)));
        for path in tries {
            let asked = at("a", || {
                let asked = ask_for(ENGINE[A], &path);
                gets("a", A, "boot.ipxe");
                asked.leaked()
            });
            assert!(asked.is_none(), "{path:?} gives {:?}", asked.map(|a| String::from_utf8_lossy(&a).into_owned()));
        }
    });
}

/// A field of the script: `set password X`.
fn set<'a>(script: &'a str, field: &str) -> Option<&'a str> {
    script.lines().find_map(|l| l.strip_prefix(&format!("set {field} ")))
}

#[test]
fn a_machine_that_takes_anothers_mac_gets_its_script_and_secret_unless_it_is_in_no_script() {
    let name =
        "isolation::scripts::a_machine_that_takes_anothers_mac_gets_its_script_and_secret_unless_it_is_in_no_script";
    attack(name, |bench| {
        let (told, firmware) = ("52:54:00:00:00:31", "52:54:00:00:00:32");
        let lines = [
            format!("node provision told --image golden --mac {told} --network t200 --chap"),
            format!("node provision firmware --image golden --mac {firmware} --network t200 --chap=out-of-band"),
        ];
        let nodes = lines.map(|line| bench.run(&line).one().clone());
        let text = |n: usize, field: &str| nodes[n][field].as_str().unwrap().to_owned();
        // `b2` is another machine of that network, whose card has another MAC: it only says so.
        let offers = [told, firmware].map(|m| {
            at("b2", || {
                let card = Card::at(68);
                let xid = card.ask(&Question::discover(mac(m)));
                card.offer(xid).unwrap().address.to_string()
            })
        });
        assert_eq!(offers, [text(0, "address"), text(1, "address")], "it is given their addresses");
        let scripts = [told, firmware].map(|m| gets("b2", B, &script(m)));
        let login = |n: usize, credentials: &str| {
            let url = format!("iscsi://{credentials}{}/{}/1", text(n, "portal"), text(n, "iqn"));
            on("b2", &format!("timeout 30 iscsi-inq -i {} {url}", text(n, "initiator")))
        };
        let (user, secret) = (set(&scripts[0], "username").unwrap(), set(&scripts[0], "password").unwrap());
        let (inside, said) = login(0, &format!("{user}%{secret}@"));
        assert!(inside, "the MAC is no identity: with it comes the secret, and with that the disk: {said}");

        let secret = text(1, "chap_secret");
        assert!(set(&scripts[1], "password").is_none() && !scripts[1].contains(&secret), "the secret is in no script");
        assert!(!login(1, "").0, "without it");
        assert!(!login(1, &format!("{}%{}@", text(1, "chap_user"), "a".repeat(secret.len()))).0, "with a guess");
        let (inside, said) = login(1, &format!("{}%{secret}@", text(1, "chap_user")));
        assert!(inside, "whoever was told it is let in: {said}");
        bench.run("node deprovision told");
        bench.run("node deprovision firmware");
    });
}
