//! `workflow_job` webhooks: what is to be delivered, and its signature.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::sync::Notify;

use super::bodies;
use super::ids::JobId;
use super::state::World;

/// Hooks one model delivers to.
pub(crate) const HOOKS_MAX: usize = 16;
/// Deliveries waiting to be sent; above that the oldest is dropped and counted.
const WAITING_MAX: usize = 20_000;
/// Deliveries remembered for `/_sim/state`.
const LOG_MAX: usize = 1_000;

/// A webhook to deliver to, as `POST /_sim/webhooks` takes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// Where deliveries go.
    pub url: String,
    /// Key of the signature; absent: unsigned.
    #[serde(default, deserialize_with = "super::options::optional_secret")]
    pub secret: Option<SecretString>,
    /// Deliver everything twice, with the same GUID.
    #[serde(default)]
    pub duplicate: bool,
    /// Deliver in random order.
    #[serde(default)]
    pub shuffle: bool,
}

/// What happened to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Queued,
    InProgress,
    Completed,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

/// One delivery that waits.
#[derive(Clone)]
pub(crate) struct Delivery {
    pub(crate) hook_id: u64,
    /// The organisation the hook belongs to.
    pub(crate) target_id: u64,
    pub(crate) url: String,
    pub(crate) guid: String,
    pub(crate) action: &'static str,
    pub(crate) signature: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Delivery {{ guid: {}, action: {} }}", self.guid, self.action)
    }
}

/// A delivery that was tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivered {
    /// `X-GitHub-Delivery`.
    pub guid: String,
    /// The action of the payload.
    pub action: String,
    /// The status answered; absent when there was no answer within ten seconds.
    pub status: Option<u16>,
}

struct Hook {
    id: u64,
    spec: NewWebhook,
}

/// Hooks, waiting deliveries and what became of the last ones.
#[derive(Default)]
pub(crate) struct Outbox {
    hooks: Vec<Hook>,
    waiting: VecDeque<Delivery>,
    pub(crate) log: VecDeque<Delivered>,
    pub(crate) dropped: u64,
    /// Woken when a delivery waits.
    pub(crate) wake: Arc<Notify>,
}

impl Outbox {
    pub(crate) fn note(&mut self, delivered: Delivered) {
        self.log.push_back(delivered);
        if self.log.len() > LOG_MAX {
            self.log.pop_front();
        }
    }
}

impl World {
    /// Delivers to this address from now on; `None` when there are too many.
    pub(crate) fn add_webhook(&mut self, spec: NewWebhook) -> Option<u64> {
        if self.outbox.hooks.len() >= HOOKS_MAX {
            return None;
        }
        let id = self.next_id();
        self.outbox.hooks.push(Hook { id, spec });
        Some(id)
    }

    pub(crate) fn clear_webhooks(&mut self) {
        self.outbox.hooks.clear();
        self.outbox.waiting.clear();
    }

    /// Puts a job's event into the outbox, once for each hook.
    pub(crate) fn emit(&mut self, job: JobId, action: Action) {
        if self.outbox.hooks.is_empty() {
            return;
        }
        let Some(payload) = self.payload(job, action) else { return };
        let body = payload.to_string().into_bytes();
        let target_id = payload["organization"]["id"].as_u64().unwrap_or_default();
        for index in 0..self.outbox.hooks.len() {
            let guid = self.id_random.uuid();
            let Some(hook) = self.outbox.hooks.get(index) else { return };
            let delivery = Delivery {
                hook_id: hook.id,
                target_id,
                url: hook.spec.url.clone(),
                guid,
                action: action.word(),
                signature: hook.spec.secret.as_ref().map(|secret| sign(secret, &body)),
                body: body.clone(),
            };
            let (duplicate, shuffle) = (hook.spec.duplicate, hook.spec.shuffle);
            for _ in 0..=usize::from(duplicate) {
                let place = self.outbox.waiting.len();
                let place = if shuffle { self.random.below(place + 1) } else { place };
                self.outbox.waiting.insert(place, delivery.clone());
            }
        }
        while self.outbox.waiting.len() > WAITING_MAX {
            self.outbox.waiting.pop_front();
            self.outbox.dropped += 1;
        }
        self.outbox.wake.notify_one();
    }

    /// The next delivery to send.
    pub(crate) fn next_delivery(&mut self) -> Option<Delivery> {
        self.outbox.waiting.pop_front()
    }

    fn payload(&self, job: JobId, action: Action) -> Option<Value> {
        let job = self.jobs.get(&job)?;
        let repo = self.repos.get(&job.repo)?;
        let places = bodies::Places::new(&self.base_url);
        let mut body = json!({
            "action": action.word(),
            "workflow_job": bodies::job(&places, self, job),
            "repository": bodies::repository(&places, self, repo),
            "sender": bodies::user(&places, "octo", 606, "User"),
        });
        if let Some(org) = self.org(&repo.owner) {
            body["organization"] = json!({"login": org.login, "id": org.id});
        }
        if let Some(app) = &self.accounts.app
            && let Some(installation) =
                app.installations.iter().find(|i| i.account.eq_ignore_ascii_case(&repo.owner))
        {
            body["installation"] = json!({"id": installation.id, "node_id": "MDIzOk"});
        }
        Some(body)
    }
}

/// `X-Hub-Signature-256` of a body.
#[must_use]
pub fn sign(secret: &SecretString, body: &[u8]) -> String {
    // A key of any length is allowed, so this never fails.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()) else {
        return String::new();
    };
    mac.update(body);
    format!("sha256={}", hex(&mac.finalize().into_bytes()))
}

/// Lower-case hexadecimal, as GitHub writes signatures.
pub(crate) fn hex(bytes: &[u8]) -> String {
    // Every answer's `ETag` is made here.
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let halves = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    halves.map(|half| char::from(DIGITS[usize::from(half)])).collect()
}
