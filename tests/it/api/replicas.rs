//! The same answers on every replica, with their age, and whatever does not get on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runner_orchestrator::api::router;
use runner_orchestrator::fleet::id::ReplicaId;
use runner_orchestrator::store::{Store, Unreadable};
use serde_json::{Value, json};
use uuid::Uuid;

use super::world::{Setup, World, led, listening, pair, running, unserved_pair};
use crate::it::support::promtool;

const READS: [&str; 9] = [
    "/health",
    "/readyz",
    "/api/v1/status",
    "/api/v1/runners",
    "/api/v1/pools",
    "/api/v1/hosts",
    "/api/v1/replicas",
    "/api/v1/jobs",
    "/api/v1/decisions",
];

fn problems(body: &Value) -> Vec<(String, String)> {
    let replicas = body["replicas"].as_array().unwrap();
    let text = |it: &Value| it.as_str().unwrap().to_owned();
    replicas
        .iter()
        .flat_map(|replica| replica["problems"].as_array().unwrap())
        .map(|it| (text(&it["what"]), text(&it["problem"])))
        .collect()
}

fn degraded(body: &Value, what: &str) -> Vec<String> {
    let rows = body["degraded"].as_array().unwrap().iter();
    rows.filter(|row| row["what"] == what)
        .map(|row| format!("{}; {}", row["problem"], row["fix"]))
        .collect()
}

#[tokio::test]
async fn who_does_not_lead_shows_what_the_leader_knows() {
    let (mut first, mut second) = unserved_pair(&Setup::default(), &Setup::default()).await;
    let now = first.now();
    first.runner(1, running(now)).await;
    second.runner(2, listening(now)).await;
    first.queue(&[(41, &["self-hosted"]), (42, &["gpu"])]);
    for world in [&mut first, &mut second] {
        world
            .settled(|p| {
                let runners = p.view.hosts.values().map(|host| host.runners.len()).sum::<usize>();
                runners == 2 && p.view.ledger.demand.jobs().count() == 2
            })
            .await;
    }
    for (path, what) in
        [("/api/v1/runners", "runners"), ("/api/v1/pools", "pools"), ("/api/v1/status", "runners")]
    {
        let wanted = first.get(path).await.json[what].clone();
        let seen = second.until(path, |body| body[what] == wanted).await;
        assert_eq!(seen["stale"], false, "{path}");
        assert!(seen["age_seconds"].as_f64().unwrap() < 10.0, "{path}");
    }
    let why = second.get("/api/v1/jobs/42/why").await.json;
    assert_eq!(why["reasons"][0]["code"], "no_matching_pool");
    let hosts = second.get("/api/v1/hosts").await.json;
    let agents: Vec<&str> =
        hosts["hosts"].as_array().unwrap().iter().map(|it| it["agent"].as_str().unwrap()).collect();
    assert!(agents[0].starts_with("box (") && agents[1].starts_with("box-2 ("), "{agents:?}");
    let of = |world: &World| world.replica.to_string();
    for (world, leads) in [(&first, true), (&second, false)] {
        let status = world.get("/api/v1/status").await.json;
        assert_eq!(status["orchestrator"]["leader"], leads);
        assert_eq!(status["orchestrator"]["leader_id"], of(&first));
        assert!(status["orchestrator"]["leader_name"].as_str().unwrap().starts_with("box ("));
        assert_eq!(status["orchestrator"]["replica"], of(world));
        assert_eq!(status["store"]["shared"], true);
    }
    for world in [&first, &second] {
        assert_eq!(world.github.calls.load(Ordering::Relaxed), 0);
        assert_eq!(world.docker.other_calls.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn every_replica_is_listed_with_its_place() {
    let setup = Setup { secret: Some("a-secret-of-the-cluster"), ..Setup::default() };
    let (first, second) = unserved_pair(&setup, &setup).await;
    let body = second.get("/api/v1/replicas").await.json;
    assert_eq!(body["leader"], first.replica.to_string());
    assert!(body["term"].as_u64().unwrap() >= 1);
    let rows = body["replicas"].as_array().unwrap();
    assert_eq!(rows[0]["id"], second.replica.to_string(), "this one first");
    for (row, world, leads) in [(&rows[0], &second, false), (&rows[1], &first, true)] {
        assert_eq!(row["this"], !leads);
        assert_eq!(row["leader"], leads);
        assert_eq!(row["address"], world.address);
        assert_eq!(row["host"], world.host.to_string());
        assert_eq!((&row["standing"], &row["agent"]), (&json!("agent"), &json!(true)));
        assert_eq!(row["version"], env!("CARGO_PKG_VERSION"));
        assert!(row["age_seconds"].as_f64().unwrap() < 15.0);
        assert_eq!(row["problems"], json!([]));
    }
    let status = first.get("/api/v1/status").await.json;
    assert_eq!(status["peers"]["forwarding"], true);
    assert_eq!(degraded(&status, "peers"), [""; 0]);
}

#[tokio::test]
async fn what_replicas_must_agree_on_and_do_not_is_told_by_name() {
    let first = Setup { secret: Some("a-secret-of-the-cluster"), ..Setup::default() };
    let second = Setup {
        secret: Some("another-secret-of-it"),
        pools: vec![("default", &["linux"])],
        ..Setup::default()
    };
    let (first, second) = unserved_pair(&first, &second).await;
    let mut late = first.store.snapshot().await.unwrap().replicas[&first.replica].clone();
    late.replica = ReplicaId(Uuid::from_u128(3));
    late.hostname = "box-3".to_owned();
    late.clock.0 -= 4_200;
    first.store.announce(late, Duration::from_secs(60)).await.unwrap();
    for world in [&first, &second] {
        let body = world.until("/api/v1/replicas", |body| problems(body).len() == 3).await;
        let mut found = problems(&body);
        found.sort();
        let told = |n: usize, what: &str, start: &str, end: &str| {
            let (code, text) = &found[n];
            assert_eq!(code, what);
            assert!(text.starts_with(start) && text.contains(end), "{text}");
        };
        told(0, "clock", "box-3 (", " s behind that of box (");
        told(1, "cluster_secret", "box-2 (", "another cluster secret than box (");
        told(2, "pools", "box-2 (", "other pools than box (");
        let status = world.get("/api/v1/status").await.json;
        assert_eq!(degraded(&status, "replica").len(), 3, "{status}");
        let metrics = world.get("/api/v1/metrics").await.text;
        for code in ["cluster_secret", "pools", "clock"] {
            let series = format!("orchestrator_cluster_replica_problems{{problem=\"{code}\"}} 1\n");
            assert!(metrics.contains(&series), "{metrics}");
        }
        assert!(!metrics.contains("secret-of"), "a secret is never shown");
    }
}

#[tokio::test]
async fn while_the_store_is_away_what_was_known_is_shown_as_stale() {
    let (mut first, mut second) = unserved_pair(&Setup::default(), &Setup::default()).await;
    let now = first.now();
    let runner = first.runner(1, listening(now)).await;
    second.settled(|p| p.view.hosts.values().any(|host| !host.runners.is_empty())).await;
    let before = second.get("/api/v1/replicas").await.json;
    assert_eq!(
        (&before["stale"], before["replicas"].as_array().unwrap().len()),
        (&json!(false), 2)
    );
    second.store.way.cut(true);
    for path in READS {
        let answer = second.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        if path.starts_with("/api/v1/") {
            assert_eq!(answer.json["stale"], true, "{path}");
            assert!(answer.json["age_seconds"].is_number(), "{path}");
        }
    }
    let listed = second.get("/api/v1/runners").await.json;
    assert_eq!(listed["runners"][0]["id"], runner.id.to_string());
    let replicas = second.get("/api/v1/replicas").await.json;
    assert_eq!(replicas["replicas"].as_array().unwrap().len(), 2, "the last reading");
    assert_eq!(replicas["store"]["reachable"], false);
    for path in ["/readyz", "/api/v1/status"] {
        let told = degraded(&second.get(path).await.json, "store");
        assert!(told.len() == 1 && told[0].contains("connection refused"), "{told:?}");
    }
    let metrics = second.get("/api/v1/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text.contains("orchestrator_cluster_store_up 0\n"), "{}", metrics.text);
    assert!(!metrics.text.contains("orchestrator_cluster_jobs_queued"), "only a leader knows");
    promtool::has_nothing_to_say_about(&metrics.text);
    let refused = second.delete(&format!("/api/v1/runners/{}", runner.id)).await;
    refused.is_problem(503, "store_unavailable");
    assert_eq!(first.get("/api/v1/status").await.json["stale"], false);
}

/// The followers' own turns go on; what they show is the dead leader's last one.
#[tokio::test(start_paused = true)]
async fn what_a_dead_leader_knew_grows_stale() {
    let (mut first, second) = unserved_pair(&Setup::default(), &Setup::default()).await;
    first.dies();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let status = second.get("/api/v1/status").await.json;
    // The second has taken over by now, and what it shows is its own.
    assert_eq!(status["orchestrator"]["leader"], true);
    assert_eq!(status["stale"], false);

    let (mut first, mut second) = unserved_pair(&Setup::default(), &Setup::default()).await;
    second.stops_standing();
    first.dies();
    tokio::time::sleep(Duration::from_secs(12)).await;
    let status = second.get("/api/v1/status").await.json;
    assert_eq!(status["orchestrator"]["leader_id"], Value::Null);
    assert_eq!(status["stale"], true);
    assert!(status["age_seconds"].as_f64().unwrap() > 10.0, "{}", status["age_seconds"]);
    assert_eq!(second.get("/api/v1/runners").await.json["stale"], true);
    assert_eq!(second.get("/api/v1/replicas").await.json["leader"], Value::Null);
    assert_eq!(degraded(&status, "view").len(), 1);
}

#[tokio::test]
async fn records_that_cannot_be_read_are_told_with_their_keys() {
    let (first, _second) = unserved_pair(&Setup::default(), &Setup::default()).await;
    let key = "{ro:demo}:host:77".to_owned();
    let problem = "version 9 is newer than this program".to_owned();
    first.store.way.unreadable.lock().unwrap().push(Unreadable { key, problem });
    let known = |body: &Value| body["store"]["unreadable"].as_array().unwrap().len() == 1;
    let status = first.until("/api/v1/status", known).await;
    assert_eq!(status["store"]["unreadable"][0]["key"], "{ro:demo}:host:77");
    let told = degraded(&status, "store");
    assert!(told.len() == 1 && told[0].contains("{ro:demo}:host:77"), "{told:?}");
    let metrics = first.get("/api/v1/metrics").await.text;
    assert!(metrics.contains("orchestrator_cluster_unreadable_records 1\n"), "{metrics}");
}

#[tokio::test]
async fn the_stores_own_trouble_is_named_and_awaited() {
    let world = led().await;
    world.store.way.warn("maxmemory-policy is allkeys-lru; set it to noeviction");
    let told = degraded(&world.get("/readyz").await.json, "store");
    assert!(told[0].ends_with("\"set it to noeviction\""), "{told:?}");
    let metrics = world.get("/api/v1/metrics").await.text;
    assert!(metrics.contains("orchestrator_cluster_store_warnings 1\n"), "{metrics}");
    world.store.way.reachable(None);
    let waiting = world.get("/readyz").await;
    waiting.is_problem(503, "starting");
    assert!(waiting.text.contains("the store"), "{}", waiting.text);
}

#[tokio::test]
async fn a_process_whose_lease_stands_still_is_to_be_restarted() {
    let mut world = led().await;
    let stuck = Arc::new(AtomicBool::new(false));
    let seen = stuck.clone();
    let alive = move || {
        let moves = !seen.load(Ordering::Relaxed);
        moves.then_some(()).ok_or_else(|| "the lease was last renewed 12 s ago".to_owned())
    };
    world.app = router(world.state.clone().alive_while(Arc::new(alive)));
    assert_eq!(world.get("/livez").await.json["status"], "alive");
    stuck.store(true, Ordering::Relaxed);
    let answer = world.get("/livez").await;
    answer.is_problem(503, "stuck");
    assert!(answer.text.contains("12 s ago"));
}

#[tokio::test]
async fn the_clusters_metrics_are_the_same_on_every_replica() {
    let (mut first, second) = pair(Setup::default(), Setup::default()).await;
    let now = first.now();
    first.runner(1, running(now)).await;
    first.queue(&[(41, &["self-hosted"])]);
    first.settled(|p| p.view.ledger.demand.jobs().count() == 1).await;
    // Between two turns of the leader both read the same; a second in which they do is
    // found at once.
    let mut same = None;
    for _ in 0..50 {
        let texts = tokio::join!(first.get("/api/v1/metrics"), second.get("/api/v1/metrics"));
        if texts.0.text == texts.1.text && texts.0.text.contains("jobs_queued{") {
            same = Some(texts.0.text);
            break;
        }
    }
    let text = same.expect("the same text on both");
    promtool::has_nothing_to_say_about(&text);
    for series in [
        "orchestrator_cluster_store_up 1",
        "orchestrator_cluster_store_warnings 0",
        "orchestrator_cluster_leader 1",
        "orchestrator_cluster_replicas 2",
        "orchestrator_cluster_hosts{liveness=\"live\"} 2",
        "orchestrator_cluster_capacity_runners 200",
        "orchestrator_cluster_runners{pool=\"default\",state=\"running\"} 1",
        "orchestrator_cluster_runners_max{pool=\"default\"} 4",
        "orchestrator_cluster_jobs_queued{pool=\"default\"} 1",
        "github_actions_queue_length 1",
        "github_actions_runners_active 1",
        "github_actions_orchestrator_running 1",
        "queue_length 1",
        "circuit_breaker_active 0",
    ] {
        assert!(text.lines().any(|line| line == series), "{series} in\n{text}");
    }
    let own = |text: &str| text.contains("orchestrator_jobs_queued{");
    assert!(own(&first.get("/metrics").await.text));
    assert!(!own(&second.get("/metrics").await.text), "it does not lead");
}

/// Another leader's turn is read again and again until there is a newer one.
#[tokio::test]
async fn a_turn_that_is_seen_twice_is_told_once() {
    let world = led().await;
    world.post("/api/v1/runners/scale-up", "").await;
    world
        .until("/api/v1/decisions?kind=assign", |body| {
            body["decisions"].as_array().unwrap().len() == 1
        })
        .await;
    let mut published = (**world.seen.borrow()).clone();
    published.at.0 += 60_000;
    let count = || async {
        world.get("/api/v1/decisions").await.json["decisions"].as_array().unwrap().len()
    };
    let plan = Arc::make_mut(&mut published.plan);
    plan.outcomes.clear();
    let placed = world.store.snapshot().await.unwrap();
    let (host, assignment) = placed.assignments.iter().next().unwrap();
    let assigned = assignment.runners.values().next().unwrap().clone();
    plan.place = vec![runner_orchestrator::fleet::plan::Placement { host: *host, assigned }];
    let before = count().await;
    for _ in 0..3 {
        world.state.recorder().record(&published);
    }
    assert_eq!(count().await, before + 1);
}
