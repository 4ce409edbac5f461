//! The leader's last turn, written for the replicas that do not lead.

use redis::Value;

use super::RedisStore;
use super::codec::encode;
use super::known::is_stale;
use super::lease::Fence;
use crate::election::Leadership;
use crate::fleet::digest::Digest;
use crate::store::StoreError;

impl RedisStore {
    /// Writes it, with what GitHub lists only when the store does not have that: it is most of
    /// a large fleet's digest, and changes once a poll.
    pub(super) async fn show(&self, leader: &Leadership, digest: Digest) -> Result<(), StoreError> {
        const ACTION: &str = "publishing the leader's turn";
        const KEYS: [&str; 3] = ["state", "digest", "registrations"];
        let fence = Fence::of_leader(leader);
        let told = encode(&digest, ACTION)?;
        let listing = digest.ledger.registrations.listing().clone();
        let known = self.known(ACTION).await?.version_of(&listing);
        // The second time whole: another leader has written the listing meanwhile.
        let mut answer = Value::Nil;
        for whole in [known.is_none(), true] {
            let mut call = self.ordered(&self.scripts.publish, fence, "publish", &KEYS);
            call.arg(&told).arg(known.as_deref().unwrap_or_default());
            if whole {
                call.arg(encode(&*listing, ACTION)?);
            }
            answer = self.write_fenced(ACTION, fence, &call).await?;
            if !is_stale(&answer) {
                break;
            }
        }
        self.known(ACTION).await?.told(&answer, digest);
        Ok(())
    }
}
