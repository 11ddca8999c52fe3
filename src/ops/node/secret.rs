//! `node chap-secret`: the CHAP secret that no script carries is handed out once; a new one is made when it was lost.
//!
//! Plans and kept answers never hold an open secret: the daemon opens it while it sends the answer, notes that it did, and
//! does so for one asker alone.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::{Chap, ChapMode, Fault, Id, Kind, Node, Ref, Sealed, Secret, Shown, Target, Time, ViewExt};
use crate::ops::{Answering, Cx, Effect, Op, PartPlan, Plan, Reply, Right, Shape, Sheet};
use crate::rules::wanted::{self, NodeRecords};
use crate::step::{Account, SwapAccount};

/// Hand a node's CHAP secret out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct NodeChapSecret {
    /// Name or id
    pub node: Ref,
    /// Make a new secret first; a running machine goes on, and its firmware must be given the new one before it logs in again
    #[arg(long)]
    #[serde(default)]
    pub rotate: bool,
}

/// What a machine's firmware must be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChapSecretView {
    /// The node.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// Whether the boot script carries the secret.
    pub chap: ChapMode,
    /// Name the machine logs in with.
    pub initiator: String,
    /// Target's name.
    pub iqn: String,
    /// `ADDRESS:PORT` it logs in at.
    pub portal: String,
    /// LUN of the boot disk.
    pub lun: u8,
    /// Account it logs in with.
    pub chap_user: String,
    /// The account's secret; none when this answer is a repeat.
    pub chap_secret: Option<Secret>,
    /// When an out-of-band secret was handed out.
    pub chap_shown_at: Option<Time>,
    /// To whom.
    pub chap_shown_to: Option<String>,
}

/// Where an answer has room for a secret.
pub struct SecretSlot<'a> {
    /// Whose.
    pub node: Id,
    /// Whether the script carries it.
    pub mode: ChapMode,
    /// The secret.
    pub secret: &'a mut Option<Secret>,
    /// When it was handed out.
    pub shown_at: &'a mut Option<Time>,
    /// To whom.
    pub shown_to: &'a mut Option<String>,
}

impl Reply {
    /// Its room for a secret: none where no secret is handed out.
    pub fn secret_slot(&mut self) -> Option<SecretSlot<'_>> {
        match self {
            // The script has it in the other mode.
            Reply::NodeProvision(v) if v.chap == Some(ChapMode::OutOfBand) => Some(SecretSlot {
                node: v.id,
                mode: ChapMode::OutOfBand,
                secret: &mut v.chap_secret,
                shown_at: &mut v.chap_shown_at,
                shown_to: &mut v.chap_shown_to,
            }),
            Reply::NodeChapSecret(v) => Some(SecretSlot {
                node: v.id,
                mode: v.chap,
                secret: &mut v.chap_secret,
                shown_at: &mut v.chap_shown_at,
                shown_to: &mut v.chap_shown_to,
            }),
            _ => None,
        }
    }
}

impl SecretSlot<'_> {
    /// Notes when and to whom it was handed out.
    pub fn note(&mut self, shown: Option<&Shown>) {
        *self.shown_at = shown.map(|s| s.shown_at);
        *self.shown_to = shown.map(|s| s.shown_to.clone());
    }
}

/// An account with a fresh secret of 16 characters (RFC 7143 asks for at least 12).
pub fn fresh(cx: &mut Cx<'_>, node: Id, mode: ChapMode) -> Chap {
    drawn(cx.dice, cx.seal, node, mode)
}

/// The same, out of random bytes and what seals.
pub fn drawn(dice: &mut dyn FnMut(&mut [u8]), seal: &dyn Fn(&str) -> Sealed, node: Id, mode: ChapMode) -> Chap {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0u8; 16];
    dice(&mut bytes);
    let secret: String = bytes.iter().map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect();
    Chap { user: format!("node-{node}"), secret: seal(&secret), mode, shown: None }
}

/// Refuses what only a node's owner may see.
pub fn owners_alone(node: &Node, acting: &crate::model::Owner) -> Result<(), Fault> {
    if &node.owner == acting {
        return Ok(());
    }
    Err(Fault::new(Kind::Forbidden, format!("node {} belongs to project {}", node.name, node.owner))
        .fix(format!("only its owner may read its secret: --project {}", node.owner)))
}

fn account(chap: &Chap) -> Account {
    Account { user: chap.user.clone(), secret: chap.secret.clone() }
}

impl NodeChapSecret {
    fn records(&self, cx: &Cx<'_>) -> Result<(NodeRecords, Chap), Fault> {
        let records = cx.node_records(&self.node)?;
        owners_alone(&records.node, cx.project())?;
        let name = &records.node.name;
        match records.target.chap.clone() {
            Some(chap) => Ok((records, chap)),
            None => Err(Fault::conflict(format!("node {name} was provisioned without --chap and has no secret")).fix(
                format!(
                    "a node gets one when it is provisioned: `bmictl node deprovision {name} --keep-volume`, then \
                     `bmictl node provision {name} --volume {name} --chap=out-of-band` with its MAC and network"
                ),
            )),
        }
    }

    fn rotated(cx: &mut Cx<'_>, records: &NodeRecords, old: &Chap) -> PartPlan {
        let mut part = PartPlan::default();
        part.about("node", records.node.id, &records.node.name);
        part.uses.push(records.network.id);
        let chap = fresh(cx, records.node.id, old.mode);
        part.script.first(SwapAccount {
            network: records.target.network,
            tid: records.target.tid,
            iqn: records.target.iqn.clone(),
            initiator: records.target.initiator.clone(),
            to: account(&chap),
            from: account(old),
        });
        let target = Target { chap: Some(chap), ..records.target.clone() };
        if old.mode == ChapMode::InScript {
            part.script.then(NodeRecords { target: target.clone(), ..records.clone() }.entry(cx.defaults));
        }
        part.commit.push(target.into());
        part.row(
            Node { operation: Some(cx.operation), ..records.node.clone() },
            Node { updated_at: cx.now, operation: None, ..records.node.clone() },
        );
        part
    }
}

impl Op for NodeChapSecret {
    type Out = ChapSecretView;

    const SHEET: Sheet = Sheet {
        noun: "node",
        verb: "chap-secret",
        about: "Show a node's CHAP account once, for its firmware; or make a new secret",
        examples: &["node chap-secret web1", "node chap-secret web1 --rotate"],
        effect: Effect::Change,
        shape: Shape::One,
        right: Right::Member,
        columns: &["name", "initiator", "iqn", "portal", "lun", "chap_user", "chap_secret"],
        destroys: "",
    };

    fn plan(&self, cx: &mut Cx<'_>) -> Result<Plan, Fault> {
        let (records, chap) = self.records(cx)?;
        let name = &records.node.name;
        if self.rotate {
            super::must_be_attached(&records)?;
            return Ok(Self::rotated(cx, &records, &chap).into());
        }
        match (&chap.mode, &chap.shown) {
            (ChapMode::OutOfBand, Some(shown)) => Err(Fault::conflict(format!(
                "the CHAP secret of node {name} was shown to {} at {}, and it is shown once",
                shown.shown_to, shown.shown_at
            ))
            .trying(format!("show the CHAP secret of node {name}"))
            .fix(format!(
                "if it is lost: `bmictl node chap-secret {name} --rotate` makes a new one; a running machine goes on, and its \
                 firmware must be given the new one before it logs in again"
            ))),
            _ => Ok(Plan::already("node", records.node.id, name)),
        }
    }

    fn answer(&self, at: &Answering<'_>) -> Result<Vec<ChapSecretView>, Fault> {
        let mut out = Vec::new();
        for subject in at.subjects {
            let records = NodeRecords::load(at.view, at.view.must::<Node>(subject.id)?)?;
            let Some(chap) = &records.target.chap else { continue };
            out.push(ChapSecretView {
                id: records.node.id,
                name: records.node.name.to_string(),
                chap: chap.mode,
                initiator: records.target.initiator.clone(),
                iqn: records.target.iqn.clone(),
                portal: SocketAddr::new(wanted::portal(&records.network), at.defaults.port).to_string(),
                lun: records.boot()?.attachment.lun,
                chap_user: chap.user.clone(),
                chap_secret: None,
                chap_shown_at: chap.shown.as_ref().map(|s| s.shown_at),
                chap_shown_to: chap.shown.as_ref().map(|s| s.shown_to.clone()),
            });
        }
        Ok(out)
    }
}
