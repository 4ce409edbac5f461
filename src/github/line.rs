//! Sending within the budget: a call takes room, waits for a free slot, goes out, and what
//! its answer says of GitHub's limits is learned. Nothing is retried here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, IF_NONE_MATCH};
use http::{HeaderValue, Method, Request};
use octocrab::OctoBody;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::{Semaphore, watch};

use super::GitHubError;
use super::budget::{
    CONCURRENT_CALLS_MAX, CallBudget, CallClass, CredentialId, LimitHeaders, Outcome, Refusal,
    Shortage, Ticket,
};
use super::counters::{Counters, outcome};
use super::route::Route;
use super::wire::{Answer, CALL_TIMEOUT, NoAnswer, Wire};
use crate::clock::Clock;
use crate::fleet::time::Timestamp;

/// Letters of GitHub's message that an error carries.
const MESSAGE_CHARS_MAX: usize = 300;

/// Why a call that found no free slot in time was not sent.
const NO_SLOT: &str = "too many calls in flight";

/// One call, before anybody's name is put to it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) route: Route,
    pub(crate) class: CallClass,
    pub(crate) method: Method,
    /// Path and query, relative to the base address.
    pub(crate) path: String,
    pub(crate) body: Option<Vec<u8>>,
}

impl Call {
    pub(crate) fn get(route: Route, class: CallClass, path: String) -> Self {
        Self { route, class, method: Method::GET, path, body: None }
    }
}

/// In whose name a call is made.
#[derive(Clone)]
pub(crate) struct Bearer {
    pub(crate) token: SecretString,
    pub(crate) credential: CredentialId,
}

/// The wire, the budget and the counters that all calls share.
#[derive(Debug)]
pub(crate) struct Line {
    wire: Wire,
    budget: Mutex<CallBudget>,
    counters: Counters,
    slots: Semaphore,
    clock: Arc<dyn Clock>,
    /// Moves when the other replicas should be told at once of what was spent.
    spending: watch::Sender<u64>,
}

impl Line {
    pub(crate) fn new(wire: Wire, clock: Arc<dyn Clock>) -> Self {
        Self {
            wire,
            budget: Mutex::default(),
            counters: Counters::default(),
            slots: Semaphore::new(CONCURRENT_CALLS_MAX),
            clock,
            spending: watch::Sender::new(0),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn spending(&self) -> watch::Receiver<u64> {
        self.spending.subscribe()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The budget; never held across an await.
    pub(crate) fn budget(&self) -> MutexGuard<'_, CallBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a call once. Any status but a limit's refusal is an answer.
    pub(crate) async fn send(
        &self,
        call: &Call,
        bearer: &Bearer,
        etag: Option<&str>,
    ) -> Result<Answer, GitHubError> {
        let reserved = self.budget().reserve(call.class, bearer.credential, self.now());
        let ticket = reserved.map_err(|shortage| self.shed(call.route, shortage.reason()))?;
        let mut room = Room { line: self, ticket: Some(ticket), sent: false };
        // The budget bounds who waits here: never more than one minute's points.
        let slot = tokio::time::timeout(CALL_TIMEOUT, self.slots.acquire()).await;
        let Ok(_slot) = slot else { return Err(self.shed(call.route, NO_SLOT)) };
        let blocked = self.budget().check_block(self.now());
        blocked.map_err(|shortage| self.shed(call.route, shortage.reason()))?;
        let request = request(call, bearer, etag)?;
        room.sent = true;
        match self.wire.send(request).await {
            Ok(answer) => self.land(call.route, room, answer),
            Err(failure) => {
                drop(room);
                Err(self.lost(call.route, failure))
            }
        }
    }

    fn land(
        &self,
        route: Route,
        mut room: Room<'_>,
        answer: Answer,
    ) -> Result<Answer, GitHubError> {
        let now = self.now();
        let headers = LimitHeaders::read(&answer.headers, now);
        let refusal = Refusal::of(answer.status, &headers, &message(&answer));
        let resets_at = headers.resets_at;
        let result = match refusal {
            None => Outcome::Answered(headers),
            Some(refusal) => Outcome::Limited(headers, refusal),
        };
        let mut budget = self.budget();
        if let Some(ticket) = room.ticket.take() {
            budget.settle(&ticket, &result, now);
        }
        let blocked_until = budget.check_block(now).err();
        if budget.is_urgent_to_share() {
            self.spending.send_modify(|count| *count += 1);
        }
        drop(budget);
        if refusal.is_none() {
            self.counters.count(route.operation, outcome(answer.status));
            return Ok(answer);
        }
        self.counters.count(route.operation, "429");
        let until = match blocked_until {
            Some(Shortage::Blocked { until }) => until,
            _ => resets_at.unwrap_or(now),
        };
        Err(GitHubError::Limited { route: route.name, retry_after: until.since(now) })
    }

    fn shed(&self, route: Route, reason: &'static str) -> GitHubError {
        self.counters.count(route.operation, "shed");
        GitHubError::Shed { route: route.name, reason }
    }

    fn lost(&self, route: Route, failure: NoAnswer) -> GitHubError {
        let (outcome, error) = match failure {
            NoAnswer::Timeout => {
                ("timeout", GitHubError::Timeout { route: route.name, timeout_ms: CALL_TIMEOUT_MS })
            }
            NoAnswer::Broken(source) => {
                ("error", GitHubError::Unreachable { route: route.name, source })
            }
            NoAnswer::TooLarge(source) => {
                ("error", GitHubError::Answer { route: route.name, source })
            }
        };
        self.counters.count(route.operation, outcome);
        error
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a timeout of seconds fits")]
const CALL_TIMEOUT_MS: u64 = CALL_TIMEOUT.as_millis() as u64;

/// Room taken in the budget. A call that is dropped on its way may have been counted by
/// GitHub, so it is counted here too.
struct Room<'a> {
    line: &'a Line,
    ticket: Option<Ticket>,
    sent: bool,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut budget = self.line.budget();
        if self.sent {
            budget.settle(&ticket, &Outcome::Lost, self.line.now());
        } else {
            budget.cancel(&ticket);
        }
    }
}

fn request(
    call: &Call,
    bearer: &Bearer,
    etag: Option<&str>,
) -> Result<Request<OctoBody>, GitHubError> {
    let unsendable = |source: http::Error| GitHubError::Unreachable {
        route: call.route.name,
        source: source.into(),
    };
    let header = format!("Bearer {}", bearer.token.expose_secret());
    let mut authorization =
        HeaderValue::from_str(&header).map_err(|source| unsendable(source.into()))?;
    authorization.set_sensitive(true);
    let mut builder = Request::builder()
        .method(call.method.clone())
        .uri(&call.path)
        .header(AUTHORIZATION, authorization);
    if let Some(etag) = etag {
        builder = builder.header(IF_NONE_MATCH, etag);
    }
    match &call.body {
        None => builder.body(OctoBody::empty()),
        Some(body) => {
            builder.header(CONTENT_TYPE, "application/json").body(OctoBody::from(body.clone()))
        }
    }
    .map_err(unsendable)
}

/// What an answer of another status than the wanted ones comes to.
pub(crate) fn refused(route: Route, answer: &Answer) -> GitHubError {
    GitHubError::Refused { route: route.name, status: answer.status, message: message(answer) }
}

/// An answer that could not be read.
pub(crate) fn unreadable(
    route: Route,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> GitHubError {
    GitHubError::Answer { route: route.name, source: source.into() }
}

/// GitHub's message, short and on one line; empty for an answer that is no error.
pub(crate) fn message(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    if answer.status < 400 {
        return String::new();
    }
    let text = match serde_json::from_slice::<Message>(&answer.body) {
        Ok(answer) => answer.message,
        Err(_) => String::from_utf8_lossy(&answer.body).into_owned(),
    };
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(MESSAGE_CHARS_MAX)
        .collect()
}

/// How long to wait before asking again for what just failed to come, when the failure
/// itself names no time.
pub(crate) const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);
