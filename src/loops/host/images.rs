//! Which images of our pools this daemon has; missing ones are pulled in the background.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Event, Host};
use crate::fleet::reason::Reason;
use crate::telemetry::chain;

/// Images come and go by hand: looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// While one is missing, so that `docker build` by hand is noticed soon.
const LOOK_WHILE_MISSING: Duration = Duration::from_secs(2);
/// A registry that refuses is asked again after this, doubling to ten minutes.
const PULL_AGAIN_AFTER: Duration = Duration::from_secs(30);
const PULL_AGAIN_MAX: Duration = Duration::from_secs(600);

/// Looks for the images until cancelled.
pub async fn watch(host: Host, events: mpsc::Sender<Event>, cancel: CancellationToken) {
    let mut pulls: BTreeMap<String, Retry> = BTreeMap::new();
    loop {
        let (present, missing) = look(&host).await;
        if events.send(Event::Images(present)).await.is_err() {
            return;
        }
        for image in &missing {
            let retry = pulls.entry(image.clone()).or_insert_with(Retry::new);
            if retry.due() {
                retry.tried();
                let reason = Reason::ImageMissing { image: image.clone() };
                info!(image, reason = reason.code(), "pulling a missing image");
                tokio::select! { biased;
                    () = cancel.cancelled() => return,
                    () = pull(&host, image) => (),
                }
            }
        }
        pulls.retain(|image, _| missing.contains(image));
        let wait = if missing.is_empty() { LOOK_EVERY } else { LOOK_WHILE_MISSING };
        tokio::select! { biased;
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(wait) => (),
        }
    }
}

/// When an image may be pulled again.
struct Retry {
    at: Instant,
    wait: Duration,
}

impl Retry {
    fn new() -> Self {
        Self { at: Instant::now(), wait: PULL_AGAIN_AFTER }
    }

    fn due(&self) -> bool {
        Instant::now() >= self.at
    }

    fn tried(&mut self) {
        self.at = Instant::now() + self.wait;
        self.wait = (self.wait * 2).min(PULL_AGAIN_MAX);
    }
}

async fn look(host: &Host) -> (Vec<String>, Vec<String>) {
    let mut images: Vec<String> = host.pools.values().map(|pool| pool.image.clone()).collect();
    images.sort();
    images.dedup();
    let (mut present, mut missing) = (Vec::new(), Vec::new());
    for image in images {
        match host.docker.image(&image).await {
            Ok(Some(_)) => present.push(image),
            Ok(None) => missing.push(image),
            // Not answered is not missing: nothing is pulled for it, nothing started.
            Err(error) => warn!(image, error = %chain(&error), "could not look for an image"),
        }
    }
    (present, missing)
}

async fn pull(host: &Host, image: &str) {
    let mut progress = match host.docker.pull(image).await {
        Ok(progress) => progress,
        Err(error) => {
            warn!(image, error = %chain(&error), "could not pull an image");
            return;
        }
    };
    while let Some(step) = progress.next().await {
        match step {
            Ok(step) => host.pulls.send_modify(|pulls| {
                pulls.insert(image.to_owned(), step);
            }),
            Err(error) => {
                warn!(image, error = %chain(&error), "an image pull failed");
                break;
            }
        }
    }
    host.pulls.send_modify(|pulls| {
        pulls.remove(image);
    });
}
