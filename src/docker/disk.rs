//! The free space of a daemon on this very machine.

use std::time::Duration;

/// A file system that does not answer (a share that went away) must hold nobody up.
const LIMIT: Duration = Duration::from_secs(2);

/// What the daemon keeps its containers in lies below its data root: seen from here, the
/// path is the daemon's own and not one of the same name in our own container.
const PROOF: &str = "containers";

/// Free bytes on the file system of the daemon's data. `None` where it cannot be seen.
pub(super) async fn free(data_root: &str) -> Option<u64> {
    let root = std::path::PathBuf::from(data_root);
    let look = tokio::task::spawn_blocking(move || {
        if !root.join(PROOF).is_dir() {
            return None;
        }
        let found = rustix::fs::statvfs(&root).ok()?;
        found.f_frsize.checked_mul(found.f_bavail)
    });
    tokio::time::timeout(LIMIT, look).await.ok()?.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_daemon_s_data_root_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_str().unwrap();
        assert_eq!(free(root).await, None);
        assert_eq!(free("/nowhere/at/all").await, None);
        std::fs::create_dir(dir.path().join(PROOF)).unwrap();
        assert!(free(root).await.is_some_and(|bytes| bytes > 0));
    }
}
