//! The engine with the real drivers: the real tgtd, dnsmasq, netlink and file system, in a network namespace of its own; an
//! iSCSI initiator reads and writes. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, reason = "tests")]

#[path = "../support/ceph.rs"]
mod ceph;
#[path = "../support/dice.rs"]
mod dice;
#[path = "../support/disks.rs"]
mod disks;
mod house;
mod hung;
#[path = "../support/initiator.rs"]
mod initiator;
#[path = "isolation/main.rs"]
mod isolation;
mod krbd;
mod links;
mod loaded;
mod lost;
mod pools;
mod power;
mod pressed;
#[path = "../flow/rig.rs"]
mod rig;
mod silent;
mod stopped;
mod store;
mod vlans;
mod whole;
