//! Handing a CHAP secret out: opened on its way into the one answer that carries it, never before and never again.
//!
//! That it was handed out is durable before it is sent, so that nobody gets it twice. Must never put an opened secret into
//! a row, the journal, an event or the log.

use std::collections::HashMap;
use std::time::Duration;

use bmi::model::record::under;
use bmi::model::{ChapMode, Event, Fault, Id, Index, Node, Secret, Shown, Subject, Target, ViewExt};
use bmi::ops::{Reply, Request};

use super::Engine;
use super::call::Submission;
use super::change::REPAIR;
use crate::store::Tx;

/// What became of one node's secret.
struct Given {
    secret: Option<Secret>,
    shown: Option<Shown>,
}

impl Engine {
    /// Fills secrets into an answer. `first`: this is the answer to whoever began the operation; anybody else learns when a
    /// secret was handed out and to whom.
    pub(super) async fn hand_out(
        &self,
        call: &Submission,
        operation: Id,
        mut items: Vec<Reply>,
        first: bool,
    ) -> Result<Vec<Reply>, Fault> {
        let nodes: Vec<Id> = items.iter_mut().filter_map(|i| i.secret_slot().map(|s| s.node)).collect();
        if nodes.is_empty() {
            return Ok(items);
        }
        let mut given = if first { self.open_for(call, operation, &nodes).await? } else { HashMap::new() };
        for item in &mut items {
            let Some(mut slot) = item.secret_slot() else { continue };
            let found = match given.remove(&slot.node) {
                Some(found) => found,
                None => Given { secret: None, shown: self.shown(slot.node)? },
            };
            *slot.secret = found.secret;
            slot.note(found.shown.as_ref());
        }
        Ok(items)
    }

    /// When a node's secret was handed out; nothing for a node that is gone.
    fn shown(&self, node: Id) -> Result<Option<Shown>, Fault> {
        let target = self.store.read(|view| view.by_key::<Target>(Index::TargetOf, &under(node, &[])))?;
        Ok(target.and_then(|t| t.chap).and_then(|c| c.shown))
    }

    /// Opens what was not handed out yet, and writes down that it is now.
    async fn open_for(&self, call: &Submission, operation: Id, nodes: &[Id]) -> Result<HashMap<Id, Given>, Fault> {
        // Whoever asks for a secret is told why there is none; a provisioned node's can be asked for later.
        let must = matches!(call.request, Request::NodeChapSecret(_));
        let holder = self.fresh_id();
        let mut held = Vec::new();
        for node in nodes {
            match self.hold(holder, *node).await {
                Ok(()) => held.push(*node),
                Err(busy) if must => return Err(busy),
                Err(_) => {}
            }
        }
        let opened = self
            .write("secret", |tx| {
                held.iter().map(|node| Ok((*node, self.open_one(tx, call, operation, *node)?))).collect()
            })
            .await;
        self.claims.release(holder);
        opened
    }

    /// Claims a node: the row that says so must not be overwritten by an operation that read it before.
    async fn hold(&self, holder: Id, node: Id) -> Result<(), Fault> {
        let mut tries = 20;
        loop {
            let Err(held) = self.claims.take(holder, "node.chap_secret", &[node], &[]) else { return Ok(()) };
            tries -= 1;
            if tries == 0 || held.method != REPAIR {
                return Err(held.into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn open_one(&self, tx: &mut Tx<'_>, call: &Submission, operation: Id, node: Id) -> Result<Given, Fault> {
        let nothing = Given { secret: None, shown: None };
        let Some(mut target) = tx.by_key::<Target>(Index::TargetOf, &under(node, &[]))? else { return Ok(nothing) };
        let Some(chap) = &mut target.chap else { return Ok(nothing) };
        if chap.mode == ChapMode::OutOfBand && chap.shown.is_some() {
            return Ok(Given { secret: None, shown: chap.shown.clone() });
        }
        let secret = Secret(self.drivers.unseal.open(&chap.secret)?);
        let now = self.now();
        if chap.mode == ChapMode::OutOfBand {
            chap.shown = Some(Shown { shown_at: now, shown_to: call.caller.name.clone() });
        }
        let shown = chap.shown.clone();
        tx.apply(&target.into())?;
        let name = tx.must::<Node>(node)?.name.to_string();
        tx.put_event(&Event {
            at: now,
            id: self.fresh_id(),
            operation: Some(operation),
            method: "node.chap_secret".to_owned(),
            caller: call.caller.name.clone(),
            project: call.caller.project.clone(),
            subjects: vec![Subject { noun: "node".to_owned(), id: node, name: name.clone() }],
            outcome: "noticed".to_owned(),
            message: format!("the CHAP secret of node {name} was shown"),
            took_ms: 0,
        })?;
        Ok(Given { secret: Some(secret), shown })
    }
}
