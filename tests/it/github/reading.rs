//! Queues, registrations and repositories, over real sockets.

use std::collections::BTreeSet;

use runner_orchestrator::fleet::id::{GitHubRunnerId, RunnerName};
use runner_orchestrator::fleet::pool::Scope;
use runner_orchestrator::fleet::registration::Stillness;
use runner_orchestrator::github::GitHub;
use runner_orchestrator::sim::github::{
    Assumption, NewJobs, PlantedRunners, ReposPatch, Settings, SimOptions, Variants,
};

use super::support::{
    JOBS, Leaves, RUNNERS, RUNS, calls, org, plant, quiet, repo, restless, served,
};

#[tokio::test]
async fn all_pages_of_registrations_are_read_also_beyond_thirty() {
    let (sim, github) = served(SimOptions::default()).await;
    for count in [31, 219] {
        plant(&sim, &format!("r{count}"), count);
    }
    let reading = github.registrations(&org()).await.unwrap();
    let names: BTreeSet<_> = reading.registrations.iter().map(|r| r.name.clone()).collect();
    assert_eq!((reading.registrations.len(), names.len()), (250, 250));
    assert_eq!(reading.stillness, Stillness::Still);
    assert_eq!(calls(&sim, RUNNERS), 3 + 2, "the first and the last once more");
    assert_eq!(reading.scope, org());
}

/// Each page after the first begins with a row too late: what went before moved them up.
#[tokio::test(start_paused = true)]
async fn a_list_that_never_holds_still_is_what_its_passes_show_together() {
    let (sim, _) = quiet(&SimOptions::default());
    plant(&sim, "r", 250);
    let github = restless(&sim, Leaves::AGap);
    let before = github.budget().points_this_minute;
    let reading = github.registrations(&org()).await.unwrap();
    assert_eq!(github.budget().points_this_minute - before, 2 * 3, "two passes over three pages");
    let Stillness::Moving { last_pass_at } = reading.stillness else { panic!("{reading:?}") };
    assert!(last_pass_at > reading.begun_at, "as old as the first pass");
    let ids: BTreeSet<_> = reading.registrations.iter().map(|r| r.id).collect();
    assert_eq!(ids.len(), reading.registrations.len(), "each once");
    let left = sim.state().runners;
    assert_eq!(left.len(), 250 - 2 * 2);
    for runner in left {
        assert!(ids.contains(&GitHubRunnerId(runner.id.0)), "{runner:?} slipped past");
    }
}

/// Regression: where one comes for each that goes the total stays, and what slipped past
/// counted as missing.
#[tokio::test(start_paused = true)]
async fn a_list_in_which_as_many_come_as_go_is_seen_to_move() {
    let (sim, _) = quiet(&SimOptions::default());
    plant(&sim, "r", 450);
    let before: BTreeSet<u64> = sim.state().runners.iter().map(|runner| runner.id.0).collect();
    let github = restless(&sim, Leaves::ASuccessor);
    let reading = github.registrations(&org()).await.unwrap();
    assert!(!reading.stillness.is_still());
    let ids: BTreeSet<u64> = reading.registrations.iter().map(|r| r.id.0).collect();
    let left: BTreeSet<u64> = sim.state().runners.iter().map(|runner| runner.id.0).collect();
    assert_eq!(left.len(), 450);
    assert!(ids.is_superset(&before.intersection(&left).copied().collect()));
}

#[tokio::test]
async fn a_name_is_found_by_equality_only() {
    let (sim, github) = served(SimOptions::default()).await;
    plant(&sim, "r", 12);
    let found = github.find(&org(), &RunnerName::from("r-1")).await.unwrap().unwrap();
    assert_eq!(found.name.as_str(), "r-1");
    assert!(!found.online && !found.busy);
    for absent in ["r-", "r", "R-1x", "r-1&name=r-2", "r 1"] {
        assert_eq!(github.find(&org(), &RunnerName::from(absent)).await.unwrap(), None, "{absent}");
    }
}

#[tokio::test]
async fn all_jobs_of_all_runs_are_read_with_their_labels_lower_cased() {
    let (sim, github) = served(SimOptions::default()).await;
    let labels = vec!["Self-Hosted".into(), "GPU".into()];
    let one_run = NewJobs { count: 230, labels: labels.clone(), ..NewJobs::default() };
    let many_runs = NewJobs { count: 120, jobs_per_run: Some(1), labels, ..NewJobs::default() };
    let mut posted = sim.post_jobs(&one_run).unwrap();
    posted.extend(sim.post_jobs(&many_runs).unwrap());
    let reading = github.queue(&repo(1)).await.unwrap();
    let read: BTreeSet<_> = reading.jobs.iter().map(|job| job.id.0).collect();
    assert_eq!(read, posted.iter().map(|id| id.0).collect());
    assert!(reading.active);
    assert!(reading.jobs.iter().all(|job| job.labels.to_string() == "gpu,self-hosted"));
    assert!(reading.jobs.iter().all(|job| job.run_id > 0 && !job.name.is_empty()));
    let oldest = reading.jobs.iter().map(|job| job.queued_at).min().unwrap();
    assert!(reading.begun_at.since(oldest).as_secs() < 60);
    assert_eq!(calls(&sim, RUNS), 3, "two pages queued, one in progress");
    assert_eq!(calls(&sim, JOBS), 3 + 120);
}

#[tokio::test]
async fn what_did_not_change_costs_no_primary_point() {
    let (sim, github) = served(SimOptions::default()).await;
    let jobs = NewJobs { count: 3, jobs_per_run: Some(1), ..NewJobs::default() };
    sim.post_jobs(&jobs).unwrap();
    plant(&sim, "r", 130);
    let first = (
        github.queue(&repo(1)).await.unwrap().jobs,
        github.registrations(&org()).await.unwrap().registrations,
        github.repositories(&org()).await.unwrap(),
    );
    let before = sim.state();
    let again = (
        github.queue(&repo(1)).await.unwrap().jobs,
        github.registrations(&org()).await.unwrap().registrations,
        github.repositories(&org()).await.unwrap(),
    );
    assert_eq!(first, again);
    let after = sim.state();
    assert_eq!(after.points, before.points);
    assert!(after.calls.values().sum::<u64>() > before.calls.values().sum::<u64>());
    sim.post_jobs(&NewJobs::default()).unwrap();
    assert_eq!(github.queue(&repo(1)).await.unwrap().jobs.len(), 4, "a change is seen");
    let not_modified: u64 =
        github.calls().iter().filter(|row| row.outcome == "304").map(|row| row.count).sum();
    assert_eq!(not_modified, 2 + 3 + (2 + 4) + 1 + 4);
}

#[tokio::test]
async fn a_run_in_progress_is_no_demand_but_its_queued_jobs_are() {
    let (sim, github) = served(SimOptions::default()).await;
    sim.post_jobs(&NewJobs { count: 2, ..NewJobs::default() }).unwrap();
    let ids: Vec<_> = sim.state().jobs.iter().map(|job| job.id).collect();
    assert_eq!(github.queue(&repo(1)).await.unwrap().jobs.len(), 2);
    assert!(sim.cancel_job(ids[0]), "the run has begun to end");
    let reading = github.queue(&repo(1)).await.unwrap();
    assert_eq!(reading.jobs.iter().map(|job| job.id.0).collect::<Vec<_>>(), [ids[1].0]);
    assert!(sim.cancel_job(ids[1]));
    let reading = github.queue(&repo(1)).await.unwrap();
    assert!(reading.jobs.is_empty() && !reading.active);
}

#[tokio::test]
async fn an_organisation_has_its_open_repositories_most_recently_pushed_first() {
    let (sim, github) = served(SimOptions { repos: 0, ..SimOptions::default() }).await;
    let patch = |name: &str, pushed: f64| ReposPatch {
        repo: Some(format!("acme/{name}")),
        pushed_seconds_ago: Some(pushed),
        ..ReposPatch::default()
    };
    for (name, pushed) in [("old", 900.0), ("new", 5.0), ("middle", 60.0)] {
        sim.change_repos(&patch(name, pushed)).unwrap();
    }
    sim.change_repos(&ReposPatch { archived: Some(true), ..patch("gone", 1.0) }).unwrap();
    sim.change_repos(&ReposPatch { disabled: Some(true), ..patch("off", 1.0) }).unwrap();
    sim.change_repos(&ReposPatch {
        count: 240,
        pushed_seconds_ago: Some(1e6),
        ..ReposPatch::default()
    })
    .unwrap();
    let repos = github.repositories(&org()).await.unwrap();
    let names: Vec<_> = repos.iter().map(|repo| repo.name.as_str()).collect();
    assert_eq!(names.len(), 243);
    assert_eq!(names[..3], ["acme/new", "acme/middle", "acme/old"]);
    sim.post_jobs(&NewJobs { repo: Some("acme/old".into()), ..NewJobs::default() }).unwrap();
    let reading = github.queue(&"acme/old".into()).await.unwrap();
    assert_eq!(reading.jobs.len(), 1, "an organisation's queues are really read");
    let alone = github.repositories(&Scope::Repo("acme/old".into())).await.unwrap();
    assert_eq!(alone.iter().map(|repo| repo.name.as_str()).collect::<Vec<_>>(), ["acme/old"]);
}

#[tokio::test]
async fn an_enterprise_has_its_own_runners_and_the_queues_of_its_organisations() {
    let options = SimOptions {
        orgs: vec!["acme".into(), "second".into()],
        enterprise: Some("big".into()),
        ..SimOptions::default()
    };
    let (sim, github) = served(options).await;
    sim.change_repos(&ReposPatch { repo: Some("second/tool".into()), ..ReposPatch::default() })
        .unwrap();
    let scope =
        Scope::Enterprise { slug: "big".into(), orgs: vec!["acme".into(), "second".into()] };
    let repos = github.repositories(&scope).await.unwrap();
    let names: BTreeSet<_> = repos.iter().map(|repo| repo.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["acme/repo-1", "second/tool"]));
    let mut request = super::support::request("e-1");
    request.scope = scope.clone();
    let minted = github.mint(&request).await.unwrap();
    let reading = github.registrations(&scope).await.unwrap();
    assert_eq!(reading.registrations.iter().map(|r| r.id).collect::<Vec<_>>(), [minted.id]);
    assert!(github.registrations(&org()).await.unwrap().registrations.is_empty());
    github.deregister(&scope, minted.id).await.unwrap();
    assert!(github.registrations(&scope).await.unwrap().registrations.is_empty());
}

#[tokio::test]
async fn every_hostile_variant_can_still_be_read() {
    let hostile = Variants::all();
    assert!(hostile.hostile(Assumption::FieldSet));
    let settings = Settings { hostile, ..Settings::default() };
    let (sim, github) = served(SimOptions { settings, ..SimOptions::default() }).await;
    let busy = PlantedRunners { busy: true, status: "online".into(), ..PlantedRunners::default() };
    sim.plant_runners(&busy).unwrap();
    sim.post_jobs(&NewJobs { count: 2, ..NewJobs::default() }).unwrap();
    // A new job is listed after five seconds there.
    tokio::time::sleep(std::time::Duration::from_millis(5_200)).await;
    for _ in 0..2 {
        assert_eq!(github.queue(&repo(1)).await.unwrap().jobs.len(), 2);
        let registrations = github.registrations(&org()).await.unwrap().registrations;
        assert_eq!(registrations.len(), 1);
        assert!(registrations[0].busy && registrations[0].online);
        assert_eq!(github.repositories(&org()).await.unwrap().len(), 1);
    }
    github.mint(&super::support::request("h-1")).await.unwrap();
}
