//! What is said to the service manager, and signals. Without a manager nothing is said and nothing is missed.

use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::time::Duration;

use bmi::model::{Fault, Kind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::mpsc;

/// So many messages may wait for the manager.
const MESSAGES: usize = 16;
/// A message is waited for so long.
const HEARD: Duration = Duration::from_secs(1);
/// The stack of a thread that does little and may log a line.
pub(super) const LOGS: usize = 256 << 10;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// End in order.
    Stop,
    /// Read the configuration again.
    Reload,
}

/// Signals from now on, in order.
pub(super) fn signals() -> Result<mpsc::Receiver<Asked>, Fault> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|e| Fault::new(Kind::Outside, e.to_string()).trying("wait for signals"))?;
    let (tell, asked) = mpsc::channel(16);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(64 << 10)
        .spawn(move || {
            for signal in signals.forever() {
                let asked = if signal == SIGHUP { Asked::Reload } else { Asked::Stop };
                // Full means that sixteen wait already: one more of the same tells nothing new.
                if let Err(mpsc::error::TrySendError::Closed(_)) = tell.try_send(asked) {
                    return;
                }
            }
        })
        .map_err(|e| Fault::new(Kind::Outside, e.to_string()).trying("start the thread that waits for signals"))?;
    Ok(asked)
}

/// A message for the manager, and where it is told when that has taken it.
type Message = (Vec<(&'static str, String)>, Sender<()>);

/// The thread that talks to the manager, from the first message on: one that does not read holds up nobody else.
static TALKS: LazyLock<Option<SyncSender<Message>>> = LazyLock::new(|| {
    let (tell, told) = sync_channel::<Message>(MESSAGES);
    let talk = move || {
        for (state, heard) in told {
            send(&state);
            // Nobody may wait for it any more.
            let _ = heard.send(());
        }
    };
    let talks = std::thread::Builder::new().name("manager".to_owned()).stack_size(LOGS).spawn(talk);
    talks.map(|_| tell).inspect_err(|e| tracing::warn!("no thread to tell the service manager: {e}")).ok()
});

fn send(state: &[(&'static str, String)]) {
    if let Err(e) = systemd::daemon::notify(state.iter()) {
        tracing::debug!("the service manager cannot be told: {e}");
    }
}

/// Has the manager told, in its turn. What is given back ends when it has been, or cannot be.
fn tell(state: &[(&'static str, &str)]) -> Receiver<()> {
    let (heard, hears) = channel();
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return hears;
    }
    let owned = state.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    match &*TALKS {
        Some(talks) => {
            if talks.try_send((owned, heard)).is_err() {
                tracing::warn!("the service manager does not take what it is told: {state:?} is left out");
            }
        }
        None => send(&owned),
    }
    hears
}

/// The same, waited for as long as a manager that reads may take.
fn notify(state: &[(&'static str, &str)]) {
    // Told or not: bmid goes on.
    let _ = tell(state).recv_timeout(HEARD);
}

/// The start may take this long.
pub(super) fn starting(what: &str, longest: Duration) {
    notify(&[("STATUS", what), ("EXTEND_TIMEOUT_USEC", &longest.as_micros().to_string())]);
}

/// Requests are served.
pub(super) fn ready(what: &str) {
    notify(&[("READY", "1"), ("STATUS", what)]);
}

/// The configuration is being read again; [`ready`] ends it.
pub(super) fn reloading() {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    notify(&[("RELOADING", "1"), ("MONOTONIC_USEC", &now.as_micros().to_string())]);
}

/// It ends.
pub(super) fn stopping() {
    notify(&[("STOPPING", "1"), ("STATUS", "stopping; nodes keep their disks")]);
}

/// Tells the manager's watchdog that this runtime still runs, for as long as it does.
pub(super) async fn watchdog() {
    let every = match systemd::daemon::watchdog_enabled() {
        Ok(micros) if micros > 0 => Duration::from_micros(micros / 3),
        _ => return,
    };
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        tick.tick().await;
        // One at a time: what else is to be told has its place.
        if last.as_ref().is_none_or(|last: &Receiver<()>| last.try_recv() != Err(TryRecvError::Empty)) {
            last = Some(tell(&[("WATCHDOG", "1")]));
        }
    }
}
