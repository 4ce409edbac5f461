//! Sends waiting webhook deliveries.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::SimGitHub;
use super::webhooks::{Delivered, Delivery};

/// GitHub counts a delivery as failed after ten seconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Deliveries on their way at one time; enough for a burst, few enough for one receiver.
const CONCURRENT_MAX: usize = 8;

/// Delivers what waits, as it comes, until `stop`.
pub(crate) async fn deliver(sim: &SimGitHub, stop: &CancellationToken) {
    let client = match crate::sim::http::plain_client().timeout(TIMEOUT).build() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "webhooks will not be delivered");
            return;
        }
    };
    let wake = sim.with(|world, _| world.outbox.wake.clone());
    loop {
        tokio::select! { biased;
            () = stop.cancelled() => return,
            () = wake.notified() => (),
        }
        tokio::select! { biased;
            () = stop.cancelled() => return,
            () = send_waiting(sim, &client) => (),
        }
    }
}

/// Sends everything that waits now.
async fn send_waiting(sim: &SimGitHub, client: &reqwest::Client) {
    let mut under_way = JoinSet::new();
    while let Some(delivery) = sim.with(|world, _| world.next_delivery()) {
        under_way.spawn(send(client.clone(), delivery));
        if under_way.len() >= CONCURRENT_MAX {
            note(sim, under_way.join_next().await);
        }
    }
    while let Some(ended) = under_way.join_next().await {
        note(sim, Some(ended));
    }
}

fn note(sim: &SimGitHub, ended: Option<Result<Delivered, tokio::task::JoinError>>) {
    if let Some(Ok(delivered)) = ended {
        sim.with(|world, _| world.outbox.note(delivered));
    }
}

async fn send(client: reqwest::Client, delivery: Delivery) -> Delivered {
    let mut request = client
        .post(&delivery.url)
        .header("content-type", "application/json")
        .header("user-agent", "GitHub-Hookshot/model")
        .header("x-github-event", "workflow_job")
        .header("x-github-delivery", &delivery.guid)
        .header("x-github-hook-id", delivery.hook_id)
        .header("x-github-hook-installation-target-type", "organization")
        .header("x-github-hook-installation-target-id", delivery.target_id);
    if let Some(signature) = &delivery.signature {
        request = request.header("x-hub-signature-256", signature);
    }
    let answer = request.body(delivery.body).send().await;
    Delivered {
        guid: delivery.guid,
        action: delivery.action.to_owned(),
        status: answer.ok().map(|answer| answer.status().as_u16()),
    }
}
