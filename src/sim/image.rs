//! The demo's image, assembled from the running executable and the libraries it needs:
//! no registry, no network, no build.

mod elf;
pub mod reach;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::docker::{BollardDocker, Docker, DockerError};

/// The demo's images, one tag per build of the executable.
pub const REPOSITORY: &str = "runner-orchestrator-demo";

/// Where the executable stands in the image.
pub const EXECUTABLE: &str = "/runner-orchestrator";

/// What the demo's image runs when nothing else is said.
pub const LISTENER: [&str; 3] = [EXECUTABLE, "sim", "listener"];

/// Libraries all stand here, under the names they are asked for by.
const LIBRARIES: &str = "/lib";

/// So many digits of the digest tell the builds on one machine apart.
const TAG_DIGITS: usize = 12;

/// The tar is handed to Docker in pieces of this size, a few of them in memory at a time.
const PIECE_BYTES: usize = 256 * 1024;
const PIECES_WAITING: usize = 4;

/// What an image is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageSpec {
    pub repository: String,
    pub files: Vec<ImageFile>,
    /// Symbolic links: path in the image, what it points to.
    pub links: Vec<(String, String)>,
    pub command: Vec<String>,
}

/// One program of an image. The libraries and the loader it needs come along.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageFile {
    /// Where it is on this machine.
    pub source: PathBuf,
    /// Where it stands in the image, absolute.
    pub path: String,
}

impl ImageSpec {
    /// The demo's image of this executable; `None` = the one that is running.
    #[must_use]
    pub fn demo(executable: Option<&Path>) -> Self {
        // The link opens even after the file was replaced by a newer build, and by the
        // process id also from a child process.
        let running = || PathBuf::from(format!("/proc/{}/exe", std::process::id()));
        let source = executable.map_or_else(running, Path::to_path_buf);
        Self {
            repository: REPOSITORY.to_owned(),
            files: vec![ImageFile { source, path: EXECUTABLE.to_owned() }],
            links: Vec::new(),
            command: LISTENER.map(str::to_owned).to_vec(),
        }
    }
}

/// What went wrong on the way to an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("could not read {path} for the image")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not find out which libraries {path} needs")]
    Libraries {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the reader of {path} ended early")]
    Interrupted { path: PathBuf },
    #[error("could not give the image to docker")]
    Docker(#[from] DockerError),
}

/// Makes sure that the image is there and returns its reference, `repository:tag`. The tag
/// is a digest of all that goes in, so an image that exists is the right one.
///
/// # Errors
/// When a file or its libraries cannot be read, or Docker does not take the image.
pub async fn ensure(docker: &BollardDocker, spec: &ImageSpec) -> Result<String, ImageError> {
    let first = spec.files.first().map(|file| file.source.clone()).unwrap_or_default();
    let wanted = spec.clone();
    let contents = tokio::task::spawn_blocking(move || Contents::gather(&wanted))
        .await
        .map_err(|_| ImageError::Interrupted { path: first })??;
    let reference = format!("{}:{}", spec.repository, contents.digest);
    if docker.image(&reference).await?.is_some() {
        return Ok(reference);
    }
    let changes = changes(spec);
    docker.import_image(&reference, changes, contents.into_tar()).await?;
    Ok(reference)
}

/// Removes what [`ensure`] made; repeatable. Refused while a container uses it.
///
/// # Errors
/// As every call to Docker.
pub async fn remove(docker: &BollardDocker, reference: &str) -> Result<(), DockerError> {
    docker.remove_image(reference).await
}

fn changes(spec: &ImageSpec) -> Vec<String> {
    let command: Vec<String> = spec.command.iter().map(|word| format!("{word:?}")).collect();
    vec![
        format!("CMD [{}]", command.join(", ")),
        // Loaders differ in where they look on their own.
        format!("ENV LD_LIBRARY_PATH={LIBRARIES}"),
        "WORKDIR /tmp".to_owned(),
    ]
}

/// All files of an image and their common digest.
struct Contents {
    files: Vec<ImageFile>,
    links: Vec<(String, String)>,
    digest: String,
}

impl Contents {
    fn gather(spec: &ImageSpec) -> Result<Self, ImageError> {
        let mut files = spec.files.clone();
        for file in &spec.files {
            let needed = elf::needed(&file.source)
                .map_err(|source| ImageError::Libraries { path: file.source.clone(), source })?;
            if let Some(loader) = needed.loader {
                files.push(ImageFile { path: loader.clone(), source: PathBuf::from(loader) });
            }
            files.extend(needed.libraries.into_iter().map(|library| ImageFile {
                path: format!("{LIBRARIES}/{}", library.name),
                source: library.path,
            }));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        let mut hasher = Sha256::new();
        for file in &files {
            hash(&mut hasher, file)
                .map_err(|source| ImageError::Read { path: file.source.clone(), source })?;
        }
        for text in spec.links.iter().flat_map(|(path, to)| [path, to]).chain(&spec.command) {
            hasher.update(text.as_bytes());
            hasher.update([0]);
        }
        let mut digest = format!("{:x}", hasher.finalize());
        digest.truncate(TAG_DIGITS);
        Ok(Self { files, links: spec.links.clone(), digest })
    }

    /// The tar, written by a thread of its own as fast as the reader takes it.
    fn into_tar(self) -> ReceiverStream<io::Result<Bytes>> {
        let (pieces, reader) = mpsc::channel(PIECES_WAITING);
        tokio::task::spawn_blocking(move || {
            let mut sink = io::BufWriter::with_capacity(PIECE_BYTES, Pieces(pieces.clone()));
            let written = self.write_tar(&mut sink).and_then(|()| sink.flush());
            if let Err(error) = written {
                // A reader that is gone has no use for the error either.
                let _ = pieces.blocking_send(Err(error));
            }
        });
        ReceiverStream::new(reader)
    }

    fn write_tar(&self, sink: &mut impl Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(sink);
        let mut scratch = header(tar::EntryType::Directory, 0o1777);
        tar.append_data(&mut scratch, "tmp/", io::empty())?;
        for file in &self.files {
            let source = std::fs::File::open(&file.source)?;
            let size = source.metadata()?.len();
            let mut entry = header(tar::EntryType::Regular, 0o755);
            entry.set_size(size);
            // Never more than announced, should the file grow meanwhile.
            tar.append_data(&mut entry, relative(&file.path), source.take(size))?;
        }
        for (path, target) in &self.links {
            let mut entry = header(tar::EntryType::Symlink, 0o777);
            tar.append_link(&mut entry, relative(path), target)?;
        }
        tar.finish()
    }
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn hash(hasher: &mut Sha256, file: &ImageFile) -> io::Result<()> {
    hasher.update(file.path.as_bytes());
    hasher.update([0]);
    let mut source = std::fs::File::open(&file.source)?;
    io::copy(&mut source, hasher).map(drop)
}

/// Hands what is written to the other side, and waits while that has enough.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_tar_holds_the_executable_its_loader_and_its_libraries() {
        let contents = Contents::gather(&ImageSpec::demo(None)).unwrap();
        let again = Contents::gather(&ImageSpec::demo(None)).unwrap();
        assert_eq!(contents.digest, again.digest);
        let mut bytes = Vec::new();
        contents.write_tar(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let sizes: BTreeMap<String, u64> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.size())
            })
            .collect();
        let own = std::fs::metadata("/proc/self/exe").unwrap().len();
        assert_eq!(sizes.get("runner-orchestrator"), Some(&own));
        assert!(sizes.keys().any(|path| path.starts_with("lib/libc.")), "{sizes:?}");
        assert!(sizes.contains_key("tmp/"));
    }

    #[tokio::test]
    async fn a_file_that_is_missing_is_named() {
        let spec = ImageSpec::demo(Some(Path::new("/nowhere/program")));
        let docker = BollardDocker::connect(Some("unix:///nowhere.sock")).unwrap();
        let error = ensure(&docker, &spec).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/program"), "{error}");
    }
}
