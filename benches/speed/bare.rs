//! What `network create` needs, done bare: the addresses by netlink, the boot files copied, the same three workers started with what bmid
//! starts them with, until each serves, and tgtd's portal opened. It plans, checks and records nothing, and could take nothing back.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::house::{guard, sh};
use super::networks::address;
use super::target;

const RUN: &str = "/run/bmid/net";

/// A network beside one of bmid's, whose files it copies.
pub(crate) struct Bare {
    from: PathBuf,
    folder: PathBuf,
    /// Words of bmid's configurations, and what stands there instead.
    words: [(String, String); 4],
    to: usize,
    workers: Vec<Child>,
}

impl Bare {
    /// On the interface of number `to`, like bmid's network of number `like`.
    pub(crate) fn new(like: usize, to: usize) -> Bare {
        let conf = sh(&format!("grep -l '^interface=l{like}$' {RUN}/*/boot/dnsmasq.conf"));
        let from = Path::new(conf.trim()).ancestors().nth(2).expect("a network's folder").to_owned();
        let text = std::fs::read_to_string(conf.trim()).expect("a configuration");
        let hears = text.lines().find_map(|l| l.strip_prefix("# hears ")).expect("two addresses");
        let v6: Ipv6Addr = hears.split(' ').nth(1).and_then(|a| a.parse().ok()).expect("an IPv6 address");
        let folder = PathBuf::from(format!("/run/bare{to}"));
        let prefix = |n| address(n).to_string().trim_end_matches('1').to_owned();
        let subnet = |a: Ipv6Addr| Ipv6Addr::from(u128::from(a) & !0xffff).to_string();
        let words = [
            (from.display().to_string(), folder.display().to_string()),
            (format!("interface=l{like}"), format!("interface=l{to}")),
            (prefix(like), prefix(to)),
            (subnet(v6), subnet(Bare::private(to))),
        ];
        Bare { from, folder, words, to, workers: Vec::new() }
    }

    fn private(to: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfd98, 0, 0, u16::try_from(to).expect("few"), 0, 0, 0, 1)
    }

    /// How long it takes; the workers side by side, or one after another.
    pub(crate) fn made(mut self, together: bool) -> Duration {
        let begun = Instant::now();
        self.addresses();
        self.lay_out();
        let ready: [&dyn Fn(&Bare) -> bool; 3] =
            [&|b| target::count(&b.socket()).is_some(), &|b| b.wrote("dnsmasq/pid"), &|b| b.wrote("http/pid")];
        let commands = [self.tgtd(), self.dnsmasq(), self.http()];
        for (mut command, ready) in commands.into_iter().zip(ready) {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            self.workers.push(command.spawn().expect("a worker starts"));
            if !together {
                self.until(ready);
            }
        }
        ready.into_iter().for_each(|ready| self.until(ready));
        target::open(&self.socket(), &format!("{}:3260", address(self.to)));
        begun.elapsed()
    }

    fn until(&self, ready: &dyn Fn(&Bare) -> bool) {
        while !ready(self) {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn wrote(&self, file: &str) -> bool {
        std::fs::read(self.folder.join(file)).is_ok_and(|t| !t.is_empty())
    }

    fn addresses(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
            tokio::spawn(connection);
            let index = nix::net::if_::if_nametoindex(format!("l{}", self.to).as_str()).expect("an interface");
            for (address, prefix) in [(IpAddr::V4(address(self.to)), 24), (Bare::private(self.to).into(), 64)] {
                handle.address().add(index, address, prefix).execute().await.expect("added");
            }
        });
    }

    /// All but what the workers themselves have written.
    fn lay_out(&self) {
        for folder in ["tgtd", "dnsmasq", "http", "boot/hosts", "boot/tftp/mac"] {
            std::fs::create_dir_all(self.folder.join(folder)).expect("a folder");
        }
        for file in ["tftp/boot.ipxe", "tftp/autoexec.ipxe", "tftp/undionly.kpxe", "tftp/snponly.efi"] {
            // A loader may be missing on this host.
            let _ = std::fs::copy(self.from.join("boot").join(file), self.folder.join("boot").join(file));
        }
        for file in ["boot/dnsmasq.conf", "boot/http.conf"] {
            let mut text = std::fs::read_to_string(self.from.join(file)).expect("a configuration");
            for (word, instead) in &self.words {
                text = text.replace(word, instead);
            }
            std::fs::write(self.folder.join(file), text).expect("written");
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("tgtd/sock.0")
    }

    fn tgtd(&self) -> Command {
        let mut command = Command::new("tgtd");
        command.args(["-f", "-C", "0", "-t", "2", "--iscsi"]);
        command.arg(format!("portal=127.99.{}.1:3260,nop_interval=20,nop_count=3", self.to % 250));
        command.env("TGT_IPC_SOCKET", self.folder.join("tgtd/sock")).env("LD_PRELOAD", guard());
        command
    }

    fn dnsmasq(&self) -> Command {
        let mut command = Command::new("dnsmasq");
        command.arg("-k").arg("-C").arg(self.folder.join("boot/dnsmasq.conf"));
        let hears = format!("{} {}", address(self.to), Bare::private(self.to));
        command.env("LD_PRELOAD", guard()).env("BMID_HEARS", hears);
        command
    }

    fn http(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bmid"));
        command.arg("--boot-files").arg(self.folder.join("boot/http.conf"));
        command
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // They end with the namespace anyway.
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}
