use proptest::prelude::*;

use super::*;

pub(super) const PAT: CredentialId = CredentialId::Token;

pub(super) fn seconds(n: u64) -> Timestamp {
    Timestamp(1_000_000_000 + n * 1000)
}

pub(super) fn answered() -> Outcome {
    Outcome::Answered(LimitHeaders::default())
}

pub(super) fn headers(limit: u64, remaining: u64, resets_at: Timestamp) -> LimitHeaders {
    LimitHeaders {
        limit: Some(limit),
        remaining: Some(remaining),
        resets_at: Some(resets_at),
        ..LimitHeaders::default()
    }
}

pub(super) fn secondary(retry_after: Option<Duration>) -> Outcome {
    let headers = LimitHeaders { retry_after, ..LimitHeaders::default() };
    Outcome::Limited(headers, Refusal::Secondary)
}

/// Sends calls of the class until the budget refuses; answers come at once.
pub(super) fn drain(budget: &mut CallBudget, class: CallClass, now: Timestamp) -> (u32, Shortage) {
    let mut sent = 0;
    loop {
        match budget.reserve(class, PAT, now) {
            Ok(ticket) => budget.settle(&ticket, &answered(), now),
            Err(shortage) => return (sent, shortage),
        }
        sent += 1;
    }
}

#[test]
fn a_fresh_minute_holds_180_registrations_and_no_more() {
    let mut budget = CallBudget::default();
    assert_eq!(budget.snapshot(seconds(0)).mints_now, 180);
    let (minted, shortage) = drain(&mut budget, CallClass::Mint, seconds(0));
    assert_eq!((minted, shortage), (180, Shortage::MinutePoints));
    assert_eq!(budget.snapshot(seconds(0)).points_this_minute, 900);
    assert_eq!(budget.snapshot(seconds(59)).mints_now, 0);
    assert_eq!(budget.snapshot(seconds(61)).mints_now, 180);
}

#[test]
fn a_call_counts_from_its_reservation_to_a_minute_after_its_answer() {
    let mut budget = CallBudget::default();
    let ticket = budget.reserve(CallClass::Mint, PAT, seconds(0)).expect("room");
    assert_eq!(budget.snapshot(seconds(0)).points_this_minute, 5);
    budget.settle(&ticket, &Outcome::Lost, seconds(15));
    assert_eq!(budget.snapshot(seconds(70)).points_this_minute, 5);
    assert_eq!(budget.snapshot(seconds(76)).points_this_minute, 0);
}

#[test]
fn a_cancelled_call_costs_nothing() {
    let mut budget = CallBudget::default();
    let ticket = budget.reserve(CallClass::Mint, PAT, seconds(0)).expect("room");
    budget.cancel(&ticket);
    assert_eq!(budget.snapshot(seconds(0)).points_this_minute, 0);
}

#[test]
fn calls_are_given_up_in_the_order_of_their_urgency() {
    let classes = [
        CallClass::Extra,
        CallClass::Sweep,
        CallClass::Queue,
        CallClass::Registrations,
        CallClass::Deregister,
    ];
    let mut budget = CallBudget::default();
    let mut points = Vec::new();
    for class in classes {
        let (_, shortage) = drain(&mut budget, class, seconds(0));
        assert_eq!(shortage, Shortage::MinutePoints);
        points.push(budget.snapshot(seconds(0)).points_this_minute);
    }
    assert_eq!(points, [200, 450, 800, 850, 900]);
}

#[test]
fn busy_repositories_leave_sweeps_a_floor() {
    let mut budget = CallBudget::default();
    for _ in 0..600 {
        let ticket = budget.reserve(CallClass::Queue, PAT, seconds(0)).expect("room");
        budget.settle(&ticket, &answered(), seconds(0));
    }
    assert_eq!(drain(&mut budget, CallClass::Sweep, seconds(0)).0, SWEEP_FLOOR_POINTS);
}

#[test]
fn the_rest_of_the_primary_limit_is_kept_for_the_urgent() {
    let mut budget = CallBudget::default();
    let learn = |budget: &mut CallBudget, remaining| {
        let ticket = budget.reserve(CallClass::Token, PAT, seconds(0)).expect("room");
        let headers = headers(5000, remaining, seconds(3600));
        budget.settle(&ticket, &Outcome::Answered(headers), seconds(0));
    };
    let may = |budget: &mut CallBudget, class| {
        budget.reserve(class, PAT, seconds(1)).map(|ticket| budget.cancel(&ticket))
    };
    for (remaining, shed, kept) in [
        (1500, CallClass::Extra, CallClass::Sweep),
        (750, CallClass::Sweep, CallClass::Queue),
        (300, CallClass::Queue, CallClass::Registrations),
        (200, CallClass::Registrations, CallClass::Mint),
        (50, CallClass::Mint, CallClass::Deregister),
    ] {
        learn(&mut budget, remaining);
        assert_eq!(may(&mut budget, shed), Err(Shortage::PrimaryPoints), "{remaining}");
        assert_eq!(may(&mut budget, kept), Ok(()), "{remaining}");
    }
    assert_eq!(budget.snapshot(seconds(1)).mints_now, 0);
    assert_eq!(budget.snapshot(seconds(1)).remaining, Some(50));
    assert_eq!(budget.snapshot(seconds(3601)).remaining, None);
    assert!(budget.reserve(CallClass::Extra, PAT, seconds(3601)).is_ok());
}

#[test]
fn an_answer_that_was_overtaken_does_not_refill_the_window() {
    let mut budget = CallBudget::default();
    for remaining in [100, 101] {
        let ticket = budget.reserve(CallClass::Mint, PAT, seconds(0)).expect("room");
        let headers = headers(5000, remaining, seconds(3600));
        budget.settle(&ticket, &Outcome::Answered(headers), seconds(0));
    }
    assert_eq!(budget.snapshot(seconds(0)).remaining, Some(100));
}

#[test]
fn one_credential_that_is_spent_does_not_stop_another() {
    let mut budget = CallBudget::default();
    let ticket = budget.reserve(CallClass::Queue, PAT, seconds(0)).expect("room");
    let refused = Outcome::Limited(headers(5000, 0, seconds(3600)), Refusal::Primary);
    budget.settle(&ticket, &refused, seconds(0));
    assert_eq!(
        budget.reserve(CallClass::Deregister, PAT, seconds(1)).err(),
        Some(Shortage::PrimaryPoints)
    );
    let other = CredentialId::Installation(7);
    assert!(budget.reserve(CallClass::Queue, other, seconds(1)).is_ok());
}

#[test]
fn retry_after_stops_everything_until_then() {
    let mut budget = CallBudget::default();
    let ticket = budget.reserve(CallClass::Queue, PAT, seconds(0)).expect("room");
    budget.settle(&ticket, &secondary(Some(Duration::from_secs(30))), seconds(0));
    for class in [CallClass::Extra, CallClass::Mint, CallClass::Deregister, CallClass::Token] {
        assert_eq!(
            budget.reserve(class, PAT, seconds(29)).err(),
            Some(Shortage::Blocked { until: seconds(30) })
        );
    }
    assert_eq!(budget.snapshot(seconds(29)).mints_now, 0);
    assert_eq!(budget.snapshot(seconds(29)).blocked_until, Some(seconds(30)));
    assert!(budget.reserve(CallClass::Queue, PAT, seconds(30)).is_ok());
    assert_eq!(budget.snapshot(seconds(30)).blocked_until, None);
}

#[test]
fn a_refusal_without_a_time_waits_a_minute_then_longer() {
    let mut budget = CallBudget::default();
    let mut now = seconds(0);
    for wait in [60, 120, 240, 480, 900, 900] {
        let ticket = budget.reserve(CallClass::Queue, PAT, now).expect("room");
        budget.settle(&ticket, &secondary(None), now + Duration::from_millis(1));
        now = now + Duration::from_secs(wait) + Duration::from_millis(1);
        assert_eq!(budget.snapshot(now - Duration::from_millis(1)).blocked_until, Some(now));
    }
    let ticket = budget.reserve(CallClass::Queue, PAT, now).expect("room");
    budget.settle(&ticket, &answered(), now);
    let ticket = budget.reserve(CallClass::Queue, PAT, now).expect("room");
    let later = now + Duration::from_millis(1);
    budget.settle(&ticket, &secondary(None), later);
    assert_eq!(budget.snapshot(later).blocked_until, Some(later + Duration::from_secs(60)));
}

#[test]
fn a_burst_of_refusals_halves_the_minting_rate_once_and_quiet_minutes_restore_it() {
    let mut budget = CallBudget::default();
    let tickets: Vec<_> =
        (0..20).map(|_| budget.reserve(CallClass::Mint, PAT, seconds(0)).expect("room")).collect();
    for ticket in tickets {
        budget.settle(&ticket, &secondary(Some(Duration::from_secs(100))), seconds(1));
    }
    assert_eq!(budget.snapshot(seconds(101)).mints_now, 90);
    assert_eq!(drain(&mut budget, CallClass::Mint, seconds(101)), (90, Shortage::MintRate));
    assert_eq!(budget.snapshot(seconds(240)).mints_now, 180);
}

#[test]
fn the_minting_rate_never_reaches_zero() {
    let mut budget = CallBudget::default();
    let mut now = seconds(0);
    for _ in 0..40 {
        let ticket = budget.reserve(CallClass::Mint, PAT, now).expect("room");
        now = now + Duration::from_secs(1);
        budget.settle(&ticket, &secondary(Some(Duration::from_secs(1))), now);
        now = now + Duration::from_secs(61);
    }
    assert!(budget.snapshot(now).mints_now >= MINTS_PER_MINUTE_MIN);
}

#[test]
fn a_reset_is_moved_from_githubs_clock_to_ours() {
    let mut headers = http::HeaderMap::new();
    headers.insert("x-ratelimit-reset", "1767326400".parse().expect("a number"));
    let read = |headers: &http::HeaderMap| LimitHeaders::read(headers, seconds(0)).resets_at;
    assert_eq!(read(&headers), Some(Timestamp(1_767_326_400_000)), "no clock is told");
    headers.insert("date", "Fri, 02 Jan 2026 03:55:00 GMT".parse().expect("a date"));
    assert_eq!(read(&headers), Some(seconds(300)));
    headers.insert("date", "Fri, 02 Jan 2026 05:00:00 GMT".parse().expect("a date"));
    assert_eq!(read(&headers), Some(seconds(0)), "it is over");
}

#[test]
fn a_primary_refusal_whose_reset_is_over_waits_all_the_same() {
    let mut budget = CallBudget::default();
    let ticket = budget.reserve(CallClass::Queue, PAT, seconds(0)).expect("room");
    let refused = Outcome::Limited(headers(5000, 0, seconds(0)), Refusal::Primary);
    budget.settle(&ticket, &refused, seconds(0));
    assert!(budget.reserve(CallClass::Queue, PAT, seconds(59)).is_err());
    assert!(budget.reserve(CallClass::Queue, PAT, seconds(60)).is_ok());
}

#[test]
fn a_refused_permission_is_no_limit() {
    let plain = LimitHeaders { remaining: Some(4000), ..LimitHeaders::default() };
    assert_eq!(Refusal::of(403, &plain, "Resource not accessible by integration"), None);
    assert_eq!(Refusal::of(404, &plain, "rate limit"), None);
    let empty = LimitHeaders { remaining: Some(0), ..LimitHeaders::default() };
    assert_eq!(Refusal::of(403, &empty, ""), Some(Refusal::Primary));
    assert_eq!(
        Refusal::of(403, &plain, "You have exceeded a secondary rate limit"),
        Some(Refusal::Secondary)
    );
    assert_eq!(Refusal::of(429, &plain, ""), Some(Refusal::Secondary));
}

proptest! {
    /// However calls are interleaved and however late they are answered, no minute of
    /// GitHub's clock ever holds more than 900 points.
    #[test]
    fn no_minute_ever_holds_more_than_the_limit(
        steps in prop::collection::vec((0_u64..4000, 0_usize..7, 1_usize..120, 0_u64..9000), 1..80)
    ) {
        let classes = [
            CallClass::Extra, CallClass::Sweep, CallClass::Queue, CallClass::Registrations,
            CallClass::Mint, CallClass::Deregister, CallClass::Token,
        ];
        let mut budget = CallBudget::default();
        let mut now = seconds(0);
        let mut open: Vec<(Timestamp, Ticket)> = Vec::new();
        let mut counted: Vec<(Timestamp, u32)> = Vec::new();
        for (pause, class, calls, latency) in steps {
            now = now + Duration::from_millis(pause);
            let (due, rest): (Vec<_>, Vec<_>) = open.into_iter().partition(|(at, _)| *at <= now);
            open = rest;
            for (at, ticket) in due {
                budget.settle(&ticket, &answered(), at);
            }
            for _ in 0..calls {
                let Ok(ticket) = budget.reserve(classes[class], PAT, now) else { break };
                // GitHub counts it anywhere between sending and answer.
                counted.push((now + Duration::from_millis(latency / 2), classes[class].points()));
                open.push((now + Duration::from_millis(latency), ticket));
            }
        }
        for (end, _) in &counted {
            let minute: u32 = counted
                .iter()
                .filter(|(at, _)| at <= end && end.since(*at) < Duration::from_secs(60))
                .map(|(_, points)| points)
                .sum();
            prop_assert!(minute <= POINTS_PER_MINUTE, "{minute} points");
        }
    }
}
