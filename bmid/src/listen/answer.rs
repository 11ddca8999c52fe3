//! An answer on its way to the client: pieces from the run room become frames, in the form the request came in.
//!
//! Ends with the request, or at once when the connection does: then nobody takes pieces any more, and the operation goes on
//! without a listener.

use bmi::model::Fault;
use bmi::ops::Bare;
use bmi::protocol::{Ended, ServerFrame};
use tokio::sync::mpsc;

use super::raw;
use super::send::{Closed, Sender};
use crate::run::{Cancel, Out};

/// How a request came, and so how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As a frame of its own.
    Typed,
    /// As a raw call.
    Raw,
}

/// How request `id` ended, as a frame.
pub(super) fn end(form: Form, id: u64, end: Result<Ended, Fault>) -> ServerFrame {
    match form {
        Form::Typed => ServerFrame::End { id, end },
        Form::Raw => ServerFrame::CallEnd { id, error: end.err().map(|fault| raw::error(&fault)) },
    }
}

/// Hands pieces on until the last, which it gives back unsent: the request is closed first. None: the connection is over.
pub(super) async fn forward(
    form: Form,
    id: u64,
    pieces: &mut mpsc::Receiver<Out>,
    to: &Sender,
    gone: &Cancel,
) -> Option<Result<Ended, Fault>> {
    loop {
        let piece = tokio::select! {
            biased;
            () = gone.cancelled() => return None,
            piece = pieces.recv() => piece,
        };
        let sent = match piece {
            None => return Some(Err(Fault::internal("the operation's answer broke off"))),
            Some(Out::End(end)) => return Some(end),
            Some(Out::Item(item)) if form == Form::Raw => match serde_json::to_string(&Bare(&item)) {
                Ok(text) => to.send(&ServerFrame::Json { id, text }).await,
                Err(e) => Ok(Err(Fault::internal(format!("an item has no JSON form: {e}")))),
            },
            Some(Out::Item(item)) => to.send(&ServerFrame::Item { id, item: *item }).await,
            // A raw call has only items and an end.
            Some(Out::Progress(_) | Out::Gap(_)) if form == Form::Raw => continue,
            Some(Out::Progress(progress)) => to.send(&ServerFrame::Progress { id, progress }).await,
            Some(Out::Gap(missed)) => to.send(&ServerFrame::Gap { id, missed }).await,
        };
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => return Some(Err(fault)),
            Err(Closed) => return None,
        }
    }
}
