//! Waits for the ends of detached workers, so that they do not stay in the kernel's list: one thread for all, since hosts have
//! hundreds. Decides nothing: that a worker has died is noticed elsewhere, from its process itself.

use std::process::Child;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// A dead one is listed for at most so long.
const LOOK: Duration = Duration::from_millis(250);

/// Takes over a child that lives on. Without the thread it stays listed until bmid ends, and is known to be dead all the same.
pub(super) fn reap(child: Child) {
    static TAKER: OnceLock<Option<Sender<Child>>> = OnceLock::new();
    let start = || {
        let (give, taken) = channel();
        let waiting = std::thread::Builder::new().name("reap".to_owned()).spawn(move || wait(&taken));
        waiting.is_ok().then_some(give)
    };
    if let Some(give) = TAKER.get_or_init(start) {
        // The thread lives as long as the process.
        let _ = give.send(child);
    }
}

fn wait(taken: &Receiver<Child>) {
    let mut all: Vec<Child> = Vec::new();
    loop {
        let next = if all.is_empty() { taken.recv().map_err(RecvTimeoutError::from) } else { taken.recv_timeout(LOOK) };
        match next {
            Ok(child) => all.push(child),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // An error: somebody else has waited for it.
        all.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn children_that_end_leave_the_kernels_list_in_whatever_order() {
        let children: Vec<Child> = (0..3).map(|_| Command::new("cat").stdin(Stdio::piped()).spawn().unwrap()).collect();
        let listed = |pid: u32| std::path::Path::new("/proc").join(pid.to_string()).exists();
        let mut ends = Vec::new();
        for mut child in children {
            ends.push((child.id(), child.stdin.take()));
            reap(child);
        }
        for at in [1, 2, 0] {
            let (pid, stdin) = &mut ends[at];
            assert!(listed(*pid));
            drop(stdin.take());
            while listed(*pid) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
