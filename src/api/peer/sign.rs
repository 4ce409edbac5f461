//! Signatures of forwarded requests, and the memory that no signature is used twice.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::TIMESTAMP_TOLERANCE;
use crate::fleet::id::ReplicaId;
use crate::fleet::time::Timestamp;
use crate::loops::announce::hex;
use crate::telemetry::metrics::PeerRequest;

/// Changes when what is signed changes: two versions then refuse each other in words
/// instead of in riddles.
const CONTEXT: &str = "runner-orchestrator peer request 1";
/// Nonces remembered: 300 forwarded requests a second for a minute. Only who knows the
/// secret adds one.
const NONCES_MAX: usize = 20_000;

/// A number used once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Nonce(Uuid);

impl Nonce {
    /// A new one.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::new_v4())
    }

    /// As it stands in the header: 32 hexadecimal digits in lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let nonce = Self(Uuid::try_parse(text).ok()?);
        // One nonce has one spelling, or a replay could be spelt anew.
        (nonce.text() == text).then_some(nonce)
    }

    /// The header's value.
    #[must_use]
    pub fn text(self) -> String {
        self.0.simple().to_string()
    }
}

/// Everything a signature vouches for.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The process it is meant for: it cannot be replayed to another one, or to the next
    /// start of the same one, whose memory of nonces is empty.
    pub to: ReplicaId,
    pub at: Timestamp,
    pub nonce: Nonce,
    pub body: &'a [u8],
}

impl Signed<'_> {
    /// The signature as hexadecimal digits; `None` only if HMAC took no such key.
    #[must_use]
    pub fn signature(&self, secret: &SecretString) -> Option<String> {
        self.mac(secret).map(|mac| hex(&mac))
    }

    /// Compares in constant time: how much of a guess was right does not leak.
    #[must_use]
    pub fn is_signed_by(&self, secret: &SecretString, given: &str) -> bool {
        let Some(expected) = self.signature(secret) else { return false };
        expected.as_bytes().ct_eq(given.as_bytes()).into()
    }

    fn mac(&self, secret: &SecretString) -> Option<[u8; 32]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
        let body = hex(&Sha256::digest(self.body));
        let (to, at, nonce) = (self.to.to_string(), self.at.0.to_string(), self.nonce.text());
        // None of the parts can hold a line break, so none can pass for another.
        for part in [CONTEXT, self.method, self.target, &to, &at, &nonce, &body] {
            mac.update(part.as_bytes());
            mac.update(b"\n");
        }
        Some(mac.finalize().into_bytes().into())
    }
}

/// Nonces seen, for as long as their signatures could be valid.
#[derive(Debug, Default)]
pub struct Nonces(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    nonces: BTreeSet<Nonce>,
    /// In the order they came.
    order: VecDeque<(Timestamp, Nonce)>,
}

impl Nonces {
    /// Takes a nonce that was not used before.
    ///
    /// # Errors
    /// It was, or so many were used lately that one more could not be remembered.
    pub fn admit(&self, nonce: Nonce, now: Timestamp) -> Result<(), (PeerRequest, &'static str)> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { nonces, order } = &mut *seen;
        // A signature may be that much ahead of time and is then valid twice as long.
        while order.front().is_some_and(|(at, _)| now.since(*at) > 2 * TIMESTAMP_TOLERANCE) {
            if let Some((_, old)) = order.pop_front() {
                nonces.remove(&old);
            }
        }
        if nonces.contains(&nonce) {
            return Err((PeerRequest::Replayed, "the signature has been used before"));
        }
        if nonces.len() >= NONCES_MAX {
            return Err((PeerRequest::Crowded, "too many requests of other replicas in a minute"));
        }
        nonces.insert(nonce);
        order.push_back((now, nonce));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[test]
    fn a_signature_vouches_for_every_part() {
        let base = Signed {
            method: "GET",
            target: "/api/v1/runners/1/logs?tail=1",
            to: ReplicaId(Uuid::from_u128(1)),
            at: Timestamp(1_000),
            nonce: Nonce(Uuid::from_u128(2)),
            body: b"",
        };
        let key = secret("a-secret-of-the-cluster");
        let signature = base.signature(&key).unwrap();
        assert_eq!(signature.len(), 64);
        assert!(base.is_signed_by(&key, &signature));
        for other in [
            Signed { method: "DELETE", ..base },
            Signed { target: "/api/v1/runners/1/logs?tail=2", ..base },
            Signed { to: ReplicaId(Uuid::from_u128(3)), ..base },
            Signed { at: Timestamp(1_001), ..base },
            Signed { nonce: Nonce(Uuid::from_u128(3)), ..base },
            Signed { body: b" ", ..base },
        ] {
            assert!(!other.is_signed_by(&key, &signature), "{other:?}");
        }
        assert!(!base.is_signed_by(&secret("another-secret"), &signature));
        for wrong in ["", "0", &signature[1..], &signature.to_uppercase()] {
            assert!(!base.is_signed_by(&key, wrong), "{wrong}");
        }
    }

    #[test]
    fn a_nonce_is_taken_once_and_forgotten_when_its_signature_is_too_old() {
        let nonces = Nonces::default();
        let nonce = |n| Nonce(Uuid::from_u128(n));
        let outcome = |it: Result<(), (PeerRequest, _)>| it.err().map(|(outcome, _)| outcome);
        let start = Timestamp(1_000_000);
        assert_eq!(outcome(nonces.admit(nonce(1), start)), None);
        assert_eq!(outcome(nonces.admit(nonce(1), start)), Some(PeerRequest::Replayed));
        let edge = start + 2 * TIMESTAMP_TOLERANCE;
        assert_eq!(outcome(nonces.admit(nonce(1), edge)), Some(PeerRequest::Replayed));
        let later = edge + Duration::from_millis(1);
        assert_eq!(outcome(nonces.admit(nonce(1), later)), None);
        assert_eq!(nonces.0.lock().unwrap().nonces.len(), 1);
    }

    #[test]
    fn the_memory_of_nonces_is_bounded_and_fails_closed() {
        let nonces = Nonces::default();
        let now = Timestamp(1_000_000);
        for n in 0..NONCES_MAX {
            nonces.admit(Nonce(Uuid::from_u128(n as u128)), now).unwrap();
        }
        let one_more = nonces.admit(Nonce(Uuid::from_u128(u128::MAX)), now);
        assert_eq!(one_more.unwrap_err().0, PeerRequest::Crowded);
    }

    #[test]
    fn a_nonce_has_one_spelling() {
        let nonce = Nonce::fresh();
        assert_eq!(Nonce::parse(&nonce.text()), Some(nonce));
        for other in [nonce.0.to_string(), format!("{{{}}}", nonce.0), nonce.text() + "0"] {
            assert_eq!(Nonce::parse(&other), None, "{other}");
        }
        assert_eq!(Nonce::parse("ABCDEFABCDEFABCDEFABCDEFABCDEFAB"), None);
    }
}
