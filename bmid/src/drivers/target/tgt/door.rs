//! What the door of a tgtd (the object preloaded into it) has turned away, as it writes down for us. Reads only; a file that says
//! anything else tells nothing.

use std::path::Path;

use bmi::step::{Finding, Severity};

use crate::drivers::host;

/// Nothing where there is nothing to tell: no tgtd, or one that has turned nobody away. `folder` is that tgtd's.
pub(super) fn finding(folder: &Path, interface: &str) -> Option<Finding> {
    let read = |name: &str| host::read(&folder.join(name)).ok().flatten();
    let pid = read("pid")?;
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", pid.trim())).ok()?;
    let told = if maps.contains("libbmid_rbdguard.so") { Some(read("door").unwrap_or_default()) } else { None };
    let (severity, found, fix) = judge(told.as_deref())?;
    Some(Finding { check: format!("door on {interface}"), severity, found, fix: fix.to_owned() })
}

/// What the door's counts mean; none: there is no door.
fn judge(told: Option<&str>) -> Option<(Severity, String, &'static str)> {
    let Some(told) = told else {
        let found =
            "tgtd runs without libbmid_rbdguard.so: machines of other networks are not turned away from its portal";
        let fix = "put that file beside bmid or into lib/bmid of its prefix, and restart that tgtd while its machines are off";
        return Some((Severity::Warning, found.to_owned(), fix));
    };
    let count = |word: &str| {
        let of = told.lines().filter_map(|l| l.split_once(' ')).find(|(w, _)| *w == word);
        of.and_then(|(_, n)| n.parse::<u64>().ok()).unwrap_or(0)
    };
    let blind = count("blind");
    if blind > 0 {
        let found = format!("tgtd could not list the host's addresses and turned {blind} connections away for it");
        let fix = "has its unit AF_NETLINK in RestrictAddressFamilies=? restart that tgtd; its machines try again";
        return Some((Severity::Error, found, fix));
    }
    let all = [
        ("elsewhere", "connections from other networks"),
        ("many", "connections of machines that have too many"),
        ("buffers", "requests for more memory than a network may have"),
    ];
    let all: Vec<String> =
        all.iter().map(|(w, of)| (count(w), of)).filter(|(n, _)| *n > 0).map(|(n, of)| format!("{n} {of}")).collect();
    if all.is_empty() {
        return None;
    }
    let fix = "a machine there is set up wrongly or hostile: its switch port and `ss -tn` on this host tell more";
    Some((Severity::Warning, format!("turned away so far: {}", all.join(", ")), fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_door_turned_away_is_told_and_a_door_that_is_blind_or_missing_above_all() {
        let said = |text| judge(text).map(|(severity, found, _)| (severity, found));
        assert_eq!(said(Some("")), None);
        assert_eq!(said(Some("elsewhere 0\nmany 0\nblind 0\nbuffers 0\n")), None);
        assert_eq!(said(Some("rubbish\nmany x\n")), None);
        let (severity, found) = said(Some("elsewhere 3\nmany 0\nblind 0\nbuffers 2\n")).unwrap();
        assert_eq!(severity, Severity::Warning);
        assert!(found.contains("3 connections from other networks, 2 requests"), "{found}");
        let (severity, found) = said(Some("elsewhere 3\nblind 7\n")).unwrap();
        assert!(severity == Severity::Error && found.contains("7 connections"), "{found}");
        assert!(said(None).is_some_and(|(_, found)| found.contains("libbmid_rbdguard.so")));
    }
}
