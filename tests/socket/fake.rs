//! A service that does what the name in a request says, and the real listening room in front of it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bmi::model::{Caller, Fault, Kind};
use bmi::ops::Request;
use bmi::protocol::{Ended, Progress};
use bmid::listen::{Limits, Service, make, serve};
use bmid::run::{Cancel, Out, Submission};

use super::client::item;

/// What the service was asked and how far it came.
#[derive(Default)]
pub(crate) struct Seen {
    /// Who asked, in order.
    pub(crate) callers: Mutex<Vec<Caller>>,
    /// Requests taken in.
    pub(crate) begun: AtomicUsize,
    /// Requests that came to their own end.
    pub(crate) ended: AtomicUsize,
    /// Requests that were cancelled.
    pub(crate) cancelled: AtomicUsize,
    /// Items sent by `flood`s.
    pub(crate) items: AtomicUsize,
    /// `hold`s wait for this switch.
    pub(crate) release: Cancel,
}

struct Fake(Arc<Seen>);

impl Service for Fake {
    fn submit(&self, call: Submission) -> Cancel {
        let cancel = Cancel::default();
        let (seen, switch) = (Arc::clone(&self.0), cancel.clone());
        seen.callers.lock().expect("lock").push(call.caller.clone());
        seen.begun.fetch_add(1, Ordering::SeqCst);
        if matches!(&call.request, Request::DatastoreRm(rm) if rm.datastore.to_string() == "break-off") {
            return cancel;
        }
        tokio::spawn(async move {
            let end = act(&seen, &call, &switch).await;
            match &end {
                Err(f) if f.kind == Kind::Cancelled => seen.cancelled.fetch_add(1, Ordering::SeqCst),
                _ => seen.ended.fetch_add(1, Ordering::SeqCst),
            };
            let _ = call.out.send(Out::End(end)).await;
        });
        cancel
    }
}

async fn act(seen: &Seen, call: &Submission, cancel: &Cancel) -> Result<Ended, Fault> {
    let what = match &call.request {
        Request::DatastoreRm(rm) => rm.datastore.to_string(),
        other => format!("{} was asked", other.sheet().method()),
    };
    let cancelled = || Fault::new(Kind::Cancelled, "somebody cancelled it");
    match what.as_str() {
        "refuse" => return Err(Fault::conflict("because").trying("do it").fix("do not").because("underneath")),
        "hold" => tokio::select! {
            () = cancel.cancelled() => return Err(cancelled()),
            () = seen.release.cancelled() => {}
        },
        "flood" => loop {
            let send = call.out.send(Out::Item(Box::new(item("x".repeat(10_000)))));
            tokio::select! {
                () = cancel.cancelled() => return Err(cancelled()),
                sent = send => if sent.is_err() { break },
            }
            seen.items.fetch_add(1, Ordering::SeqCst);
        },
        "large" => drop(call.out.send(Out::Item(Box::new(item("x".repeat(2 << 20))))).await),
        "files" => {
            for file in &call.files {
                drop(call.out.send(Out::Item(Box::new(item(contents(file))))).await);
            }
        }
        "progress" => {
            let op_id = bmi::model::Id([1; 16]);
            let progress = Progress { op_id, what: "half".into(), done: 1, total: Some(2), bytes: false };
            drop(call.out.send(Out::Progress(progress)).await);
            drop(call.out.send(Out::Gap(3)).await);
        }
        _ => drop(call.out.send(Out::Item(Box::new(item(what)))).await),
    }
    Ok(Ended { op_id: call.envelope.op_id, changed: true, running: false })
}

fn contents(mut file: &File) -> String {
    let mut text = String::new();
    let _ = file.rewind();
    file.read_to_string(&mut text).expect("the passed file is readable");
    text
}

/// The listening room, running. Dropped, it stops and its folder goes.
pub(crate) struct House {
    /// Where it listens.
    pub(crate) path: PathBuf,
    /// What the service saw.
    pub(crate) seen: Arc<Seen>,
    /// Turned, it stops.
    pub(crate) stop: Cancel,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

/// Limits as shipped.
pub(crate) fn house() -> House {
    house_with(Limits::default())
}

/// With limits small enough for a test.
pub(crate) fn house_with(limits: Limits) -> House {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("bmid.sock");
    let (listener, made) = make(&path, None).expect("a socket");
    let (seen, stop) = (Arc::<Seen>::default(), Cancel::default());
    let (fake, switch) = (Fake(Arc::clone(&seen)), stop.clone());
    let thread = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(serve(listener, fake, limits, switch)).expect("served");
        runtime.shutdown_timeout(Duration::from_secs(1));
        drop(made);
    });
    House { path, seen, stop, thread: Some(thread), _dir: dir }
}

impl House {
    /// Stops it and waits until it is gone.
    pub(crate) fn close(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the listening room did not panic");
        }
    }

    /// Waits until `true`; fails after 20 s.
    pub(crate) fn wait(&self, what: &str, f: impl Fn(&Seen) -> bool) {
        for _ in 0..2000 {
            if f(&self.seen) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("never happened: {what}");
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the listening room panicked");
        }
    }
}

/// How often each text came.
pub(crate) fn counted(texts: impl IntoIterator<Item = String>) -> HashMap<String, usize> {
    texts.into_iter().fold(HashMap::new(), |mut all, t| {
        *all.entry(t).or_default() += 1;
        all
    })
}
