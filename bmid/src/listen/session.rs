//! One client's connection: hello, then any number of requests at once, answers told apart by their numbers.
//!
//! A session decides nothing about requests. It ends with its connection; operations go on unless asked to end with it.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bmi::model::{Caller, Fault, Kind};
use bmi::ops::Request;
use bmi::protocol::{
    Call, ClientFrame, Envelope, Hello, MAGIC, MAX_DESCRIPTORS, NO_REQUEST, PROTOCOL, ServerFrame, decode,
};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::answer::{self, Form};
use super::frames::Frames;
use super::recv::{Passed, Receiver};
use super::send::{Sender, writer};
use super::{Door, raw};
use crate::run::{Cancel, Submission};

/// Pieces of one answer that wait for a slow reader.
const PIECES: usize = 16;
/// The first frame kind that needs equal protocols: hello and call have frozen bytes.
const FIRST_UNFROZEN: u32 = 2;

/// A request whose end was not yet sent.
struct Open {
    switch: Cancel,
    cancel_on_close: bool,
    descriptors: usize,
}

struct Session {
    door: Arc<Door>,
    caller: Caller,
    frames: Frames,
    to: Sender,
    open: Arc<Mutex<HashMap<u64, Open>>>,
    slots: Arc<Semaphore>,
    /// Descriptors in open requests.
    lent: Arc<AtomicUsize>,
    /// The connection is over.
    gone: Cancel,
    /// Why typed frames are refused, if they are.
    mismatch: Option<Fault>,
}

/// Why a session ends.
enum Over {
    /// The client closed, or can't be written to, or bmid stops.
    Closed,
    /// The client is told this first.
    Told(Fault),
}

impl From<Fault> for Over {
    fn from(fault: Fault) -> Over {
        Over::Told(fault)
    }
}

/// Serves one connection to its end.
pub(super) async fn run(stream: UnixStream, caller: Caller, door: Arc<Door>) {
    let gone = Cancel::default();
    let lent = Arc::new(AtomicUsize::new(0));
    let (read, write) = stream.into_split();
    let (to, write) = writer(write, door.limits.write, gone.clone());
    let writing = tokio::spawn(write);
    let receiver = Receiver::new(read, Arc::clone(&lent));
    let frames = Frames::new(receiver, door.limits.frame, Arc::clone(&door.incoming));
    let session = Session {
        slots: Arc::new(Semaphore::new(door.limits.in_flight)),
        door,
        caller,
        to,
        open: Arc::default(),
        lent,
        gone,
        mismatch: None,
        frames,
    };
    session.serve().await;
    // What is queued goes out before the connection is closed; the writer gives up on a client that takes nothing.
    let _ = writing.await;
}

impl Session {
    async fn serve(mut self) {
        let over = match self.greet().await {
            Ok(()) => self.requests().await,
            Err(over) => over,
        };
        if let Over::Told(fault) = over {
            tracing::info!(caller = %self.caller.name, "a client's connection is closed: {fault}");
            let _ = self.to.send(&answer::end(Form::Raw, NO_REQUEST, Err(fault))).await;
        }
        self.gone.cancel();
        for open in self.open.lock().unwrap_or_else(PoisonError::into_inner).values() {
            if open.cancel_on_close {
                open.switch.cancel();
            }
        }
    }

    /// Hello both ways. A client that speaks something else still gets our hello, and is then told what is wrong.
    async fn greet(&mut self) -> Result<(), Over> {
        let first = tokio::select! {
            biased;
            () = self.door.stop.cancelled() => return Err(Over::Closed),
            first = timeout(self.door.limits.hello, self.frames.next()) => first,
        };
        let theirs = match first {
            Ok(Ok(None)) => return Err(Over::Closed),
            Ok(Ok(Some((frame, _)))) => match decode(&frame) {
                Ok(ClientFrame::Hello(hello)) if hello.magic == MAGIC => Ok(hello),
                _ => Err(no_hello("the first frame is no hello")),
            },
            Ok(Err(fault)) => Err(fault),
            Err(_) => Err(no_hello(&format!("no hello within {} seconds", self.door.limits.hello.as_secs()))),
        };
        self.send(&ServerFrame::Hello(Hello::ours())).await?;
        let theirs = theirs?;
        if theirs.protocol != PROTOCOL {
            self.mismatch = Some(mismatch(&theirs));
        }
        Ok(())
    }

    async fn requests(&mut self) -> Over {
        loop {
            let next = tokio::select! {
                biased;
                () = self.gone.cancelled() => return Over::Closed,
                () = self.door.stop.cancelled() => return self.drain().await,
                next = self.frames.next() => next,
            };
            let done = match next {
                Ok(Some((frame, passed))) => self.frame(&frame, passed).await,
                Ok(None) => Err(Over::Closed),
                Err(fault) => Err(Over::Told(fault)),
            };
            if let Err(over) = done {
                return over;
            }
        }
    }

    /// bmid stops: nothing new is read; what is open may still be answered for as long as the daemon waits.
    async fn drain(&self) -> Over {
        let all = u32::try_from(self.door.limits.in_flight).unwrap_or(u32::MAX);
        tokio::select! {
            () = self.gone.cancelled() => {}
            _ = timeout(self.door.limits.drain, self.slots.acquire_many(all)) => {}
        }
        Over::Closed
    }

    async fn frame(&mut self, frame: &[u8], passed: Passed) -> Result<(), Over> {
        if let (Some(fault), Some(kind)) = (&self.mismatch, number::<4>(frame, 0).map(u32::from_le_bytes))
            && kind >= FIRST_UNFROZEN
        {
            // What is in the frame can't be known; every release's frames begin with the request's number.
            let id = number::<8>(frame, 4).map_or(NO_REQUEST, u64::from_le_bytes);
            return self.send(&answer::end(Form::Typed, id, Err(fault.clone()))).await;
        }
        match decode(frame)? {
            ClientFrame::Hello(_) => Err(Fault::new(Kind::Protocol, "a second hello").into()),
            ClientFrame::Call(Call { id, method, params, op_id }) => {
                let envelope = Envelope { op_id, ..Envelope::default() };
                self.submit(Form::Raw, id, envelope, raw::request(&method, &params, &self.caller), passed).await
            }
            ClientFrame::Submit(s) => {
                let asked = Ok((s.request, self.caller.clone()));
                self.submit(Form::Typed, s.id, s.envelope, asked, passed).await
            }
            ClientFrame::Cancel(id) => {
                // An unknown number is no mistake: the request may just have ended.
                if let Some(open) = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
                    open.switch.cancel();
                }
                Ok(())
            }
        }
    }

    async fn submit(
        &mut self,
        form: Form,
        id: u64,
        envelope: Envelope,
        asked: Result<(Request, Caller), Fault>,
        passed: Passed,
    ) -> Result<(), Over> {
        if id == NO_REQUEST || self.open.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&id) {
            let fault = Fault::new(Kind::Protocol, format!("{id} is not free as a request's number"))
                .trying("take a request in")
                .fix("number the requests of a connection from 1 on");
            return Err(fault.into());
        }
        let accepted = asked.and_then(|asked| Ok((asked, accept(passed)?)));
        let ((request, caller), files) = match accepted {
            Ok(accepted) => accepted,
            Err(fault) => return self.send(&answer::end(form, id, Err(fault))).await,
        };
        let slot = self.slot().await?;
        let (out, pieces) = mpsc::channel(PIECES);
        let descriptors = files.len();
        self.lent.fetch_add(descriptors, Ordering::SeqCst);
        let cancel_on_close = envelope.cancel_on_close;
        let submission = Submission { caller, envelope, request, files, out };
        let switch = self.door.service.submit(submission);
        let open = Open { switch, cancel_on_close, descriptors };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, open);
        self.answer(form, id, pieces, slot);
        Ok(())
    }

    fn answer(&self, form: Form, id: u64, mut pieces: mpsc::Receiver<crate::run::Out>, slot: OwnedSemaphorePermit) {
        let (to, gone) = (self.to.clone(), self.gone.clone());
        let (open, lent) = (Arc::clone(&self.open), Arc::clone(&self.lent));
        tokio::spawn(async move {
            let Some(end) = answer::forward(form, id, &mut pieces, &to, &gone).await else { return };
            // Closed before its end is sent: the client may use the number again at once.
            if let Some(o) = open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id) {
                lent.fetch_sub(o.descriptors, Ordering::SeqCst);
            }
            let _ = to.send(&answer::end(form, id, end)).await;
            drop(slot);
        });
    }

    /// Waits until one more request may be open. Until then nothing is read: the client is held up, not refused.
    async fn slot(&self) -> Result<OwnedSemaphorePermit, Over> {
        loop {
            let slot = Arc::clone(&self.slots).acquire_owned();
            tokio::select! {
                biased;
                () = self.gone.cancelled() => return Err(Over::Closed),
                () = self.door.stop.cancelled() => return Err(Over::Closed),
                slot = timeout(Duration::from_secs(1), slot) => match slot {
                    Ok(slot) => return slot.map_err(|_| Over::Closed),
                    Err(_) if self.frames.hung_up() => return Err(Over::Closed),
                    Err(_) => {}
                },
            }
        }
    }

    async fn send(&self, frame: &ServerFrame) -> Result<(), Over> {
        Ok(self.to.send(frame).await.map_err(|_| Over::Closed)??)
    }
}

/// The descriptors of a request, if they are of the kinds that are accepted.
fn accept(passed: Passed) -> Result<Vec<File>, Fault> {
    if passed.closed > 0 {
        return Err(Fault::new(
            Kind::Limit,
            format!("more than {MAX_DESCRIPTORS} descriptors on one connection; {} were closed", passed.closed),
        )
        .trying("take the passed files")
        .fix("pass fewer with a request, or wait until earlier requests of this connection have ended"));
    }
    for (i, file) in passed.files.iter().enumerate() {
        let kind = file.metadata().map_err(|e| Fault::invalid(e.to_string()).trying("look at a passed descriptor"))?;
        let kind = kind.file_type();
        if !(kind.is_file() || kind.is_fifo() || kind.is_block_device()) {
            let what = match kind {
                k if k.is_dir() => "a folder",
                k if k.is_char_device() => "a character device or terminal",
                k if k.is_socket() => "a socket",
                _ => "of an unknown kind",
            };
            return Err(Fault::invalid(format!("descriptor {i} is {what}"))
                .trying("take the passed files")
                .fix("pass a regular file, a pipe or a block device"));
        }
    }
    Ok(passed.files)
}

fn no_hello(why: &str) -> Fault {
    Fault::new(Kind::Protocol, why).trying("greet the client").fix("talk to this socket with bmictl")
}

fn mismatch(theirs: &Hello) -> Fault {
    let release: String = theirs.release.chars().filter(|c| !c.is_control()).take(32).collect();
    let ours = Hello::ours();
    let restart = if theirs.protocol > ours.protocol {
        "the daemon is the older one: install the client's release of bmid and restart bmid (nodes keep their disks)"
    } else {
        "the client is the older one: install the daemon's release of bmictl; if that is installed already, start the \
         program that holds this connection again"
    };
    let why = format!(
        "bmid {} speaks protocol {}, the client ({release}) protocol {}",
        ours.release, ours.protocol, theirs.protocol
    );
    Fault::new(Kind::Protocol, why).trying("take a request in").fix(format!("{restart}; `bmictl call` works meanwhile"))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
