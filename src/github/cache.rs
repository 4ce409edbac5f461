//! What conditional requests need, also of the next leader ([`kept`]): for each URL the
//! `ETag` and the small result that was read from the answer. Bodies are never kept.
//! Bounded by count and by bytes; what was not used for the longest time goes first.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::budget::CredentialId;

pub(crate) mod kept;

/// Answers remembered: two listings for each of 1,500 repositories, and their jobs.
const ENTRIES_MAX: usize = 4096;
/// Bytes that keys and results may take together.
const BYTES_MAX: usize = 6 * 1024 * 1024;
/// The fixed cost of an entry: two maps' nodes, the `ETag`, reference counts.
const ENTRY_OVERHEAD_BYTES: usize = 200;

/// A result read from an answer.
pub(crate) trait Digest: Any + Send + Sync {
    /// About how many bytes it takes.
    fn bytes(&self) -> usize;

    /// The result as a small text, if it is worth keeping for the next leader.
    fn text(&self) -> Option<String> {
        None
    }

    /// Reads it back.
    fn of_text(_text: &str) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// The full path and query of a request, and whose it was: GitHub's `ETag` depends on
/// both. A client talks to one base address, so that is not part of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Key {
    pub(crate) credential: CredentialId,
    pub(crate) path: String,
}

/// A remembered answer.
#[derive(Clone)]
pub(crate) struct Remembered {
    pub(crate) etag: Arc<str>,
    pub(crate) has_next: bool,
    digest: Arc<dyn Any + Send + Sync>,
}

impl Remembered {
    pub(crate) fn digest<D: Digest>(&self) -> Option<Arc<D>> {
        match Arc::clone(&self.digest).downcast::<kept::Text>() {
            Ok(text) => D::of_text(&text.0).map(Arc::new),
            Err(digest) => digest.downcast().ok(),
        }
    }
}

/// The bounded memory of answers.
#[derive(Default)]
pub(crate) struct Cache {
    entries: HashMap<Key, Entry>,
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    bytes: usize,
    kept: kept::Kept,
}

struct Entry {
    remembered: Remembered,
    bytes: usize,
    last_use: u64,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("entries", &self.entries.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// The remembered answer, now the most recently used.
    pub(crate) fn get(&mut self, key: &Key) -> Option<Remembered> {
        let entry = self.entries.get_mut(key)?;
        self.by_use.remove(&entry.last_use);
        self.uses += 1;
        entry.last_use = self.uses;
        self.by_use.insert(self.uses, key.clone());
        Some(entry.remembered.clone())
    }

    /// Remembers an answer in place of an earlier one.
    pub(crate) fn put<D: Digest>(&mut self, key: Key, etag: &str, has_next: bool, digest: Arc<D>) {
        self.remove(&key);
        self.kept.put(&key, etag, has_next, digest.as_ref());
        let bytes =
            ENTRY_OVERHEAD_BYTES + 2 * key.path.len() + etag.len() + digest.as_ref().bytes();
        if bytes > BYTES_MAX {
            return;
        }
        self.uses += 1;
        self.by_use.insert(self.uses, key.clone());
        let remembered = Remembered { etag: etag.into(), has_next, digest };
        self.entries.insert(key, Entry { remembered, bytes, last_use: self.uses });
        self.bytes += bytes;
        while self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.remove(&oldest);
        }
    }

    /// Forgets an answer, because what followed it was no longer to be had.
    pub(crate) fn remove(&mut self, key: &Key) {
        self.kept.remove(key);
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.last_use);
            self.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Blob(usize);
    impl Digest for Blob {
        fn bytes(&self) -> usize {
            self.0
        }
    }

    fn key(n: usize) -> Key {
        Key { credential: CredentialId::Token, path: format!("/repos/acme/{n}") }
    }

    #[test]
    fn the_least_recently_used_answer_goes_first() {
        let mut cache = Cache::default();
        for n in 0..ENTRIES_MAX {
            cache.put(key(n), "e", false, Arc::new(Blob(1)));
        }
        assert!(cache.get(&key(0)).is_some());
        cache.put(key(ENTRIES_MAX), "e", false, Arc::new(Blob(1)));
        assert!(cache.get(&key(0)).is_some());
        assert!(cache.get(&key(1)).is_none());
        assert_eq!((cache.entries.len(), cache.by_use.len()), (ENTRIES_MAX, ENTRIES_MAX));
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let mut cache = Cache::default();
        for n in 0..20 {
            cache.put(key(n), "e", false, Arc::new(Blob(BYTES_MAX / 4)));
            assert!(cache.bytes <= BYTES_MAX);
        }
        assert!(cache.get(&key(19)).is_some());
        assert!(cache.get(&key(0)).is_none());
        cache.put(key(20), "e", false, Arc::new(Blob(BYTES_MAX)));
        assert!(cache.get(&key(20)).is_none(), "what alone is too large is not kept");
        for n in 0..20 {
            cache.remove(&key(n));
        }
        assert_eq!((cache.bytes, cache.entries.len(), cache.by_use.len()), (0, 0, 0));
    }

    #[test]
    fn another_credential_is_another_answer() {
        let mut cache = Cache::default();
        cache.put(key(1), "e", true, Arc::new(Blob(7)));
        let other = Key { credential: CredentialId::Installation(1), ..key(1) };
        assert!(cache.get(&other).is_none());
        let found = cache.get(&key(1)).expect("kept");
        assert!(found.has_next);
        assert_eq!(found.digest::<Blob>().map(|blob| blob.0), Some(7));
    }
}
