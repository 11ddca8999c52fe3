//! The engine's interfaces on VLANs: what there is, what a step asks for, and so what to do. Nothing that does not carry
//! this bmid's mark is changed or removed.
//!
//! **The mark** is twofold, because the kernel takes an alias only for an interface that exists: the group [`GROUP`] is set in
//! the same message that makes the interface, the alias says for whom. With the group and without an alias an interface is
//! half-made, and ours to finish or to remove.

use std::path::Path;

use bmi::model::{Id, Kind, Tagging};
use bmi::step::{DropVlan, MakeVlan, SeenVlan, VlanFacts};

use super::{ask, netlink};
use crate::drivers::DriverError;

/// The group of every interface that bmid makes: "bmid" as a number.
pub(super) const GROUP: u32 = u32::from_be_bytes(*b"bmid");

/// A link as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) loopback: bool,
    pub(super) mtu: u32,
    pub(super) group: u32,
    pub(super) alias: Option<String>,
    /// Index of the link that carries its frames, VLAN, tagging.
    pub(super) vlan: Option<(u32, u16, Tagging)>,
}

/// What a bmid writes into aliases, and reads there.
#[derive(Debug, Clone, Default)]
pub(super) struct Mark(String);

impl Mark {
    /// Two bmids of one host have different run folders.
    pub(super) fn new(run: &Path) -> Mark {
        Mark(format!("bmid {}", run.display()))
    }

    pub(super) fn of(&self, network: Id) -> String {
        format!("{} {network}", self.0)
    }

    /// The network that an interface of ours is for.
    pub(super) fn network(&self, link: &Link) -> Option<Id> {
        let rest = link.alias.as_deref()?.strip_prefix(self.0.as_str())?.strip_prefix(' ')?;
        rest.parse().ok().filter(|_| link.vlan.is_some())
    }
}

fn half_made(link: &Link) -> bool {
    link.group == GROUP && link.alias.is_none() && link.vlan.is_some()
}

/// What to do for a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Todo {
    /// It is so.
    Nothing,
    /// Put mark, MTU and state right.
    Finish { index: u32, mtu: u32 },
    /// Make it on that parent with that MTU, after the ones that stand in the way are removed.
    Make { parent: u32, mtu: u32, first: Vec<u32> },
}

/// Judges what a step asks for against what there is.
pub(super) fn judge(mark: &Mark, links: &[Link], s: &MakeVlan) -> Result<Todo, DriverError> {
    let (parent, mtu) = parent(mark, links, s)?;
    let shape = Some((parent.index, s.vlan, s.tagging));
    let mut first = Vec::new();
    for link in links.iter().filter(|l| l.name == s.interface || l.vlan == shape) {
        let ours = mark.network(link) == Some(s.network);
        if !ours && !half_made(link) {
            return Err(taken(mark, link, s));
        }
        if (link.name.as_str(), link.vlan) != (s.interface.as_str(), shape) {
            first.push(link.index);
        } else if ours && link.up && link.mtu == mtu {
            return Ok(Todo::Nothing);
        } else {
            return Ok(Todo::Finish { index: link.index, mtu });
        }
    }
    Ok(Todo::Make { parent: parent.index, mtu, first })
}

fn parent<'a>(mark: &Mark, links: &'a [Link], s: &MakeVlan) -> Result<(&'a Link, u32), DriverError> {
    let no = |kind, why: String, fix: String| Err(DriverError::new(kind, tried(s), why).fix(fix));
    let Some(parent) = links.iter().find(|l| l.name == s.parent) else {
        let names: Vec<_> = links.iter().filter(|l| !l.loopback && l.vlan.is_none()).map(|l| l.name.as_str()).collect();
        let fix = format!("plug it in or load its driver; there are {}", names.join(", "));
        return no(Kind::NotFound, format!("this host has no interface {}", s.parent), fix);
    };
    if parent.loopback || parent.vlan.is_some() {
        let what = match mark.network(parent) {
            Some(network) => format!("{} is bmid's own, for network {network}", s.parent),
            None if parent.loopback => "that is the loopback interface".to_owned(),
            None => format!("{} is on a VLAN itself", s.parent),
        };
        return no(Kind::Invalid, what, "name the network card, bond or bridge beneath".to_owned());
    }
    let mtu = s.mtu.unwrap_or(parent.mtu);
    if mtu > parent.mtu {
        let fix = format!("raise the parent's: ip link set dev {} mtu {mtu}", s.parent);
        return no(Kind::Invalid, format!("an MTU of {mtu} is more than the {} of {}", parent.mtu, s.parent), fix);
    }
    Ok((parent, mtu))
}

fn tried(s: &MakeVlan) -> String {
    format!("make {} for VLAN {} on {}", s.interface, s.vlan, s.parent)
}

fn taken(mark: &Mark, link: &Link, s: &MakeVlan) -> DriverError {
    let why = match mark.network(link) {
        Some(network) => format!("{} is there for network {network}", link.name),
        None if link.name == s.interface => format!("there is an interface {} that is not bmid's", link.name),
        None => format!("VLAN {} on {} is {} already, and that is not bmid's", s.vlan, s.parent, link.name),
    };
    let fix = match mark.network(link) {
        Some(_) => "choose another VLAN, or remove that network".to_owned(),
        None => format!("choose another VLAN, or remove it: ip link del {}", link.name),
    };
    DriverError::new(Kind::Conflict, tried(s), why).fix(fix)
}

/// Makes it or puts it right. False: it was so.
pub(super) fn make(mark: &Mark, s: &MakeVlan) -> Result<bool, DriverError> {
    let failed = |e| DriverError::io(tried(s), e);
    let alias = mark.of(s.network);
    let make = |parent, mtu| netlink::make_vlan(&s.interface, parent, s.vlan, s.tagging, mtu);
    // Mostly its parent and its name tell all. Whatever else may stand in the way is looked for among all links.
    let todo = match judge(mark, &its_own(s).map_err(failed)?, s) {
        Ok(Todo::Make { parent, mtu, first }) if first.is_empty() => match make(parent, mtu) {
            Ok(index) => Todo::Finish { index, mtu },
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => judge(mark, &links(&tried(s))?, s)?,
            Err(e) => return Err(unable(s, e)),
        },
        Ok(todo @ (Todo::Nothing | Todo::Finish { .. })) => todo,
        Ok(Todo::Make { .. }) | Err(_) => judge(mark, &links(&tried(s))?, s)?,
    };
    match todo {
        Todo::Nothing => return Ok(false),
        Todo::Finish { index, mtu } => netlink::finish(index, &alias, mtu).map_err(failed)?,
        Todo::Make { parent, mtu, first } => {
            for index in first {
                netlink::delete(index).map_err(failed)?;
            }
            let index = make(parent, mtu).map_err(|e| unable(s, e))?;
            netlink::finish(index, &alias, mtu).map_err(failed)?;
        }
    }
    Ok(true)
}

/// The link it is to be made on, and the one of its name.
fn its_own(s: &MakeVlan) -> std::io::Result<Vec<Link>> {
    Ok(ask::link(&s.parent)?.into_iter().chain(ask::link(&s.interface)?).collect())
}

fn unable(s: &MakeVlan, e: std::io::Error) -> DriverError {
    match e.raw_os_error() {
        Some(libc::EOPNOTSUPP) => DriverError::new(Kind::Unavailable, tried(s), "the kernel has no VLANs")
            .fix("load them: modprobe 8021q; if there is no such module, boot a kernel that has it"),
        Some(libc::ENETDOWN) => DriverError::new(Kind::Unavailable, tried(s), format!("{} is down", s.parent))
            .fix(format!("bring it up: ip link set dev {} up", s.parent)),
        _ => DriverError::io(tried(s), e),
    }
}

/// Removes what is ours of it. False: it was gone.
pub(super) fn remove(mark: &Mark, s: &DropVlan) -> Result<bool, DriverError> {
    let tried = format!("remove the VLAN interface of network {}", s.network);
    let mut gone = false;
    for link in links(&tried)? {
        if mark.network(&link) == Some(s.network) || (link.name == s.interface && half_made(&link)) {
            gone |= netlink::delete(link.index).map_err(|e| DriverError::io(tried.as_str(), e))?;
        }
    }
    Ok(gone)
}

fn links(tried: &str) -> Result<Vec<Link>, DriverError> {
    ask::links().map_err(|e| DriverError::io(tried, e))
}

/// The network's interface, if it is whole.
pub(super) fn seen(mark: &Mark, links: &[Link], network: Id, interface: &str) -> Option<SeenVlan> {
    let link = links.iter().find(|l| l.name == interface && l.up && mark.network(l) == Some(network))?;
    let (parent, vlan, tagging) = link.vlan?;
    let parent = links.iter().find(|l| l.index == parent)?;
    let (parent, parent_mtu) = (parent.name.clone(), parent.mtu);
    Some(SeenVlan { interface: link.name.clone(), parent, vlan, tagging, mtu: link.mtu, parent_mtu })
}

/// As plans are told; `name` knows the links' names.
pub(super) fn told<'a>(mark: &Mark, name: impl Fn(u32) -> Option<&'a str>, link: &Link) -> Option<VlanFacts> {
    let (parent, vlan, tagging) = link.vlan?;
    let parent = name(parent).unwrap_or_default().to_owned();
    Some(VlanFacts { parent, vlan, tagging, network: mark.network(link) })
}

#[cfg(test)]
mod tests;
