//! What a network's HTTP server is told: where it listens, whom it serves, from which folder. And which of that folder's files
//! it hands out: the same that TFTP does. Pure. A path from the network never becomes the name of a file: it either is one of
//! the few names there are, or nothing.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bmi::model::Mac;
use bmi::step::Serve;
use bmi::step::boot::HTTP_PORT as PORT;
use bmi::step::network::{ipv6_address, ipv6_prefix};

use super::conf::LOADERS;
use crate::drivers::Paths;

/// The file of the configuration, beside dnsmasq's.
pub(crate) const FILE: &str = "http.conf";

/// The configuration, without the lines that mark it.
pub(super) fn text(s: &Serve, paths: &Paths) -> String {
    let (own, prefix) = (paths.network(s.network).join("http"), ipv6_prefix(s.network));
    let mut c = String::new();
    let (v4, v6) = (s.address.address, ipv6_address(s.network));
    let _ = writeln!(c, "listen={}\nlisten={}", SocketAddr::from((v4, PORT)), SocketAddr::from((v6, PORT)));
    let _ = writeln!(c, "from={}/{}\nfrom={prefix}/64", s.address.network(), s.address.prefix);
    let _ = writeln!(c, "root={}", paths.boot(s.network).join("tftp").display());
    let _ = writeln!(c, "pid={}", own.join("pid").display());
    c
}

/// A configuration, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Whose machines it serves.
    pub from: Vec<Subnet>,
    /// The folder with the files.
    pub root: PathBuf,
    /// Where it writes its process id once it listens.
    pub pid: PathBuf,
}

impl Conf {
    /// Reads one; the error is for people.
    pub fn read(text: &str) -> Result<Conf, String> {
        let mut conf = Conf::default();
        for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
            let (key, value) = line.split_once('=').ok_or_else(|| format!("{line:?} is not KEY=VALUE"))?;
            let bad = || format!("{value:?} is no value of {key}");
            match key {
                "listen" => conf.listen.push(value.parse().map_err(|_| bad())?),
                "from" => conf.from.push(Subnet::read(value).ok_or_else(bad)?),
                "root" => conf.root = PathBuf::from(value),
                "pid" => conf.pid = PathBuf::from(value),
                _ => return Err(format!("there is no key {key:?}")),
            }
        }
        if conf.listen.is_empty() || !conf.root.is_absolute() || !conf.pid.is_absolute() {
            return Err("it lacks listen, root or pid".to_owned());
        }
        Ok(conf)
    }

    /// Whether a machine may ask. A network's own only: Linux answers for an address of one interface on all others, and
    /// whoever came in by another one has another network's address, or gets no answer.
    #[must_use]
    pub fn lets_in(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.from.iter().any(|s| s.contains(peer))
    }
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Subnet {
    fn read(text: &str) -> Option<Subnet> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        // A prefix of 0 would let everybody in.
        (1..=most).contains(&prefix).then_some(Subnet { address, prefix })
    }

    fn contains(self, other: IpAddr) -> bool {
        let bits = |a: Ipv4Addr| u128::from(u32::from(a)) << 96;
        let (own, other) = match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (bits(a), bits(b)),
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b)),
            _ => return false,
        };
        (own ^ other) >> (128 - u32::from(self.prefix)) == 0
    }
}

/// One of the files that are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The first script, or what an iPXE looks for by itself.
    Script(&'static str),
    /// A boot loader.
    Loader(&'static str),
    /// A machine's script.
    Machine(Mac),
}

impl Name {
    /// What a request's path means; none: there is no such file. As it was sent: nothing is decoded or made shorter.
    #[must_use]
    pub fn of(path: &str) -> Option<Name> {
        let path = path.strip_prefix('/')?;
        if let Some(name) = ["boot.ipxe", "autoexec.ipxe"].into_iter().find(|n| *n == path) {
            return Some(Name::Script(name));
        }
        if let Some(name) = LOADERS.into_iter().find(|n| *n == path) {
            return Some(Name::Loader(name));
        }
        let card = path.strip_prefix("mac/")?.strip_suffix(".ipxe")?;
        // One spelling only: the one under which the file stands.
        card.parse::<Mac>().ok().filter(|mac| mac.hyphens() == card).map(Name::Machine)
    }

    /// Where it stands.
    #[must_use]
    pub fn file(self, root: &Path) -> PathBuf {
        match self {
            Name::Script(name) | Name::Loader(name) => root.join(name),
            Name::Machine(mac) => root.join("mac").join(format!("{}.ipxe", mac.hyphens())),
        }
    }

    /// What firmware goes by to tell a program from a script.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Name::Loader(name) if name.ends_with(".efi") => "application/efi",
            Name::Loader(_) => "application/octet-stream",
            Name::Script(_) | Name::Machine(_) => "text/plain",
        }
    }
}

#[cfg(test)]
mod tests {
    use bmi::model::Id;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_names_there_are_mean_a_file() {
        for (path, file) in [
            ("/boot.ipxe", "boot.ipxe"),
            ("/autoexec.ipxe", "autoexec.ipxe"),
            ("/snponly.efi", "snponly.efi"),
            ("/undionly.kpxe", "undionly.kpxe"),
            ("/mac/52-54-00-00-00-0a.ipxe", "mac/52-54-00-00-00-0a.ipxe"),
        ] {
            assert_eq!(Name::of(path).map(|n| n.file(Path::new("/r"))), Some(Path::new("/r").join(file)), "{path}");
        }
        for path in [
            "",
            "/",
            "boot.ipxe",
            "//boot.ipxe",
            "/./boot.ipxe",
            "/mac/../boot.ipxe",
            "/../dnsmasq.conf",
            "/http.conf",
            "/%62oot.ipxe",
            "/boot.ipxe/",
            "/boot.ipxe\0",
            "/mac/",
            "/mac/.ipxe",
            "/mac/52-54-00-00-00-0A.ipxe",
            "/mac/52:54:00:00:00:0a.ipxe",
            "/mac/52-54-00-00-00-0a.ipxe/..",
            "/mac/52-54-00-00-00-0a",
            "/etc/shadow",
        ] {
            assert_eq!(Name::of(path), None, "{path:?}");
        }
    }

    #[test]
    fn a_configuration_says_what_was_meant() {
        let network: Id = "0f8e7c1a-2b3d-4e5f-8a9b-0c1d2e3f4a5b".parse().unwrap();
        let paths = Paths { state: "/s".into(), run: "/r".into() };
        let conf = Conf::read(&text(&super::super::tests::serve(network), &paths)).unwrap();
        let ours = |a: &str| conf.lets_in(a.parse().unwrap());
        assert_eq!(conf.listen, ["10.9.0.1:8067".parse().unwrap(), "[fd97:f8e:7c1a:2b3d::1]:8067".parse().unwrap()]);
        assert_eq!(conf.root, paths.boot(network).join("tftp"));
        for inside in ["10.9.0.200", "::ffff:10.9.0.200", "fd97:f8e:7c1a:2b3d:5054:ff:fe00:1"] {
            assert!(ours(inside), "{inside}");
        }
        for outside in ["10.9.1.200", "10.8.255.255", "127.0.0.1", "fe80::1", "fd97:f8e:7c1a:2b3e::1", "::1"] {
            assert!(!ours(outside), "{outside}");
        }
        for bad in [
            "listen=10.9.0.1:8067",
            "listen=x\nroot=/r\npid=/p",
            "from=0.0.0.0/0\nlisten=1.2.3.4:5\nroot=/\npid=/",
            "what=1",
        ] {
            assert!(Conf::read(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_the_folder(path in r"[/.%\\a-f0-9:-]{0,40}|/mac/.{0,30}\.ipxe|/.{0,30}") {
            if let Some(name) = Name::of(&path) {
                let file = name.file(Path::new("/r"));
                prop_assert_eq!(file.display().to_string(), format!("/r{path}"));
                prop_assert!(!path.contains("..") && path.is_ascii());
            }
        }
    }
}
