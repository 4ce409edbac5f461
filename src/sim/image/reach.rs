//! Whether a server can be reached from a pool's network: asked by a container on that
//! network, because nothing else tells what the host's filter rules really do.

use std::time::Duration;

use crate::docker::{BollardDocker, DockerError, Probe, ProbeSpec};
use crate::fleet::id::ClusterMark;
use crate::telemetry::chain;

use super::EXECUTABLE;

/// What the demo's image is called with, before the URL, to try it out.
pub const PROBE: [&str; 3] = [EXECUTABLE, "sim", "probe"];

/// Inside the container: one request to a neighbour. A filter that drops silently is
/// noticed by this alone.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// The container as a whole: its start on a busy machine and one request.
const CONTAINER_LIMIT: Duration = Duration::from_secs(20);

/// Whether the way is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reach {
    Open,
    /// Closed, and why, as far as the probe could tell.
    Closed(String),
}

/// Where to try from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub cluster: ClusterMark,
    pub image: String,
    /// The network's name.
    pub network: String,
}

/// Runs `command` followed by `url` in a container there; it passes by ending with 0.
/// Nothing is left behind.
///
/// # Errors
/// When the container itself could not be run.
pub async fn probe(
    docker: &BollardDocker,
    place: &Place,
    command: &[&str],
    url: &str,
) -> Result<Reach, DockerError> {
    let spec = ProbeSpec {
        cluster: place.cluster.clone(),
        image: place.image.clone(),
        network: place.network.clone(),
        command: command.iter().copied().chain([url]).map(str::to_owned).collect(),
        limit: CONTAINER_LIMIT,
    };
    Ok(match docker.probe(&spec).await? {
        Probe::Passed => Reach::Open,
        Probe::Failed { code, output } if output.is_empty() => {
            Reach::Closed(format!("the probe ended with code {code}"))
        }
        Probe::Failed { output, .. } => Reach::Closed(output),
        Probe::Unfinished => {
            Reach::Closed(format!("the probe did not end within {} s", CONTAINER_LIMIT.as_secs()))
        }
    })
}

/// The inside of the probe: any HTTP answer at all means that the way is open.
///
/// # Errors
/// The whole chain of causes, as one sentence for the person who reads it.
pub async fn reach(url: &str) -> Result<(), String> {
    let client = crate::sim::http::plain_client()
        .timeout(REQUEST_LIMIT)
        .build()
        .map_err(|error| chain(&error))?;
    client.get(url).send().await.map(drop).map_err(|error| chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_is_told_with_its_cause() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let why = reach(&url).await.unwrap_err();
        assert!(why.contains("refused"), "{why}");
    }

    #[tokio::test]
    async fn any_answer_opens_the_way() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let served = axum::serve(listener, axum::Router::new()).into_future();
        tokio::select! {
            answer = reach(&url) => answer.unwrap(),
            ended = served => panic!("the server ended: {ended:?}"),
        }
    }
}
