//! Who is at the other end: from the socket's credentials, never from anything the client says.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bmi::model::{Caller, Owner};
use nix::unistd::{Group, Uid, User};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::ffi;

/// Members of it are admins.
pub const ADMIN_GROUP: &str = "bmi-admin";
/// The account database may be slow (a directory server): answers of it are kept so long.
const KEEP: Duration = Duration::from_secs(30);
/// Longest wait for its first answer; without one a caller has no name and is in no admin group.
const PATIENCE: Duration = Duration::from_secs(5);
/// Accounts kept.
const KEEP_MOST: usize = 1024;

/// What the account database says about a user id.
#[derive(Clone)]
struct Account {
    name: Option<String>,
    admin_group: Option<u32>,
    at: Instant,
}

/// Turns connections into callers.
#[derive(Default)]
pub(super) struct Peers {
    known: Mutex<HashMap<u32, Account>>,
}

impl Peers {
    /// The caller behind a connection.
    pub(super) async fn caller(self: &Arc<Peers>, stream: &UnixStream) -> io::Result<Caller> {
        let cred = stream.peer_cred()?;
        let groups = ffi::peer_groups(stream.as_fd())?;
        let account = self.account(cred.uid()).await;
        let in_group = account.admin_group.is_some_and(|g| g == cred.gid() || groups.contains(&g));
        Ok(judge(cred.uid(), account.name, in_group))
    }

    /// What is known is used at once, and asked for again behind if it is old: the groups that decide are the kernel's.
    async fn account(self: &Arc<Peers>, uid: u32) -> Account {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&uid).cloned();
        match known {
            Some(account) if account.at.elapsed() < KEEP => account,
            Some(account) => {
                drop(self.ask(uid));
                account
            }
            None => match timeout(PATIENCE, self.ask(uid)).await {
                Ok(Ok(account)) => account,
                _ => Account { name: None, admin_group: None, at: Instant::now() },
            },
        }
    }

    fn ask(self: &Arc<Peers>, uid: u32) -> JoinHandle<Account> {
        let peers = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let name = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|u| u.name);
            let admin_group = Group::from_name(ADMIN_GROUP).ok().flatten().map(|g| g.gid.as_raw());
            let account = Account { name, admin_group, at: Instant::now() };
            let mut known = peers.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= KEEP_MOST {
                known.clear();
            }
            known.insert(uid, account.clone());
            account
        })
    }
}

fn judge(uid: u32, name: Option<String>, in_admin_group: bool) -> Caller {
    let admin = uid == 0 || in_admin_group;
    let unnamed = format!("uid {uid}");
    let name = name.unwrap_or_else(|| unnamed.clone());
    let project = if admin {
        Owner::default_project()
    } else {
        // An account may be called `default`: the admins' project is not its own for that.
        let own = name.parse().ok().filter(|p| *p != Owner::default_project());
        own.or_else(|| unnamed.parse().ok()).unwrap_or_else(Owner::default_project)
    };
    Caller { uid: Some(uid), name, admin, project }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_members_of_the_admin_group_act_for_the_default_project() {
        for caller in [judge(0, Some("root".into()), false), judge(7, Some("ann".into()), true), judge(8, None, true)] {
            assert!(caller.admin);
            assert_eq!(caller.project, Owner::default_project());
        }
    }

    #[test]
    fn others_act_for_a_project_of_their_own_whatever_they_are_called() {
        let ann = judge(7, Some("ann".into()), false);
        assert!((!ann.admin, ann.project.as_str(), ann.name.as_str()) == (true, "ann", "ann"));
        assert_eq!(judge(1234, None, false).name, "uid 1234");
        assert_eq!(judge(1234, None, false).project.as_str(), "uid 1234");
        assert_eq!(judge(9, Some("default".into()), false).project.as_str(), "uid 9");
        assert_eq!(judge(9, Some("DOM/ann".into()), false).project.as_str(), "uid 9");
    }
}
