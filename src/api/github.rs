//! What GitHub lets us know and spend: a part of the status.

use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::reading::Reading;
use super::shape::{At, at};
use crate::github::Verdict;

/// What GitHub lets us know and spend.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct GitHubState {
    /// Registrations that can be made now without crossing the secondary limit.
    pub mints_now: u32,
    /// The primary limit, when GitHub has told it.
    pub remaining: Option<u64>,
    pub limit: Option<u64>,
    pub resets_at: Option<At>,
    /// GitHub told us to wait until then.
    pub blocked_until: Option<At>,
    pub points_this_minute: u32,
    pub scopes: Vec<ScopeBody>,
    /// The start-up check, row by row.
    pub checks: Vec<CheckBody>,
    /// Why GitHub could not be asked at start, if so.
    pub unreachable: Option<String>,
}

/// A scope's runner list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ScopeBody {
    pub scope: String,
    pub read_at: Option<At>,
    pub age_seconds: Option<u64>,
    pub unread_since: Option<At>,
    pub error: Option<String>,
    /// Registrations that are not of this cluster.
    pub foreign: u32,
}

/// One row of the start-up check.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CheckBody {
    pub what: String,
    /// `proven`, `refused`, `unknown_until_use` or `unreachable`.
    pub verdict: &'static str,
    /// The fix, or why it is not known.
    pub detail: Option<String>,
}

/// As the leader last knew it; while nobody has told, as this replica knows it.
#[must_use]
pub fn github(state: &ApiState, reading: &Reading) -> GitHubState {
    let budget = &reading.view().budget;
    let readiness = state.handle.readiness.borrow();
    let (checks, unreachable) = match &readiness.github {
        Some(Ok(preflight)) => (preflight.checks.clone(), None),
        Some(Err(why)) => (Vec::new(), Some(why.clone())),
        None => (Vec::new(), None),
    };
    let scopes = reading.view().ledger.registrations.scopes().iter();
    GitHubState {
        mints_now: budget.mints_now,
        remaining: budget.remaining,
        limit: budget.limit,
        resets_at: at(budget.resets_at),
        blocked_until: at(budget.blocked_until),
        points_this_minute: budget.points_this_minute,
        scopes: scopes
            .map(|(scope, known)| ScopeBody {
                scope: scope.to_string(),
                read_at: at(known.read_at),
                age_seconds: known.read_at.map(|read| reading.now.since(read).as_secs()),
                unread_since: at(known.unread_since),
                error: known.error.clone(),
                foreign: known.foreign,
            })
            .collect(),
        checks: checks
            .into_iter()
            .map(|check| {
                let (verdict, detail) = match check.verdict {
                    Verdict::Proven => ("proven", None),
                    Verdict::Refused { fix } => ("refused", Some(fix)),
                    Verdict::UnknownUntilUse { why } => ("unknown_until_use", Some(why)),
                    Verdict::Unreachable { why } => ("unreachable", Some(why)),
                };
                CheckBody { what: check.what, verdict, detail }
            })
            .collect(),
        unreachable,
    }
}
