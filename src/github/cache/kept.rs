//! The part of the cache that outlives a change of leader: `ETag`s and what was read of
//! runs and jobs, as small texts in the store. Losing it costs calls, never correctness.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Cache, Digest, Key};
use crate::github::budget::CredentialId;

/// A larger result changes often and is one of few: it is read again instead.
const TEXT_BYTES_MAX: usize = 8 * 1024;
/// All of them together, in the store.
const ALL_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A result as it was kept, not read back yet.
pub(super) struct Text(pub(super) String);

impl Digest for Text {
    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn text(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

/// One answer as the store has it.
#[derive(Serialize, Deserialize)]
struct Record {
    etag: String,
    has_next: bool,
    digest: String,
}

/// What the store has, and what it has yet to be told.
#[derive(Default)]
pub(super) struct Kept {
    /// Nobody keeps anything before somebody has asked for it.
    wanted: bool,
    sizes: HashMap<Key, usize>,
    bytes: usize,
    untold: BTreeMap<Key, Option<String>>,
}

impl Kept {
    pub(super) fn put<D: Digest>(&mut self, key: &Key, etag: &str, has_next: bool, digest: &D) {
        if !self.wanted {
            return;
        }
        let Some(digest) = digest.text().filter(|text| text.len() <= TEXT_BYTES_MAX) else {
            return;
        };
        let record = Record { etag: etag.to_owned(), has_next, digest };
        let Ok(text) = serde_json::to_string(&record) else { return };
        let size = text.len() + key.path.len();
        if self.bytes + size > ALL_BYTES_MAX {
            return;
        }
        self.bytes += size;
        self.sizes.insert(key.clone(), size);
        self.untold.insert(key.clone(), Some(text));
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(size) = self.sizes.remove(key) {
            self.bytes -= size;
            self.untold.insert(key.clone(), None);
        }
    }
}

impl Cache {
    /// What changed since the last call, by name.
    pub(crate) fn learnt(&mut self) -> BTreeMap<String, Option<String>> {
        self.kept.wanted = true;
        let untold = std::mem::take(&mut self.kept.untold);
        untold.into_iter().map(|(key, text)| (name_of(&key), text)).collect()
    }

    /// Takes in what an earlier leader kept. What is known already stays: it is as good,
    /// and a wrong `ETag` only costs the call it would have saved.
    pub(crate) fn recall(&mut self, learnt: &BTreeMap<String, String>) {
        self.kept.wanted = true;
        for (name, text) in learnt {
            let (Some(key), Ok(record)) = (key_of(name), serde_json::from_str::<Record>(text))
            else {
                continue;
            };
            if !self.entries.contains_key(&key) {
                let digest = Arc::new(Text(record.digest));
                self.put(key.clone(), &record.etag, record.has_next, digest);
                // The store has it already.
                self.kept.untold.remove(&key);
            }
        }
    }
}

fn name_of(key: &Key) -> String {
    match key.credential {
        CredentialId::Token => format!("token {}", key.path),
        CredentialId::App => format!("app {}", key.path),
        CredentialId::Installation(id) => format!("{id} {}", key.path),
    }
}

fn key_of(name: &str) -> Option<Key> {
    let (credential, path) = name.split_once(' ')?;
    let credential = match credential {
        "token" => CredentialId::Token,
        "app" => CredentialId::App,
        id => CredentialId::Installation(id.parse().ok()?),
    };
    Some(Key { credential, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Number(usize);
    impl Digest for Number {
        fn bytes(&self) -> usize {
            8
        }
        fn text(&self) -> Option<String> {
            Some(self.0.to_string())
        }
        fn of_text(text: &str) -> Option<Self> {
            text.parse().ok().map(Self)
        }
    }

    fn key(n: u64) -> Key {
        let credential = if n == 0 { CredentialId::Token } else { CredentialId::Installation(n) };
        Key { credential, path: format!("/repos/acme/{n}/actions/runs?status=queued page") }
    }

    #[test]
    fn what_was_learnt_is_recalled_by_the_next_leader() {
        let mut before = Cache::default();
        assert!(before.learnt().is_empty());
        for n in 0..3 {
            before.put(key(n), &format!("etag-{n}"), n == 1, Arc::new(Number(7)));
        }
        before.remove(&key(2));
        let learnt = before.learnt();
        assert_eq!(learnt.len(), 3);
        assert!(before.learnt().is_empty(), "told once");
        let stored: BTreeMap<String, String> =
            learnt.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();

        let mut after = Cache::default();
        after.recall(&stored);
        let found = after.get(&key(1)).expect("recalled");
        assert_eq!((&*found.etag, found.has_next), ("etag-1", true));
        assert_eq!(found.digest::<Number>().map(|number| number.0), Some(7));
        assert!(after.get(&key(2)).is_none(), "forgotten before");
        assert!(after.learnt().is_empty(), "the store has it already");
    }

    #[test]
    fn nothing_is_kept_that_nobody_asks_for_or_that_is_too_large() {
        struct Large;
        impl Digest for Large {
            fn bytes(&self) -> usize {
                1
            }
            fn text(&self) -> Option<String> {
                Some("x".repeat(TEXT_BYTES_MAX + 1))
            }
        }
        let mut cache = Cache::default();
        cache.put(key(0), "e", false, Arc::new(Number(1)));
        assert!(cache.kept.untold.is_empty());
        assert!(cache.learnt().is_empty());
        cache.put(key(0), "e", false, Arc::new(Large));
        assert!(cache.learnt().is_empty());
        cache.recall(&[("nonsense".to_owned(), "{".to_owned())].into());
        assert!(cache.get(&key(0)).is_some());
    }
}
