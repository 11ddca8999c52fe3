//! How a request comes into the run room and how its answer leaves it. The listening room speaks only in these words.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bmi::model::{Caller, Fault};
use bmi::ops::{Reply, Request};
use bmi::protocol::{Ended, Envelope, Progress};
use tokio::sync::{Notify, mpsc};

/// A request with everything that came with it.
pub struct Submission {
    /// Who asks: from the socket's peer.
    pub caller: Caller,
    /// What goes with it.
    pub envelope: Envelope,
    /// What is asked.
    pub request: Request,
    /// The descriptors passed with it, in order.
    pub files: Vec<File>,
    /// Where the answer goes: bounded, so that a slow reader holds its own answer up and nobody else's.
    pub out: mpsc::Sender<Out>,
}

/// A piece of an answer. Exactly one [`Out::End`] comes, last.
#[derive(Debug)]
pub enum Out {
    /// An item.
    Item(Box<Reply>),
    /// How far it is.
    Progress(Progress),
    /// A watch was too slow; so many items are missing.
    Gap(u64),
    /// It has ended.
    End(Result<Ended, Fault>),
}

/// A switch that ends an operation: looked at between steps and between chunks. Clones are the same switch.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<(AtomicBool, Notify)>);

impl Cancel {
    /// Turns it.
    pub fn cancel(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        self.0.1.notify_waiters();
    }

    /// Whether it was turned.
    pub fn is_cancelled(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Waits until it is turned.
    pub async fn cancelled(&self) {
        let turned = self.0.1.notified();
        tokio::pin!(turned);
        turned.as_mut().enable();
        if !self.is_cancelled() {
            turned.await;
        }
    }
}
