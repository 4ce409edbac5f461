//! Authenticated, conditional, paged reading. Pages are asked for by number: an absolute
//! `next` address may name another host than the one we were told to talk to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;
use http::header::{ETAG, LINK};
use tracing::warn;

use super::GitHubError;
use super::answers::{Item, Listing};
use super::auth::Auth;
use super::budget::CallClass;
use super::cache::{Cache, Key, Remembered};
use super::line::{Bearer, Call, Line, refused, unreadable};
use super::route::{Account, Route};
use super::wire::Answer;

/// GitHub's largest page.
pub(crate) const PER_PAGE: usize = 100;
/// Readings of a list that changes while it is read, before that is an error.
const PASSES_MAX: usize = 3;

/// A list to be read to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<'a> {
    pub(crate) account: &'a Account,
    pub(crate) route: Route,
    pub(crate) class: CallClass,
    /// Path and query without the page.
    pub(crate) path: &'a str,
    pub(crate) pages_max: usize,
    pub(crate) completeness: Completeness,
    pub(crate) memory: Memory,
}

/// What a list that is longer than `pages_max` or will not hold still comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Completeness {
    /// An error: something would be taken for missing.
    Whole,
    /// What was read: the rest makes no difference to what we do.
    AsFarAsRead,
}

/// Whether answers are remembered for conditional requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Memory {
    Kept,
    None,
}

/// The line with our name on it.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) line: Line,
    pub(crate) auth: Auth,
    cache: Mutex<Cache>,
}

struct Page<T> {
    listing: Arc<Listing<T>>,
    has_next: bool,
}

impl Caller {
    pub(crate) fn new(line: Line, auth: Auth) -> Self {
        Self { line, auth, cache: Mutex::default() }
    }

    /// Makes a call in the account's name. A token that GitHub no longer takes is
    /// replaced once: a 401 says that nothing was done.
    pub(crate) async fn call(&self, account: &Account, call: &Call) -> Result<Answer, GitHubError> {
        let (answer, _, _) = self.conditional(account, call, Memory::None).await?;
        Ok(answer)
    }

    async fn conditional(
        &self,
        account: &Account,
        call: &Call,
        memory: Memory,
    ) -> Result<(Answer, Bearer, Option<Remembered>), GitHubError> {
        let bearer = self.auth.bearer(&self.line, account, call.route).await?;
        let (answer, remembered) = self.once(call, &bearer, memory).await?;
        if answer.status != 401 || !self.auth.renounce(account, &bearer).await {
            return Ok((answer, bearer, remembered));
        }
        let bearer = self.auth.bearer(&self.line, account, call.route).await?;
        let (answer, remembered) = self.once(call, &bearer, memory).await?;
        Ok((answer, bearer, remembered))
    }

    async fn once(
        &self,
        call: &Call,
        bearer: &Bearer,
        memory: Memory,
    ) -> Result<(Answer, Option<Remembered>), GitHubError> {
        let remembered = match memory {
            Memory::Kept => self.recall(&key(call, bearer)),
            Memory::None => None,
        };
        let etag = remembered.as_ref().map(|answer| &*answer.etag);
        let answer = self.line.send(call, bearer, etag).await?;
        Ok((answer, remembered))
    }

    /// Reads the list to its end.
    pub(crate) async fn list<T: Item>(&self, list: List<'_>) -> Result<Vec<T>, GitHubError> {
        for _ in 0..PASSES_MAX {
            let pages = self.pages::<T>(list).await?;
            let cut = pages.len() >= list.pages_max && !ended(&pages);
            if cut && list.completeness == Completeness::Whole {
                let text = format!("more than {} pages", list.pages_max);
                return Err(unreadable(list.route, text));
            }
            if cut {
                warn!(route = list.route.name, pages = pages.len(), "a list was cut short");
            }
            if cut || held_still(&pages) {
                return Ok(items(&pages));
            }
        }
        match list.completeness {
            Completeness::Whole => {
                Err(unreadable(list.route, "the list kept changing while it was read"))
            }
            // The next reading is the correction.
            Completeness::AsFarAsRead => Ok(items(&self.pages::<T>(list).await?)),
        }
    }

    /// All pages once: the first tells how many there are, the others are read together,
    /// so that little can change meanwhile.
    async fn pages<T: Item>(&self, list: List<'_>) -> Result<Vec<Page<T>>, GitHubError> {
        let first = self.page::<T>(list, 1).await?;
        let known = match first.listing.total {
            Some(total) if first.has_next => {
                usize::try_from(total).unwrap_or(usize::MAX).div_ceil(PER_PAGE)
            }
            Some(_) | None => 1,
        };
        let known = known.min(list.pages_max);
        let mut pages = vec![first];
        pages.extend(try_join_all((2..=known).map(|number| self.page(list, number))).await?);
        while pages.len() < list.pages_max && pages.last().is_some_and(|page| page.has_next) {
            pages.push(self.page(list, pages.len() + 1).await?);
        }
        Ok(pages)
    }

    async fn page<T: Item>(&self, list: List<'_>, number: usize) -> Result<Page<T>, GitHubError> {
        let separator = if list.path.contains('?') { '&' } else { '?' };
        let path = format!("{}{separator}per_page={PER_PAGE}&page={number}", list.path);
        let call = Call::get(list.route, list.class, path);
        let (answer, bearer, remembered) =
            self.conditional(list.account, &call, list.memory).await?;
        match (answer.status, remembered) {
            (200, _) => {
                let listing = Arc::new(T::read(&answer.body).map_err(|source| {
                    // What was remembered is of an older answer than this one.
                    self.forget(&key(&call, &bearer));
                    unreadable(list.route, source)
                })?);
                let has_next = has_next(&answer);
                if list.memory == Memory::Kept {
                    self.remember(key(&call, &bearer), &answer, has_next, &listing);
                }
                Ok(Page { listing, has_next })
            }
            (304, Some(remembered)) => {
                let listing = remembered.digest().ok_or_else(|| {
                    // Kept by another version, perhaps: the next reading asks anew.
                    self.forget(&key(&call, &bearer));
                    unreadable(list.route, "not modified, but of another kind")
                })?;
                Ok(Page { listing, has_next: remembered.has_next })
            }
            (304, None) => Err(unreadable(list.route, "not modified, but never read before")),
            _ => Err(refused(list.route, &answer)),
        }
    }

    /// See [`super::GitHub::learnt`].
    pub(crate) fn learnt(&self) -> BTreeMap<String, Option<String>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).learnt()
    }

    /// See [`super::GitHub::recall`].
    pub(crate) fn recall_learnt(&self, learnt: &BTreeMap<String, String>) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).recall(learnt);
    }

    fn recall(&self, key: &Key) -> Option<Remembered> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(key)
    }

    fn forget(&self, key: &Key) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn remember<T: Item>(
        &self,
        key: Key,
        answer: &Answer,
        has_next: bool,
        listing: &Arc<Listing<T>>,
    ) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        match answer.headers.get(ETAG).and_then(|etag| etag.to_str().ok()) {
            Some(etag) => cache.put(key, etag, has_next, Arc::clone(listing)),
            None => cache.remove(&key),
        }
    }
}

fn key(call: &Call, bearer: &Bearer) -> Key {
    Key { credential: bearer.credential, path: call.path.clone() }
}

fn has_next(answer: &Answer) -> bool {
    answer
        .headers
        .get_all(LINK)
        .iter()
        .filter_map(|link| link.to_str().ok())
        .any(|link| link.contains("rel=\"next\""))
}

/// Whether the pages are of one state of the list: things that come and go between two
/// pages push others from one page to another, past the reader.
fn held_still<T>(pages: &[Page<T>]) -> bool {
    let Some(total) = pages.first().and_then(|page| page.listing.total) else { return true };
    pages.iter().all(|page| page.listing.total == Some(total)) && listed(pages) >= total
}

/// Whether the last page is the end of the list. A filtered list of runs ends after 1,000,
/// whatever its total says.
fn ended<T>(pages: &[Page<T>]) -> bool {
    let Some(last) = pages.last() else { return true };
    let beyond = last.listing.total.is_some_and(|total| total > listed(pages));
    !last.has_next && !beyond
}

fn listed<T>(pages: &[Page<T>]) -> u64 {
    pages.iter().map(|page| u64::try_from(page.listing.listed).unwrap_or(u64::MAX)).sum()
}

fn items<T: Clone>(pages: &[Page<T>]) -> Vec<T> {
    pages.iter().flat_map(|page| page.listing.items.iter().cloned()).collect()
}
