//! What the host's machine offers, asked of its daemon now and then.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Event, Host};

/// Free disk is all that changes; a minute-old figure is good enough to look at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// While the daemon does not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Asks until cancelled.
pub async fn watch(host: Host, events: mpsc::Sender<Event>, cancel: CancellationToken) {
    loop {
        let wait = match host.docker.daemon().await {
            Ok(daemon) => {
                if events.send(Event::Capacity(Box::new(daemon))).await.is_err() {
                    return;
                }
                LOOK_EVERY
            }
            Err(error) => {
                debug!(error = %error, "the daemon did not say what it offers");
                LOOK_AGAIN
            }
        };
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(wait) => (),
        }
    }
}
