//! tgtd's listings, as text. Pure; takes any text without panicking.
//!
//! An initiator chooses the alias it logs in with, tgtd prints it as it came, line breaks included, and cuts a line off where
//! it gets too long. So whoever may log in to one target may write lines into the listing of all. What is believed here cannot
//! be written that way: numbers and names of targets come from the listing of drivers (no initiator's word in it), every
//! target's own part must stand there exactly once and by number, LUNs and access are read from behind the last place an
//! initiator can reach, and sessions come from the listing of connections, whose names passed the ACL.

/// A connection of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// tgtd's number of the session.
    pub sid: u64,
    /// Number of the connection in it.
    pub cid: u32,
    /// The initiator's name.
    pub initiator: String,
    /// From which address.
    pub address: String,
}

/// A LUN, without the controller (LUN 0).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedLun {
    /// LUN.
    pub number: u8,
    /// Its backing.
    pub path: String,
    /// The serial initiators see.
    pub serial: String,
    /// The SCSI id initiators see.
    pub scsi_id: String,
    /// Answers commands.
    pub online: bool,
}

/// A target with all that belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// tgtd's number.
    pub tid: u32,
    /// Its name.
    pub iqn: String,
    /// Takes logins (if it lets anybody in).
    pub ready: bool,
    /// Something is logged in. Only a hint to ask for the connections.
    pub busy: bool,
    /// LUNs without the controller.
    pub luns: Vec<ListedLun>,
    /// Accounts bound.
    pub accounts: Vec<String>,
    /// Initiators let in.
    pub initiators: Vec<String>,
}

/// Why a listing is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadListing {
    /// It names other targets than there are: one came or went meanwhile, or an initiator wrote into it.
    #[error("tgtd's listing names a target where there is none, behind target {after:?}")]
    Targets {
        /// The last target that stood where it should.
        after: String,
    },
    /// A part is missing.
    #[error("tgtd's listing of target {0:?} is not whole")]
    Part(String),
}

/// Numbers and names of all targets by number, out of the listing of drivers (which has them in the order they were made).
#[must_use]
pub fn targets(text: &str) -> Vec<(u32, String)> {
    let mut all: Vec<_> = text.lines().filter_map(|line| header(line.strip_prefix("        ")?)).collect();
    all.sort();
    all
}

/// Connections of one target.
#[must_use]
pub fn connections(text: &str) -> Vec<Connection> {
    let mut found: Vec<Connection> = Vec::new();
    let mut sid = None;
    for line in text.lines() {
        if let Some(n) = line.strip_prefix("Session: ") {
            sid = n.trim().parse::<u64>().ok();
        } else if let Some(n) = line.strip_prefix("    Connection: ") {
            if let (Some(sid), Ok(cid)) = (sid, n.trim().parse()) {
                found.push(Connection { sid, cid, initiator: String::new(), address: String::new() });
            }
        } else if let (Some(last), Some((key, value))) = (found.last_mut(), line.trim_start().split_once(": ")) {
            match key {
                "Initiator" => last.initiator = value.to_owned(),
                "IP Address" => last.address = value.to_owned(),
                _ => {}
            }
        }
    }
    found
}

/// Portals that are open: address and port.
#[must_use]
pub fn portals(text: &str) -> Vec<(String, u16)> {
    let portal = |line: &str| {
        let (at, _group) = line.strip_prefix("Portal: ")?.rsplit_once(',')?;
        let (address, port) = at.rsplit_once(':')?;
        Some((address.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
    };
    text.lines().filter_map(portal).collect()
}

/// All targets whole. `names` is what [`targets`] answered at the same moment.
pub fn listing(text: &str, names: &[(u32, String)]) -> Result<Vec<Listed>, BadListing> {
    let mut starts = Vec::with_capacity(names.len());
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with("Target ") {
            let expected = names.get(starts.len());
            if header(line.trim_end_matches('\n')).as_ref() != expected || expected.is_none() {
                return Err(astray(names, starts.len()));
            }
            starts.push(at);
        }
        at += line.len();
    }
    if starts.len() != names.len() {
        return Err(astray(names, starts.len()));
    }
    let ends = starts.iter().copied().skip(1).chain([text.len()]);
    let parts = starts.iter().zip(ends).map(|(&from, to)| text.get(from..to).unwrap_or_default());
    names.iter().zip(parts).map(|((tid, iqn), part)| target(*tid, iqn, part)).collect()
}

fn astray(names: &[(u32, String)], seen: usize) -> BadListing {
    let after = seen.checked_sub(1).and_then(|i| names.get(i)).map_or(String::new(), |(_, iqn)| iqn.clone());
    BadListing::Targets { after }
}

/// `Target 7: iqn…`
fn header(line: &str) -> Option<(u32, String)> {
    let (tid, iqn) = line.strip_prefix("Target ")?.split_once(": ")?;
    Some((tid.parse().ok()?, iqn.to_owned()))
}

const NEXUS: &str = "    I_T nexus information:\n";
const LUNS: &str = "    LUN information:\n";
const ACCOUNTS: &str = "    Account information:\n";
const ACL: &str = "    ACL information:\n";

fn target(tid: u32, iqn: &str, part: &str) -> Result<Listed, BadListing> {
    let cut = |text: &'_ str, at: &str, last: bool| {
        let pos = if last { text.rfind(at) } else { text.find(at) };
        pos.map(|p| (p, p + at.len())).ok_or_else(|| BadListing::Part(iqn.to_owned()))
    };
    let (head_end, nexus_start) = cut(part, NEXUS, false)?;
    // The last one: an initiator's lines stand before it. A line of its that was cut off may run into it.
    let (nexus_end, luns_start) = cut(part, LUNS, true)?;
    let tail = &part[luns_start..];
    let (luns_end, accounts_start) = cut(tail, ACCOUNTS, false)?;
    let (accounts_end, acl_start) = cut(&tail[accounts_start..], ACL, false)?;
    Ok(Listed {
        tid,
        iqn: iqn.to_owned(),
        ready: part[..head_end].lines().any(|l| l == "        State: ready"),
        busy: nexus_end > nexus_start,
        luns: luns(&tail[..luns_end]),
        accounts: names(&tail[accounts_start..accounts_start + accounts_end]),
        initiators: names(&tail[accounts_start + acl_start..]),
    })
}

fn names(block: &str) -> Vec<String> {
    let name = |line: &str| line.strip_prefix("        ").filter(|n| !n.is_empty()).map(str::to_owned);
    // An outgoing account is marked so; we never bind one.
    block.lines().filter_map(name).filter(|n| !n.ends_with(" (outgoing)")).collect()
}

fn luns(block: &str) -> Vec<ListedLun> {
    let mut found: Vec<ListedLun> = Vec::new();
    let (mut known, mut pool) = (false, false);
    for line in block.lines() {
        if let Some(n) = line.strip_prefix("        LUN: ") {
            known = false;
            if let Ok(number @ 1..) = n.parse() {
                found.push(ListedLun { number, ..ListedLun::default() });
                known = true;
            }
            continue;
        }
        let (true, Some(lun), Some((key, value))) = (known, found.last_mut(), line.trim_start().split_once(": "))
        else {
            continue;
        };
        match key {
            // It stands before the path.
            "Backing store type" => pool = value == "rbd",
            "Backing store path" if pool => lun.path = format!("rbd:{value}"),
            "Backing store path" => lun.path = value.to_owned(),
            "SCSI SN" => lun.serial = value.to_owned(),
            "SCSI ID" => lun.scsi_id = value.to_owned(),
            "Online" => lun.online = value == "Yes",
            _ => {}
        }
    }
    found
}
