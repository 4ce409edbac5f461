//! Authenticated, conditional, paged reading. Pages are asked for by number: an absolute
//! `next` address may name another host than the one we were told to talk to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{try_join, try_join_all};
use http::header::{ETAG, LINK};
use tracing::{debug, warn};

use super::GitHubError;
use super::answers::{Item, Listing};
use super::auth::Auth;
use super::budget::CallClass;
use super::cache::{Cache, Key, Remembered};
use super::line::{Bearer, Call, Line, refused, unreadable};
use super::route::{Account, Route};
use super::wire::Answer;
use crate::fleet::registration::Stillness;
use crate::fleet::time::Timestamp;

/// GitHub's largest page.
pub(crate) const PER_PAGE: usize = 100;
/// Passes over a list that changes while it is read, before the last one is taken as it is.
const PASSES_MAX: usize = 3;
/// Passes over such a list where all of it must be known. What goes moves the rows behind it
/// up, past a reader who reads on; the next pass finds a row that slipped past unless as
/// much has gone meanwhile as to move it by a whole page. So two show nearly everything, and
/// whoever asks takes nothing for missing before two readings have lacked it. Each further
/// pass would cost up to a hundred points every poll, of nine hundred a minute.
const WHOLE_PASSES_MAX: usize = 2;

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
    /// Too long: an error, for something would be taken for missing. Moving: all that any
    /// pass showed.
    Whole,
    /// What was read last: the rest makes no difference to what we do.
    AsFarAsRead,
}

/// A list as it was read.
#[derive(Debug)]
pub(crate) struct Reading<T> {
    /// Of a list that moved, the rows of all passes, the last pass first.
    pub(crate) items: Vec<T>,
    /// The start of the pass that held still, or else of the first one.
    pub(crate) begun_at: Timestamp,
    /// Means something only where all had to be known.
    pub(crate) stillness: Stillness,
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

    /// The items of a list read to its end.
    pub(crate) async fn list<T: Item>(&self, list: List<'_>) -> Result<Vec<T>, GitHubError> {
        Ok(self.read(list).await?.items)
    }

    /// Reads the list to its end.
    pub(crate) async fn read<T: Item>(&self, list: List<'_>) -> Result<Reading<T>, GitHubError> {
        let whole = list.completeness == Completeness::Whole;
        let passes = if whole { WHOLE_PASSES_MAX } else { PASSES_MAX };
        let begun_at = self.line.now();
        let mut moving: Option<Reading<T>> = None;
        for _ in 0..passes {
            let pass_at = self.line.now();
            let pages = match self.pages::<T>(list).await {
                Ok(pages) => pages,
                // What was read is true; only more of it may be missing.
                Err(GitHubError::Shed { .. }) if whole && moving.is_some() => break,
                Err(error) => return Err(error),
            };
            let cut = pages.len() >= list.pages_max && !ended(&pages);
            if cut && whole {
                let text = format!("more than {} pages", list.pages_max);
                return Err(unreadable(list.route, text));
            }
            if cut {
                warn!(route = list.route.name, pages = pages.len(), "a list was cut short");
            }
            let mut items = items(&pages);
            if cut || (held_still(&pages) && (!whole || self.ends_stand(list, &pages).await?)) {
                let stillness = Stillness::Still;
                return Ok(Reading { items, begun_at: pass_at, stillness });
            }
            let before = moving.take().filter(|_| whole);
            items.extend(before.into_iter().flat_map(|before| before.items));
            let stillness = Stillness::Moving { last_pass_at: pass_at };
            moving = Some(Reading { items, begun_at, stillness });
        }
        debug!(route = list.route.name, "a list kept changing while it was read");
        moving.ok_or_else(|| unreadable(list.route, "not read at all"))
    }

    /// All pages once: the first tells how many there are, the others are read together,
    /// so that little can change meanwhile. See [`Self::ends_stand`] for their order.
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
        // Of a list that must be whole the last one comes before those between.
        let end = match list.completeness {
            Completeness::Whole if known > 2 => Some(self.page(list, known).await?),
            Completeness::Whole | Completeness::AsFarAsRead => None,
        };
        let between = 2..=known - usize::from(end.is_some());
        pages.extend(try_join_all(between.map(|number| self.page(list, number))).await?);
        pages.extend(end);
        while pages.len() < list.pages_max && pages.last().is_some_and(|page| page.has_next) {
            pages.push(self.page(list, pages.len() + 1).await?);
        }
        Ok(pages)
    }

    /// Whether the first and the last page are as they were before those between were read.
    /// Where one comes for each that goes the total stays, and rows slip past all the same;
    /// but whatever comes or goes in a list changes its last page, or its first.
    async fn ends_stand<T: Item>(
        &self,
        list: List<'_>,
        pages: &[Page<T>],
    ) -> Result<bool, GitHubError> {
        let [first, .., end] = pages else { return Ok(true) };
        if first.listing.total.is_none() {
            // What tells no total is taken as it is.
            return Ok(true);
        }
        let again = try_join(self.page(list, 1), self.page(list, pages.len())).await;
        match again {
            Ok((first_again, end_again)) => Ok(same(first, &first_again) && same(end, &end_again)),
            // Nobody can tell, then.
            Err(GitHubError::Shed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
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

/// Whether two readings of a page show the same things in the same order.
fn same<T: Item>(a: &Page<T>, b: &Page<T>) -> bool {
    let (a, b) = (&a.listing.items, &b.listing.items);
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same(b))
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
