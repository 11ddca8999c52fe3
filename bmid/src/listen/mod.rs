//! The listening room: the socket, who is at the other end, sessions. It speaks to the run room in [`Submission`]s alone.
//!
//! It decides nothing about requests and never waits for one client on behalf of another. Nothing a client sends may make it
//! panic, grow without bound or stop serving others.

mod answer;
mod ffi;
mod frames;
mod near;
mod peer;
mod raw;
mod recv;
mod send;
mod session;
mod socket;

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bmi::model::{Fault, Kind};
use bmi::protocol::{Hello, NO_REQUEST, ServerFrame, encode};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::run::{Cancel, Engine, Submission};

pub use near::near;
pub use peer::ADMIN_GROUP;
pub use socket::{Made, SOCKET_GROUP, inherited, make};

/// KiB that large frames may take before they are whole: many clients with half a frame each must not fill the memory.
const INCOMING: usize = 64 << 10;

/// What carries requests out. It must take a request in without waiting.
///
/// When the client is gone, the receiving end of `out` is: to send then fails, which is no reason to stop.
pub trait Service: Send + Sync {
    /// Takes a request in. The answer goes to its `out`, the end last; the switch ends it.
    fn submit(&self, call: Submission) -> Cancel;
}

impl Service for Arc<Engine> {
    fn submit(&self, call: Submission) -> Cancel {
        Engine::submit(self, call)
    }
}

/// What clients get at most. Tests make them small.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Until the hello.
    pub hello: Duration,
    /// From a frame's first byte to its last.
    pub frame: Duration,
    /// Without taking a byte of its answers.
    pub write: Duration,
    /// At the end of bmid, for what is open.
    pub drain: Duration,
    /// Connections in all; the last [`Limits::kept_for_root`] are root's.
    pub connections: usize,
    /// Connections that only root gets.
    pub kept_for_root: usize,
    /// Connections of one user.
    pub per_user: usize,
    /// Open requests of one connection; further ones wait unread.
    pub in_flight: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            hello: Duration::from_secs(10),
            frame: Duration::from_secs(30),
            write: Duration::from_secs(60),
            drain: Duration::from_secs(3),
            connections: 4096,
            kept_for_root: 64,
            per_user: 2048,
            in_flight: 64,
        }
    }
}

/// What all sessions share.
struct Door {
    service: Box<dyn Service>,
    limits: Limits,
    stop: Cancel,
    peers: Arc<peer::Peers>,
    /// Memory for frames on their way in, of all connections, in KiB.
    incoming: Arc<Semaphore>,
    /// Connections by user id.
    inside: Mutex<HashMap<u32, usize>>,
}

/// Serves until `stop` is turned, then lets open requests end (see [`Limits::drain`]) and returns.
pub async fn serve(
    listener: StdListener,
    service: impl Service + 'static,
    limits: Limits,
    stop: Cancel,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let door = Arc::new(Door {
        service: Box::new(service),
        limits,
        stop: stop.clone(),
        peers: Arc::default(),
        incoming: Arc::new(Semaphore::new(INCOMING)),
        inside: Mutex::default(),
    });
    let sessions = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => drop(sessions.spawn(enter(stream, Arc::clone(&door)))),
            Err(e) => {
                // Out of descriptors, most likely: those who wait are served when others have left.
                tracing::warn!("cannot take a connection in: {e}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    drop(listener);
    sessions.close();
    sessions.wait().await;
    Ok(())
}

async fn enter(stream: UnixStream, door: Arc<Door>) {
    let uid = match stream.peer_cred() {
        Ok(cred) => cred.uid(),
        Err(e) => return tracing::warn!("a client cannot be told from others: {e}"),
    };
    let place = match Place::take(&door, uid) {
        Ok(place) => place,
        Err(fault) => return refuse(&stream, &fault),
    };
    match door.peers.caller(&stream).await {
        Ok(caller) => session::run(stream, caller, Arc::clone(&door)).await,
        Err(e) => {
            let fault = Fault::new(Kind::Outside, e.to_string()).trying("find out who the client is");
            tracing::warn!("{fault}");
            refuse(&stream, &fault);
        }
    }
    drop(place);
}

/// One of the connections there may be.
struct Place {
    door: Arc<Door>,
    uid: u32,
}

impl Place {
    fn take(door: &Arc<Door>, uid: u32) -> Result<Place, Fault> {
        let mut inside = door.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = &door.limits;
        let total: usize = inside.values().sum();
        let most = if uid == 0 { limits.connections } else { limits.connections.saturating_sub(limits.kept_for_root) };
        let full = |why: String| {
            Fault::new(Kind::Limit, why)
                .trying("take a connection in")
                .fix("close idle connections, or try again later")
        };
        if total >= most {
            return Err(full(format!("{total} connections are open, and no more are allowed")));
        }
        let own = inside.entry(uid).or_default();
        if *own >= limits.per_user {
            return Err(full(format!("user {uid} has {own} connections open, and no more are allowed")));
        }
        *own += 1;
        Ok(Place { door: Arc::clone(door), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.door.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = inside.get_mut(&self.uid) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                inside.remove(&self.uid);
            }
        }
    }
}

/// Tells a client why it is not let in, without waiting for it.
fn refuse(stream: &UnixStream, fault: &Fault) {
    let mut bytes = Vec::new();
    let end = answer::end(answer::Form::Raw, NO_REQUEST, Err(fault.clone()));
    for frame in [ServerFrame::Hello(Hello::ours()), end] {
        if let Ok(frame) = encode(&frame) {
            bytes.extend(u32::try_from(frame.len()).unwrap_or_default().to_be_bytes());
            bytes.extend(frame);
        }
    }
    // A socket just opened takes these few hundred bytes; if not, the client sees the connection close.
    let _ = stream.try_write(&bytes);
}
