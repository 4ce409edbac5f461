//! Images: found, pulled, put together from files of this machine.

use std::time::Duration;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::{CreateImageOptions, ListImagesOptions, RemoveImageOptions};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use tokio::time::timeout;

use super::connection::{Connection, READ_LIMIT, REMOVE_LIMIT, failure, overdue};
use super::{DockerError, PullProgress};

/// The role of a container that only tries out the way to a server.
pub(super) const ROLE_PROBE: &str = "probe";

/// A pull tells its progress several times a second; unpacking a large layer is its
/// longest silence.
const PULL_SILENCE_LIMIT: Duration = Duration::from_secs(300);

/// Unpacking a tar of tens of megabytes on a slow disk.
const IMPORT_LIMIT: Duration = Duration::from_secs(300);

/// The image's id, `None` when the daemon does not have it.
pub(super) async fn find(
    connection: &Connection,
    reference: &str,
) -> Result<Option<String>, DockerError> {
    let inspected = connection
        .call("inspecting an image", READ_LIMIT, async |docker| {
            docker.inspect_image(reference).await
        })
        .await;
    match inspected {
        Ok(image) => Ok(image.id),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Pulls while the stream is polled; dropping it stops the pull.
pub(super) async fn pull(
    connection: &Connection,
    reference: &str,
) -> Result<BoxStream<'static, Result<PullProgress, DockerError>>, DockerError> {
    const ACTION: &str = "pulling an image";
    let (image, tag) = split_reference(reference);
    let options = CreateImageOptions {
        from_image: Some(image.to_owned()),
        tag: tag.map(str::to_owned),
        ..Default::default()
    };
    let client = timeout(READ_LIMIT, connection.client(ACTION))
        .await
        .map_err(|_| overdue(ACTION, READ_LIMIT))??;
    let steps = client.create_image(Some(options), None, None).boxed();
    Ok(stream::unfold(Some(steps), async |steps| {
        let mut steps = steps?;
        match timeout(PULL_SILENCE_LIMIT, steps.next()).await {
            Ok(Some(Ok(step))) => Some((read_step(step), Some(steps))),
            Ok(Some(Err(error))) => Some((Err(failure(ACTION, error)), None)),
            Ok(None) => None,
            Err(_) => Some((Err(overdue(ACTION, PULL_SILENCE_LIMIT)), None)),
        }
    })
    .boxed())
}

fn read_step(step: CreateImageInfo) -> Result<PullProgress, DockerError> {
    if let Some(error) = step.error_detail {
        return Err(DockerError::Refused {
            action: "pulling an image",
            status: error.code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500),
            message: error.message.unwrap_or_default(),
        });
    }
    let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
    let detail = step.progress_detail;
    Ok(PullProgress {
        status: match (step.id, step.status) {
            (Some(layer), Some(status)) => format!("{layer}: {status}"),
            (_, status) => status.unwrap_or_default(),
        },
        current_bytes: bytes(detail.as_ref().and_then(|detail| detail.current)),
        total_bytes: bytes(detail.as_ref().and_then(|detail| detail.total)),
    })
}

/// Docker pulls *every* tag of a name that has none, so a missing one becomes `latest`.
/// A digest goes with the name.
fn split_reference(reference: &str) -> (&str, Option<&str>) {
    if reference.contains('@') {
        return (reference, None);
    }
    match reference.rsplit_once(':') {
        // A slash behind the colon: it belongs to the registry's port.
        Some((image, tag)) if !tag.contains('/') => (image, Some(tag)),
        _ => (reference, Some("latest")),
    }
}

/// On an imported image: its reference. Of two processes that import the same one at once,
/// the second takes the name from the first's; this is how the nameless one is found.
const IMPORTED: &str = "io.runner-orchestrator.imported";

/// Makes an image of one layer from a tar, read as the daemon takes it. `changes` are
/// lines as of a Dockerfile (`CMD`, `ENV`, `WORKDIR`).
pub(super) async fn import(
    connection: &Connection,
    reference: &str,
    mut changes: Vec<String>,
    tar: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Result<(), DockerError> {
    let (repository, tag) = split_reference(reference);
    changes.push(format!("LABEL {IMPORTED}={reference}"));
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(repository.to_owned()),
        tag: tag.map(str::to_owned),
        changes,
        ..Default::default()
    };
    let body = bollard::body_try_stream(tar);
    connection
        .call("importing an image", IMPORT_LIMIT, async |docker| {
            docker.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>().await
        })
        .await?;
    remove_nameless(connection, reference).await
}

/// Removes an image by name; one that is not there counts as removed.
pub(super) async fn remove(connection: &Connection, reference: &str) -> Result<(), DockerError> {
    remove_one(connection, reference).await?;
    remove_nameless(connection, reference).await
}

/// Removes what an import under way at the same time left without a name.
async fn remove_nameless(connection: &Connection, reference: &str) -> Result<(), DockerError> {
    let filters = [
        ("dangling".to_owned(), vec!["true".to_owned()]),
        ("label".to_owned(), vec![format!("{IMPORTED}={reference}")]),
    ];
    let options = ListImagesOptions { filters: Some(filters.into()), ..Default::default() };
    let images = connection
        .call("listing images", READ_LIMIT, async |docker| docker.list_images(Some(options)).await)
        .await?;
    for image in images {
        match remove_one(connection, &image.id).await {
            // A container still uses it.
            Err(error) if error.status() == Some(409) => (),
            other => other?,
        }
    }
    Ok(())
}

async fn remove_one(connection: &Connection, reference: &str) -> Result<(), DockerError> {
    let removed = connection
        .call("removing an image", REMOVE_LIMIT, async |docker| {
            docker.remove_image(reference, None::<RemoveImageOptions>, None).await
        })
        .await;
    match removed {
        Ok(_) => Ok(()),
        Err(error) if error.is_gone() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_split_at_its_tag_only() {
        for (reference, expected) in [
            ("apex-runner:local", ("apex-runner", Some("local"))),
            ("debian", ("debian", Some("latest"))),
            ("host:5000/team/image", ("host:5000/team/image", Some("latest"))),
            ("host:5000/team/image:v1", ("host:5000/team/image", Some("v1"))),
            ("image@sha256:abc", ("image@sha256:abc", None)),
        ] {
            assert_eq!(split_reference(reference), expected, "{reference}");
        }
    }
}
