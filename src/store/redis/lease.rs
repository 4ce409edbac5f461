//! Leases in the store's answers, and the fence of writes that need one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Script, ScriptInvocation, Value};

use super::RedisStore;
use super::codec::{items, text};
use super::link::Way;
use crate::election::{Agency, Leadership};
use crate::fleet::id::{ReplicaId, Term};
use crate::store::{Lease, LeaseKey, StoreError};

/// What a fenced write must still hold.
#[derive(Clone, Copy)]
pub(super) struct Fence {
    lease: LeaseKey,
    replica: ReplicaId,
    term: Term,
}

impl Fence {
    pub(super) fn of_leader(leader: &Leadership) -> Self {
        Self { lease: LeaseKey::Leader, replica: leader.replica(), term: leader.term() }
    }

    pub(super) fn of_agent(agent: &Agency) -> Self {
        Self { lease: LeaseKey::Agent(agent.host()), replica: agent.replica(), term: agent.term() }
    }
}

impl RedisStore {
    /// A fenced script with the keys and arguments of the fence, and more keys.
    pub(super) fn fenced<'a>(
        &self,
        script: &'a Script,
        fence: Fence,
        keys: &[&str],
    ) -> ScriptInvocation<'a> {
        let mut call = script.key(self.keys.lease(fence.lease));
        call.key(self.keys.term(fence.lease));
        for name in keys {
            call.key(self.keys.named(name));
        }
        call.arg(fence.replica.to_string()).arg(fence.term.0);
        call
    }

    /// The same for a write that replaces a whole record: numbered, so that one sent before
    /// it and still on its way changes nothing after it.
    pub(super) fn ordered<'a>(
        &self,
        script: &'a Script,
        fence: Fence,
        kind: &'static str,
        keys: &[&str],
    ) -> ScriptInvocation<'a> {
        let mut call = self.fenced(script, fence, keys);
        call.arg(kind).arg(self.writes.fetch_add(1, Ordering::Relaxed) + 1);
        call
    }

    pub(super) async fn write_fenced(
        &self,
        action: &'static str,
        fence: Fence,
        script: &ScriptInvocation<'_>,
    ) -> Result<Value, StoreError> {
        let answer = self.run(Way::Write, action, script).await?;
        match items(&answer) {
            [word, term] if text(word).as_deref() == Some("FENCED") => {
                Err(StoreError::Superseded { ours: fence.term, current: self.term_of(term)? })
            }
            [word] if text(word).as_deref() == Some("LATE") => {
                let problem = "a later write of the same kind was there before".to_owned();
                Err(StoreError::Refused { action, problem })
            }
            _ => Ok(answer),
        }
    }

    fn term_of(&self, value: &Value) -> Result<Term, StoreError> {
        let term = text(value).and_then(|text| text.parse().ok()).map(Term);
        term.ok_or_else(|| self.unreadable("lease", "its term is no number"))
    }

    pub(super) fn lease_of(&self, answer: &Value) -> Result<Lease, StoreError> {
        let answer = items(answer);
        let word = answer.first().and_then(text);
        match (word.as_deref(), answer) {
            (Some("OURS"), [_, term]) => Ok(Lease::Ours { term: self.term_of(term)? }),
            (Some("HELD"), [_, replica, term, left]) => {
                let replica = text(replica).and_then(|replica| replica.parse().ok());
                let left = text(left).and_then(|left| left.parse().ok()).unwrap_or_default();
                Ok(Lease::HeldBy {
                    replica: replica
                        .ok_or_else(|| self.unreadable("lease", "its holder is no replica"))?,
                    term: self.term_of(term)?,
                    expires_in: Duration::from_millis(left),
                })
            }
            (Some("ABSENT"), _) => Ok(Lease::Absent),
            _ => Err(self.unreadable("lease", "the answer has another shape")),
        }
    }
}
