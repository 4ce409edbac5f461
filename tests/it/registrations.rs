//! What is known of registrations, from lists that hold still and from lists that do not.

use std::time::Duration;

use proptest::prelude::*;
use runner_orchestrator::fleet::id::{ClusterMark, GitHubRunnerId, RunnerName};
use runner_orchestrator::fleet::policy::Policy;
use runner_orchestrator::fleet::pool::Scope;
use runner_orchestrator::fleet::registration::{
    Expected, HostsWord, Listed, RegistrationBook, Row, ScopeReading, ScopeState, Stillness,
};
use runner_orchestrator::fleet::time::Timestamp;

fn seconds(n: u64) -> Timestamp {
    Timestamp(1_800_000_000_000) + Duration::from_secs(n)
}

fn mark() -> ClusterMark {
    ClusterMark::derive("lists")
}

fn name(n: u64) -> RunnerName {
    RunnerName(format!("orchestrated-{}-00000000-{n:012x}", mark().as_str()))
}

fn scope(org: &str) -> Scope {
    Scope::Org(org.to_owned())
}

/// How a runner is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum As {
    Offline,
    Online,
    Busy,
}

fn row(n: u64, shown: As) -> Row {
    let online = shown != As::Offline;
    Row { id: GitHubRunnerId(n), name: name(n), online, busy: shown == As::Busy }
}

fn still(at: u64, rows: impl IntoIterator<Item = (u64, As)>) -> ScopeReading {
    let rows = rows.into_iter().map(|(n, shown)| row(n, shown)).collect();
    let stillness = Stillness::Still;
    ScopeReading { scope: scope("acme"), begun_at: seconds(at), stillness, rows }
}

fn moving(at: u64, rows: impl IntoIterator<Item = (u64, As)>) -> ScopeReading {
    let stillness = Stillness::Moving { last_pass_at: seconds(at) };
    ScopeReading { stillness, ..still(at, rows) }
}

/// Reads as if these should be registered since the start, and those had ended.
fn read(
    book: &mut RegistrationBook,
    reading: ScopeReading,
    expected: impl IntoIterator<Item = u64>,
    ended: impl IntoIterator<Item = u64>,
) {
    let acme = scope("acme");
    let one = Expected { since: seconds(0), scope: Some(&acme) };
    let ended = ended.into_iter().map(|n| (name(n), seconds(0))).collect();
    let expected = expected.into_iter().map(|n| (name(n), one)).collect();
    let word = HostsWord { expected, ended: &ended };
    book.read(reading, &mark(), &word, &Policy::default());
}

fn denies(book: &RegistrationBook, n: u64) -> bool {
    book.denies(&name(n), seconds(0), &Policy::default())
}

/// Four hundred runners of which eight end and eight begin between two readings, each of
/// which skips some: those that live stay listed, those that ended go.
#[test]
fn a_list_that_never_holds_still_is_known_all_the_same() {
    let mut book = RegistrationBook::default();
    for turn in 0..60 {
        let living = turn * 8..turn * 8 + 400;
        let skipped = |n: u64| (n + turn * 7).is_multiple_of(40);
        let shown = living.clone().filter(|n| !skipped(*n)).map(|n| (n, As::Online));
        read(&mut book, moving(turn * 30, shown), living.clone(), []);
        let now = seconds(turn * 30 + 29);
        assert!(book.is_fresh(&scope("acme"), &Policy::default(), now));
        assert_eq!(book.knows_missing(&scope("acme")), turn > 0);
        assert!(!book.mass_vanished());
        for n in living.clone() {
            let new = turn == 0 || n >= living.end - 8;
            assert!(book.shows_alive(&name(n)) || (new && skipped(n)), "{n} in turn {turn}");
            assert!(!denies(&book, n), "{n} in turn {turn}");
        }
        let ghosts = book.listed().len() - living.filter(|n| book.shows_alive(&name(*n))).count();
        assert!(ghosts <= 8, "{ghosts} that ended before the last reading in turn {turn}");
    }
}

#[test]
fn a_moving_list_denies_what_it_lacks_twice_in_a_row_or_shows_offline() {
    let mut book = RegistrationBook::default();
    for (at, denied) in [(70, false), (100, false), (130, true)] {
        read(&mut book, moving(at, []), [1], []);
        assert_eq!(denies(&book, 1), denied, "{at}");
    }
    let mut book = RegistrationBook::default();
    for (at, denied) in [(70, false), (100, true)] {
        read(&mut book, moving(at, [(1, As::Offline)]), [1], []);
        assert_eq!(denies(&book, 1), denied, "{at}");
    }
    // Lacked too early to say anything: that is no first time.
    let mut book = RegistrationBook::default();
    for (at, denied) in [(50, false), (70, false), (80, false), (90, true)] {
        read(&mut book, moving(at, []), [1], []);
        assert_eq!(denies(&book, 1), denied, "{at}");
    }
}

/// Regression: the list of one scope counted as a reading of all, and a runner of another
/// was denied as soon as its own list could not be read.
#[test]
fn the_list_of_another_scope_denies_nobody() {
    let mut book = RegistrationBook::default();
    for at in [70, 100, 130] {
        let other = ScopeReading { scope: scope("other"), ..still(at, []) };
        read(&mut book, other, [1], []);
        assert!(!denies(&book, 1), "{at}");
    }
    read(&mut book, still(160, []), [1], []);
    read(&mut book, still(190, []), [1], []);
    assert!(denies(&book, 1));
}

#[test]
fn an_unclaimed_one_must_be_seen_without_a_gap() {
    let mut book = RegistrationBook::default();
    let since = |book: &RegistrationBook| book.listed()[&name(1)].unclaimed_since;
    let last_pass_at = seconds(4);
    let reading = moving(0, [(1, As::Offline)]);
    let reading = ScopeReading { stillness: Stillness::Moving { last_pass_at }, ..reading };
    read(&mut book, reading, [], []);
    assert_eq!(since(&book), Some(last_pass_at), "the row may be as young as that");
    read(&mut book, moving(30, []), [], []);
    assert_eq!(since(&book), None);
    read(&mut book, moving(60, [(1, As::Offline)]), [], []);
    assert_eq!(since(&book), Some(seconds(60)));
}

#[test]
fn what_ended_by_its_hosts_word_goes_with_the_first_reading_that_lacks_it() {
    let mut book = RegistrationBook::default();
    read(&mut book, moving(0, [(1, As::Busy), (2, As::Busy)]), [1, 2], []);
    read(&mut book, moving(30, []), [2], [1]);
    assert_eq!(book.listed().keys().collect::<Vec<_>>(), [&name(2)]);
}

#[test]
fn a_mass_that_two_moving_readings_lack_has_vanished() {
    let mut book = RegistrationBook::default();
    let all = || (0..10).map(|n| (n, As::Online));
    read(&mut book, moving(0, all()), 0..10, []);
    read(&mut book, moving(30, all().take(4)), 0..10, []);
    assert!(!book.mass_vanished());
    read(&mut book, moving(60, all().take(4)), 0..10, []);
    assert!(book.mass_vanished());
    read(&mut book, moving(90, all()), 0..10, []);
    assert!(!book.mass_vanished());
}

/// Replicas of the version before this one write neither field, and pass both over.
#[test]
fn the_version_before_is_read() {
    let mut book = RegistrationBook::default();
    read(&mut book, moving(0, [(1, As::Online)]), [1], []);
    let state = serde_json::json!({
        "read_at": seconds(0), "unread_since": null, "error": null, "foreign": 0,
    });
    let state: ScopeState = serde_json::from_value(state).unwrap();
    assert!(!state.half_read && book.scopes()[&scope("acme")].half_read);
    let listed = &book.listed()[&name(1)];
    let mut value = serde_json::to_value(listed).unwrap();
    assert!(value.get("missed").is_none());
    assert_eq!(&serde_json::from_value::<Listed>(value.clone()).unwrap(), listed);
    value["missed"] = true.into();
    assert!(serde_json::from_value::<Listed>(value).unwrap().missed);
}

/// The runners that the properties are about.
const NAMES: std::ops::Range<u64> = 0..8;

fn shown() -> impl Strategy<Value = Option<As>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(As::Offline)),
        2 => Just(Some(As::Online)),
        1 => Just(Some(As::Busy)),
    ]
}

/// Whether the list held still, and who was shown how.
fn one_reading() -> impl Strategy<Value = (bool, Vec<Option<As>>)> {
    (any::<bool>(), proptest::collection::vec(shown(), 8))
}

fn reading_of(at: u64, is_still: bool, rows: &[Option<As>]) -> ScopeReading {
    let rows = (0..).zip(rows).filter_map(|(n, shown)| shown.map(|shown| (n, shown)));
    if is_still { still(at, rows) } else { moving(at, rows) }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was read before: what a moving reading lacks and the one before it showed is
    /// never taken for gone.
    #[test]
    fn no_runner_is_ever_taken_for_gone_on_one_moving_reading(
        history in proptest::collection::vec(one_reading(), 1..12),
        last in proptest::collection::vec(shown(), 8),
        expected in proptest::collection::btree_set(NAMES, 0..8),
    ) {
        let mut book = RegistrationBook::default();
        let mut at = 0;
        for (is_still, rows) in &history {
            read(&mut book, reading_of(at, *is_still, rows), expected.clone(), []);
            at += 30;
        }
        let mut after = book.clone();
        read(&mut after, reading_of(at, false, &last), expected.clone(), []);
        let (_, before_last) = history.last().unwrap();
        for n in NAMES {
            let index = usize::try_from(n).unwrap();
            if before_last[index].is_none() || last[index].is_some() {
                continue;
            }
            let (row, now) = (&book.listed()[&name(n)], after.listed().get(&name(n)));
            prop_assert_eq!(now.map(|now| (now.online, now.busy)), Some((row.online, row.busy)));
            prop_assert_eq!(now.and_then(|now| now.unclaimed_since), None);
            prop_assert_eq!(denies(&after, n), denies(&book, n));
        }
    }

    /// Listed is exactly what the last reading showed, and, if it moved, the one before it.
    #[test]
    fn what_is_missing_is_what_two_readings_or_a_still_one_lack(
        history in proptest::collection::vec(one_reading(), 1..12),
        expected in proptest::collection::btree_set(NAMES, 0..8),
    ) {
        let mut book = RegistrationBook::default();
        let nobody = vec![None; 8];
        let mut before = &nobody;
        for (at, (is_still, rows)) in (0..).zip(&history) {
            read(&mut book, reading_of(at * 30, *is_still, rows), expected.clone(), []);
            for (n, (now, before)) in (0..).zip(rows.iter().zip(before)) {
                let there = now.is_some() || (!is_still && before.is_some());
                prop_assert_eq!(book.listed().contains_key(&name(n)), there);
            }
            before = rows;
        }
        prop_assert_eq!(book.knows_missing(&scope("acme")), history[0].0 || history.len() > 1);
    }
}
