//! Checking what GitHub lets us do, until it has answered.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Readiness;
use crate::fleet::pool::Scope;
use crate::github::GitHub;

/// GitHub's permissions are checked again this often until each has an answer.
const PREFLIGHT_RETRY: Duration = Duration::from_secs(15);
/// And this often while something is refused.
const REFUSED_RETRY: Duration = Duration::from_secs(60);

/// Checks token, scopes and permissions until GitHub has answered.
pub(super) async fn run(
    github: Arc<dyn GitHub>,
    scopes: Vec<Scope>,
    ready: watch::Sender<Readiness>,
    stop: CancellationToken,
) {
    loop {
        let found = github.preflight(&scopes).await;
        let unreachable = found.unreachable();
        for line in found.problems() {
            warn!(problem = line, "github check");
        }
        let result = match unreachable {
            Some(why) => Err(why),
            None => Ok(found),
        };
        let wait = match &result {
            Ok(found) if found.problems().is_empty() => None,
            // Somebody may be mending the token's rights just now.
            Ok(_) => Some(REFUSED_RETRY),
            Err(_) => Some(PREFLIGHT_RETRY),
        };
        ready.send_modify(|ready| ready.github = Some(result));
        let Some(wait) = wait else { return };
        tokio::select! { biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => (),
        }
    }
}
