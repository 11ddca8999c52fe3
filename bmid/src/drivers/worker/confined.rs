//! Starts a program that has few rights and can never have more. It takes them from a thread of its own and starts the program there: what a
//! process begins with is its thread's. So no other program (`setpriv`) stands before the worker, each of which costs a millisecond.
//!
//! It must never touch the rights of bmid's other threads.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Starts it with no capability but those `kept`, in a process group of its own: a terminal's signals do not reach it.
pub(super) fn spawn(mut command: Command, kept: CapabilitySet) -> io::Result<Child> {
    command.process_group(0);
    let start = move || {
        lose_all_but(kept).map_err(|e| io::Error::other(format!("take its rights away: {e}")))?;
        command.spawn()
    };
    let thread = std::thread::Builder::new().name("confined".to_owned()).spawn(start)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
}

/// Of this thread and what it starts, for good.
fn lose_all_but(kept: CapabilitySet) -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // The kernel knows no number behind its last one.
        let Ok(has) = capability_is_in_bounding_set(one) else { break };
        if has && !kept.contains(one) {
            remove_capability_from_bounding_set(one)?;
        }
    }
    // Root's programs begin with what is in the bounding set or inheritable.
    set_capabilities(
        None,
        rustix::thread::CapabilitySets { inheritable: CapabilitySet::empty(), ..capabilities(None)? },
    )?;
    // Kernels before 4.3 have no such set.
    let _ = clear_ambient_capability_set();
    set_no_new_privs(true)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    fn rights(of: &str) -> Vec<String> {
        let named = |line: &&str| line.starts_with("Cap") || line.starts_with("NoNewPrivs");
        of.lines().filter(named).map(|l| l.split_whitespace().collect()).collect()
    }

    #[test]
    fn a_program_has_what_it_was_left_and_this_one_all_it_had() {
        let status = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let before = status();
        let mut command = Command::new("cat");
        command.arg("/proc/self/status").stdout(Stdio::piped());
        let out = spawn(command, CapabilitySet::NET_RAW).unwrap().wait_with_output().unwrap();
        let raw = format!("{:016x}", CapabilitySet::NET_RAW.bits());
        let none = format!("{:016x}", 0);
        assert_eq!(
            rights(&String::from_utf8_lossy(&out.stdout)),
            [
                format!("CapInh:{none}"),
                format!("CapPrm:{raw}"),
                format!("CapEff:{raw}"),
                format!("CapBnd:{raw}"),
                format!("CapAmb:{none}"),
                "NoNewPrivs:1".to_owned()
            ]
        );
        assert_eq!(rights(&before), rights(&status()));
    }
}
