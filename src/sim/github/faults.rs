//! Faults that a test or a demonstration switches on, by route.

use serde::{Deserialize, Serialize};

use crate::sim::random::Random;

/// Faults active at one time; more is a mistake of the caller.
pub(crate) const FAULTS_MAX: usize = 1_000;
/// A delay may not be longer than the longest time-out it could test.
const LATENCY_MS_MAX: u64 = 600_000;

/// One fault, as `POST /_sim/faults` takes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// `<METHOD> <route template>`, `<METHOD> *`, or `*`.
    pub route: String,
    /// Answer this status instead.
    pub status: Option<u16>,
    /// Answer this much later, milliseconds.
    pub latency_ms: Option<u64>,
    /// Hit only this share of the requests; absent: all.
    pub probability: Option<f64>,
    /// Hit only this many requests, then be gone; absent: for ever.
    pub count: Option<u64>,
    /// Seconds for a `retry-after` header on the answer.
    pub retry_after: Option<u64>,
    /// Runner lists show what was true this many seconds ago.
    pub stale_seconds: Option<u64>,
    /// The effect happens, the connection closes without an answer.
    pub drop_response: bool,
    /// The body ends in the middle and the connection closes.
    pub truncate: bool,
    /// The body is not JSON.
    pub corrupt: bool,
    /// Message of the error body that `status` answers.
    pub message: Option<String>,
}

/// What hits one request, all matching faults together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) status: Option<u16>,
    pub(crate) latency_ms: u64,
    pub(crate) retry_after: Option<u64>,
    pub(crate) stale_seconds: Option<u64>,
    pub(crate) drop_response: bool,
    pub(crate) truncate: bool,
    pub(crate) corrupt: bool,
    pub(crate) message: Option<String>,
}

/// The active faults, in the order they were added.
#[derive(Default)]
pub(crate) struct Faults {
    active: Vec<Fault>,
}

impl Faults {
    /// Adds a fault; false when there are too many.
    pub(crate) fn add(&mut self, mut fault: Fault) -> bool {
        fault.latency_ms = fault.latency_ms.map(|ms| ms.min(LATENCY_MS_MAX));
        let room = self.active.len() < FAULTS_MAX;
        if room {
            self.active.push(fault);
        }
        room
    }

    pub(crate) fn clear(&mut self) {
        self.active.clear();
    }

    pub(crate) fn active(&self) -> &[Fault] {
        &self.active
    }

    /// What hits this request, counting it down.
    pub(crate) fn hit(&mut self, method: &str, template: &str, random: &mut Random) -> Hit {
        let mut hit = Hit::default();
        for fault in &mut self.active {
            let struck = matches(&fault.route, method, template)
                && random.chance(fault.probability.unwrap_or(1.0));
            if !struck {
                continue;
            }
            fault.count = fault.count.map(|left| left.saturating_sub(1));
            hit.status = fault.status.or(hit.status);
            hit.latency_ms += fault.latency_ms.unwrap_or(0);
            hit.retry_after = fault.retry_after.or(hit.retry_after);
            hit.stale_seconds = fault.stale_seconds.or(hit.stale_seconds);
            hit.drop_response |= fault.drop_response;
            hit.truncate |= fault.truncate;
            hit.corrupt |= fault.corrupt;
            hit.message = fault.message.clone().or(hit.message);
        }
        self.active.retain(|fault| fault.count != Some(0));
        hit
    }
}

/// Whether a fault's route covers a request.
fn matches(route: &str, method: &str, template: &str) -> bool {
    let route = route.trim();
    if route == "*" || route.is_empty() {
        return true;
    }
    match route.split_once(' ') {
        Some((wanted, "*")) => wanted.eq_ignore_ascii_case(method),
        Some((wanted, path)) => wanted.eq_ignore_ascii_case(method) && path == template,
        None => route == template,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_fault_hits_that_often_and_is_gone() {
        let mut faults = Faults::default();
        let mut random = Random::seeded(1);
        faults.add(Fault {
            route: "GET /meta".into(),
            status: Some(502),
            count: Some(2),
            ..Fault::default()
        });
        assert_eq!(faults.hit("POST", "/meta", &mut random), Hit::default());
        assert_eq!(faults.hit("GET", "/user", &mut random), Hit::default());
        assert_eq!(faults.hit("GET", "/meta", &mut random).status, Some(502));
        assert_eq!(faults.hit("GET", "/meta", &mut random).status, Some(502));
        assert_eq!(faults.hit("GET", "/meta", &mut random), Hit::default());
        assert!(faults.active().is_empty());
    }

    #[test]
    fn routes_match_by_method_star_or_template() {
        assert!(matches("*", "GET", "/a"));
        assert!(matches("get *", "GET", "/a"));
        assert!(!matches("POST *", "GET", "/a"));
        assert!(matches("/a", "GET", "/a"));
        assert!(!matches("GET /b", "GET", "/a"));
    }
}
