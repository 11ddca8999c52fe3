//! Two tenants on two VLANs of one engine, and a hostile machine that tries to get out of its own: what it reads, what it
//! answers, what it breaks. All under one kernel that has 802.1Q (User-mode Linux) and a switch between the machines; each attack
//! is a test. What an attack must not reach is reached beside it by whom it belongs to, so that no test passes in a dead network.
//!
//! `a` and `a2` are machines on VLAN 100, `b` and `b2` on VLAN 200. `a` is hostile: it knows every name, address and secret of B, and
//! has a route to B's subnet by way of the engine.

mod bench;
mod dhcp;
mod floods;
mod garbage;
mod iscsi;
mod lies;
mod names;
mod scripts;
mod tagged;
mod taken;
mod wire;
