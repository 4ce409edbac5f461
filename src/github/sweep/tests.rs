use super::*;
use crate::fleet::budget::Budget;
use crate::github::budget::POINTS_PER_MINUTE;

const POLL: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> Timestamp {
    Timestamp(1_000_000_000 + seconds * 1000)
}

fn name(n: usize) -> RepoName {
    RepoName(format!("acme/r{n:03}"))
}

fn sweep(repositories: usize) -> Sweep {
    let list: Vec<_> = (0..repositories)
        .map(|n| Repository { name: name(n), pushed_at: Some(Timestamp(n as u64)) })
        .collect();
    let mut sweep = Sweep::default();
    sweep.relist(&list, at(0));
    sweep
}

fn used(points: u32) -> Budget {
    Budget { points_this_minute: points, ..Budget::open(180) }
}

/// Spends from a minute's points as the client does, over any 60 seconds.
#[derive(Default)]
struct Minute(Vec<(Timestamp, u32)>);

impl Minute {
    fn used(&self, now: Timestamp) -> u32 {
        self.0
            .iter()
            .filter(|(at, _)| now.since(*at) < Duration::from_secs(60))
            .map(|(_, points)| points)
            .sum()
    }

    fn budget(&self, now: Timestamp) -> Budget {
        used(self.used(now))
    }
}

/// Polls for `seconds`; `active` repositories have runs all the time. Gives, per
/// repository, the longest time between two readings.
fn run(sweep: &mut Sweep, poll: Duration, seconds: u64, active: &[RepoName]) -> (Minute, Vec<u64>) {
    let mut minute = Minute::default();
    let mut last: BTreeMap<RepoName, Timestamp> =
        sweep.ages(at(0)).map(|(name, _)| (name.clone(), at(0))).collect();
    let mut longest: BTreeMap<RepoName, u64> = BTreeMap::new();
    let mut now = at(0);
    while now < at(seconds) {
        for repo in sweep.due(now, poll, &minute.budget(now)) {
            minute.0.push((now, POINTS_PER_READING));
            sweep.read(&repo, now, active.contains(&repo));
            let before = last.insert(repo.clone(), now).expect("known");
            let gap = longest.entry(repo).or_default();
            *gap = (*gap).max(now.since(before).as_secs());
        }
        assert!(minute.used(now) <= POINTS_PER_MINUTE, "{} points", minute.used(now));
        now = now + poll;
    }
    for (repo, last) in last {
        let gap = longest.entry(repo).or_default();
        *gap = (*gap).max(now.since(last).as_secs());
    }
    (minute, longest.into_values().collect())
}

#[test]
fn five_hundred_quiet_repositories_are_all_read_within_four_minutes_for_ever() {
    for poll in [1, 5, 30, 60] {
        let mut sweep = sweep(500);
        let poll = Duration::from_secs(poll);
        let (minute, gaps) = run(&mut sweep, poll, 3600, &[]);
        assert_eq!(gaps.len(), 500);
        let longest = gaps.iter().max().expect("gaps");
        assert!(*longest <= 240, "{poll:?}: {longest} s");
        assert!(minute.used(at(3599)) <= SWEEP_POINTS_PER_MINUTE + POINTS_PER_READING);
    }
}

#[test]
fn the_first_sweep_goes_by_push_and_uses_the_whole_allowance() {
    let sweep = sweep(500);
    let due = sweep.due(at(0), POLL, &used(0));
    assert_eq!(due.len(), 225);
    assert_eq!(due[0], name(499));
    assert_eq!(due[224], name(275));
}

#[test]
fn an_active_repository_is_read_at_every_poll_even_without_allowance() {
    let mut sweep = sweep(500);
    for n in 0..500 {
        sweep.read(&name(n), at(1), n == 7);
    }
    assert_eq!(sweep.due(at(31), POLL, &used(900)), [name(7)]);
    assert_eq!(sweep.due(at(602), POLL, &used(900)), [], "it has been quiet for ten minutes");
}

#[test]
fn many_active_repositories_do_not_starve_the_others_nor_cross_the_limit() {
    let mut sweep = sweep(500);
    let active: Vec<_> = (0..200).map(name).collect();
    let (minute, gaps) = run(&mut sweep, POLL, 3600, &active);
    assert!(minute.used(at(3599)) <= SWEEP_POINTS_PER_MINUTE + 4 * POINTS_PER_READING);
    assert!(gaps.iter().all(|gap| *gap <= 600), "{:?}", gaps.iter().max());
}

#[test]
fn a_repository_that_cannot_be_read_waits_its_turn() {
    let mut sweep = sweep(3);
    for n in [0, 1] {
        sweep.read(&name(n), at(1), false);
    }
    assert_eq!(sweep.due(at(2), Duration::from_secs(1), &used(0))[0], name(2));
    sweep.failed(&name(2), at(2));
    assert_eq!(sweep.due(at(3), Duration::from_secs(1), &used(0)).last(), Some(&name(2)));
    let unread: Vec<_> = sweep.ages(at(3)).filter(|(_, age)| age.is_none()).collect();
    assert_eq!(unread, [(&name(2), None)], "a failed reading has no age");
}

#[test]
fn a_push_after_the_last_reading_makes_a_repository_active() {
    let mut sweep = sweep(3);
    for n in 0..3 {
        sweep.read(&name(n), at(10), false);
    }
    let pushed = |n: usize| if n == 1 { at(20) } else { at(0) };
    let list: Vec<_> =
        (0..3).map(|n| Repository { name: name(n), pushed_at: Some(pushed(n)) }).collect();
    sweep.relist(&list, at(30));
    assert_eq!(sweep.due(at(30), POLL, &used(900)), [name(1)]);
    sweep.read(&name(1), at(31), false);
    assert_eq!(sweep.due(at(32), POLL, &used(900)), []);
}

#[test]
fn a_fresh_list_keeps_what_is_known_and_forgets_what_vanished() {
    let mut sweep = sweep(3);
    sweep.read(&name(0), at(5), true);
    assert!(!sweep.list_is_due(at(599)));
    assert!(sweep.list_is_due(at(600)));
    let list = [
        Repository { name: name(0), pushed_at: None },
        Repository { name: name(9), pushed_at: None },
    ];
    sweep.relist(&list, at(600));
    let ages: Vec<_> = sweep.ages(at(605)).collect();
    assert_eq!(ages, [(&name(0), Some(Duration::from_secs(600))), (&name(9), None)]);
    let coverage = sweep.coverage(at(605));
    assert_eq!((coverage.repositories, coverage.never_read, coverage.active), (2, 1, 0));
    assert_eq!(coverage.oldest, Some(Duration::from_secs(600)));
    sweep.read(&name(1), at(606), true);
    assert_eq!(sweep.coverage(at(606)).repositories, 2, "a late answer revives nothing");
}

#[test]
fn a_blocked_or_spent_budget_allows_no_sweep() {
    let due = |budget: &Budget| sweep(500).due(at(1), POLL, budget).len();
    assert_eq!([0, 440, 690, 700, 900].map(|points| due(&used(points))), [225, 30, 5, 0, 0]);
    let blocked = Budget { blocked_until: Some(at(9)), ..Budget::open(0) };
    assert_eq!(due(&blocked), 0);
    let over = Budget { blocked_until: Some(at(1)), ..Budget::open(0) };
    assert_eq!(due(&over), 225);
}

#[test]
fn the_floor_of_a_minute_is_spent_once() {
    let mut sweep = sweep(500);
    for repo in sweep.due(at(0), POLL, &used(440)) {
        sweep.read(&repo, at(0), false);
    }
    assert!(sweep.due(at(59), POLL, &used(500)).is_empty());
    assert_eq!(sweep.due(at(61), POLL, &used(500)).len(), 30);
}
