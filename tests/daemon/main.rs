//! The real program, started as people and systemd start it, with everything outside simulated in its own folder.

#[path = "../socket/client.rs"]
mod client;
mod first;
mod house;
mod imports;
mod load;
mod manager;
mod people;
mod raw;
mod rough;
mod secrets;
mod start;
#[path = "../support/mod.rs"]
mod support;
