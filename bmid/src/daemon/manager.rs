//! What is said to the service manager, and signals. Without a manager nothing is said and nothing is missed.

use std::time::Duration;

use bmi::model::{Fault, Kind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::mpsc;

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

fn notify(state: &[(&str, &str)]) {
    if let Err(e) = systemd::daemon::notify(state.iter()) {
        tracing::debug!("the service manager cannot be told: {e}");
    }
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
    loop {
        tick.tick().await;
        // A manager that does not read would hold this thread of the runtime up.
        let told = tokio::task::spawn_blocking(|| notify(&[("WATCHDOG", "1")])).await;
        if told.is_err() {
            return;
        }
    }
}
