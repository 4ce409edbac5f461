//! The daemon's event stream, narrowed to this cluster's runners.

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use chrono::DateTime;
use futures_util::stream::{BoxStream, StreamExt};

use super::connection::{Connection, READ_LIMIT, answer, failure};
use super::{ContainerEvent, ContainerEventKind, DockerError, label, labels};
use crate::fleet::id::{ClusterMark, ContainerId};

const ACTION: &str = "listening for events";
/// The attribute of a `die` event that carries the exit code.
const EXIT_CODE: &str = "exitCode";

/// Events from the moment this was called. The request itself is sent when the stream is
/// first polled; the daemon replays what happened in between.
pub(super) async fn listen(
    connection: &Connection,
    mark: &ClusterMark,
) -> Result<BoxStream<'static, Result<ContainerEvent, DockerError>>, DockerError> {
    let info = connection.call(ACTION, READ_LIMIT, async |docker| docker.info().await).await?;
    // The daemon's clock, not ours: they may differ.
    let since = info
        .system_time
        .as_deref()
        .and_then(instant)
        .ok_or_else(|| answer(ACTION, "the daemon does not tell its time"))?;
    let mut filters = labels::filter(mark);
    filters.insert("type".to_owned(), vec!["container".to_owned()]);
    let kinds = ["start", "die", "oom", "destroy"].map(str::to_owned);
    filters.insert("event".to_owned(), kinds.to_vec());
    let options = EventsOptions { since: Some(since), until: None, filters: Some(filters) };
    let stream = connection.client(ACTION).await?.events(Some(options));
    Ok(stream
        .filter_map(async |message| match message {
            Ok(message) => read(message).map(Ok),
            Err(error) => Some(Err(failure(ACTION, error))),
        })
        .boxed())
}

fn read(message: EventMessage) -> Option<ContainerEvent> {
    let kind = match message.action.as_deref()? {
        "start" => ContainerEventKind::Started,
        "die" => ContainerEventKind::Died,
        "oom" => ContainerEventKind::OutOfMemory,
        "destroy" => ContainerEventKind::Removed,
        _ => return None,
    };
    let actor = message.actor?;
    let attributes = actor.attributes.unwrap_or_default();
    let runner = attributes.get(label::RUNNER_ID).and_then(|runner| runner.parse().ok());
    let exit_code = attributes.get(EXIT_CODE).and_then(|code| code.parse().ok());
    let exit_code = exit_code.filter(|_| kind == ContainerEventKind::Died);
    Some(ContainerEvent { container: ContainerId(actor.id?), runner, kind, exit_code })
}

/// The daemon's time as the seconds and nanoseconds it takes back.
fn instant(text: &str) -> Option<String> {
    let date = DateTime::parse_from_rfc3339(text).ok()?;
    Some(format!("{}.{:09}", date.timestamp(), date.timestamp_subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_time_keeps_its_nanoseconds() {
        let utc = instant("2026-11-24T18:19:54.000000123Z");
        assert_eq!(utc.as_deref(), Some("1795544394.000000123"));
        assert_eq!(instant("2026-11-24T19:19:54.000000123+01:00"), utc);
        assert_eq!(instant("yesterday"), None);
    }
}
