//! What a row counts for, and for whom: the one definition that the counters kept with every write, the recount of
//! `quota verify` and the quotas share. Pure.

use crate::model::{Owner, Row, Usage};

/// What one row adds to its owner's usage; none for rows that are not live or count for nobody.
#[must_use]
pub fn count(row: &Row) -> Option<(Owner, Usage)> {
    if row.indexes().is_empty() {
        return None;
    }
    let none = Usage::default();
    match row {
        Row::Node(r) => Some((r.owner.clone(), Usage { nodes: 1, ..none })),
        Row::Volume(r) => Some((r.owner.clone(), Usage { volumes: 1, gigabytes: r.size_bytes.gib(), ..none })),
        Row::Snapshot(r) => Some((r.owner.clone(), Usage { snapshots: 1, gigabytes: r.size_bytes.gib(), ..none })),
        Row::Image(r) => Some((r.owner.clone(), Usage { images: 1, image_gigabytes: r.size_bytes.gib(), ..none })),
        // Everyone's counts for nobody.
        Row::Network(r) => Some((r.owner.clone()?, Usage { networks: 1, ..none })),
        Row::Project(_)
        | Row::Server(_)
        | Row::EngineNetwork(_)
        | Row::Attachment(_)
        | Row::Target(_)
        | Row::Vlan(_) => None,
    }
}

/// `a` and `b` together.
#[must_use]
pub fn plus(a: &Usage, b: &Usage) -> Usage {
    each(a, b, u64::saturating_add)
}

/// `a` without `b`.
#[must_use]
pub fn minus(a: &Usage, b: &Usage) -> Usage {
    each(a, b, u64::saturating_sub)
}

fn each(a: &Usage, b: &Usage, f: fn(u64, u64) -> u64) -> Usage {
    Usage {
        nodes: f(a.nodes, b.nodes),
        volumes: f(a.volumes, b.volumes),
        snapshots: f(a.snapshots, b.snapshots),
        gigabytes: f(a.gigabytes, b.gigabytes),
        images: f(a.images, b.images),
        image_gigabytes: f(a.image_gigabytes, b.image_gigabytes),
        networks: f(a.networks, b.networks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bytes, Id, Role, Time, Volume, VolumeStatus};

    fn volume() -> Volume {
        Volume {
            id: Id::from_random([1; 16]),
            owner: Owner::default_project(),
            name: None,
            image: None,
            datastore: Id::from_random([2; 16]),
            generation: 0,
            role: Role::Boot,
            size_bytes: Bytes((3 << 30) + 1),
            status: VolumeStatus::InUse,
            created_at: Time(1),
            deleted_at: None,
            operation: None,
        }
    }

    #[test]
    fn a_live_volume_counts_rounded_up_and_a_removed_one_not_at_all() {
        let (owner, usage) = count(&Row::Volume(volume())).expect("counts");
        assert_eq!((owner.as_str(), usage.volumes, usage.gigabytes), ("default", 1, 4));
        assert_eq!(count(&Row::Volume(Volume { deleted_at: Some(Time(2)), ..volume() })), None);
        assert_eq!(minus(&plus(&usage, &usage), &usage), usage);
    }
}
