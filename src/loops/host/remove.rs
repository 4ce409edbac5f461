//! Every way a runner's container goes: asked for, ended, or found without life.
//!
//! The only way to remove a live runner that was handed its configuration: GitHub is
//! asked to delete the registration first, and its answer decides.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tracing::{Instrument, info, info_span, warn};

use super::{Event, Host};
use crate::docker::{DockerError, LogQuery};
use crate::fleet::converge::Found;
use crate::fleet::id::{ContainerId, GitHubRunnerId, PoolName, RunnerId, RunnerName};
use crate::fleet::listener::{Line, classify};
use crate::fleet::policy::LIST_STALENESS;
use crate::fleet::pool::Scope;
use crate::fleet::reason::Reason;
use crate::fleet::runner::Seen;
use crate::fleet::time::Timestamp;
use crate::github::Deregistered;
use crate::telemetry::{chain, trace};

/// After GitHub deleted a registration, a job assigned just before shows within this time.
const QUIET_AFTER_DELETE: Duration = Duration::from_secs(5);
/// An interrupted listener cancels its job and needs up to 30 s to say so.
const STOP_GRACE: Duration = Duration::from_secs(40);
/// One without a job ends at once.
const IDLE_STOP_GRACE: Duration = Duration::from_secs(5);

/// How a removal ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetireEnd {
    Removed,
    /// GitHub says it runs a job.
    Busy,
    /// It went to `running` while we waited, or its own log shows a job.
    TookAJob,
    /// Something did not answer; nothing was changed for good.
    NotNow,
}

/// What one removal needs to know.
#[derive(Clone, Debug)]
pub struct RetireOrder {
    pub runner: RunnerId,
    pub name: RunnerName,
    pub pool: PoolName,
    pub scope: Option<Scope>,
    pub container: Option<ContainerId>,
    pub github_id: Option<GitHubRunnerId>,
    pub may_hold_registration: bool,
    /// Since when it is in its phase. It may have been registered as late as that.
    pub since: Timestamp,
    pub reason: Reason,
    pub force: bool,
    pub running: watch::Receiver<bool>,
}

/// What the reaping of an ended runner needs to know.
#[derive(Clone, Debug)]
pub struct ReapOrder {
    pub runner: RunnerId,
    pub name: RunnerName,
    pub pool: PoolName,
    pub scope: Option<Scope>,
    pub container: ContainerId,
    pub github_id: Option<GitHubRunnerId>,
    /// GitHub removes the registration of a runner that ran its job by itself.
    pub ran_job: bool,
}

/// Removes a living runner, if GitHub agrees.
pub async fn retire(host: Host, order: RetireOrder, scope: Scope, events: mpsc::Sender<Event>) {
    let span = info_span!(
        "retire_runner", runner.id = %order.runner, runner.name = %order.name,
        pool = %order.pool, reason = order.reason.code()
    );
    let span = trace::of_runner(order.runner, span);
    let (runner, reason) = (order.runner, order.reason.clone());
    let end = try_retire(&host, order, &scope).instrument(span).await;
    if end == RetireEnd::TookAJob {
        // Where only its log says so, nobody follows its output: without this it would pass for
        // idle, and be asked about again and again. Late, like the edge in the demand that it
        // makes: the queue is read again at once.
        let _ = events.send(Event::Seen(runner, Seen::JobLine)).await;
    }
    let _ = events.send(Event::RetireEnded(runner, reason, end)).await;
}

async fn try_retire(host: &Host, order: RetireOrder, scope: &Scope) -> RetireEnd {
    if !order.may_hold_registration {
        return retire_never_handed(host, &order, scope).await;
    }
    if order.force {
        return retire_by_force(host, &order, scope).await;
    }
    match ask_github(host, &order, scope).await {
        Answer::Busy => RetireEnd::Busy,
        Answer::Unclear => RetireEnd::NotNow,
        Answer::Gone => {
            if *order.running.borrow() {
                return RetireEnd::TookAJob;
            }
            remove_idle(host, &order).await
        }
        Answer::Deleted => {
            let mut running = order.running.clone();
            let took_job =
                tokio::time::timeout(QUIET_AFTER_DELETE, running.wait_for(|running| *running));
            if let Ok(Ok(_)) = took_job.await {
                info!("it took a job just before its registration went; left alone");
                return RetireEnd::TookAJob;
            }
            remove_idle(host, &order).await
        }
    }
}

/// What GitHub's answers together mean.
enum Answer {
    Deleted,
    Busy,
    Gone,
    Unclear,
}

async fn ask_github(host: &Host, order: &RetireOrder, scope: &Scope) -> Answer {
    let id = match order.github_id {
        Some(id) => id,
        None => match host.github.find(scope, &order.name).await {
            Ok(Some(registration)) => registration.id,
            Ok(None) => return confirm_absence(host, order, scope).await,
            Err(error) => {
                warn!(error = %chain(&error), "could not look its registration up");
                return Answer::Unclear;
            }
        },
    };
    match host.github.deregister(scope, id).await {
        Ok(Deregistered::Deleted) => Answer::Deleted,
        Ok(Deregistered::Busy) => Answer::Busy,
        Ok(Deregistered::Absent) => confirm_absence(host, order, scope).await,
        Err(error) => {
            warn!(error = %chain(&error), "could not delete its registration");
            Answer::Unclear
        }
    }
}

/// A 404 may also mean that we may not see it: it counts only beside a complete list, and
/// only one that is too young not to show a runner that was registered as late as can be.
async fn confirm_absence(host: &Host, order: &RetireOrder, scope: &Scope) -> Answer {
    match host.github.registrations(scope).await {
        Ok(reading) if reading.begun_at < order.since + LIST_STALENESS => {
            info!("not found, but registered too lately for that to count");
            Answer::Unclear
        }
        Ok(reading) => match reading.registrations.iter().find(|row| row.name == order.name) {
            // A list may be a minute old. While it shows the runner alive, the 404 may be
            // one of permission, and the runner is left; a later list settles it.
            Some(row) if row.busy || row.online => Answer::Unclear,
            None if !reading.stillness.is_still() => confirm_by_name(host, order, scope).await,
            Some(_) | None => Answer::Gone,
        },
        Err(error) => {
            warn!(error = %chain(&error), "not found, and the runner list did not confirm it");
            Answer::Unclear
        }
    }
}

/// A list that moved while it was read may lack it by chance. That of its name alone fits one
/// page, and holds still where the whole never does.
async fn confirm_by_name(host: &Host, order: &RetireOrder, scope: &Scope) -> Answer {
    match host.github.find(scope, &order.name).await {
        Ok(Some(row)) if row.busy || row.online => Answer::Unclear,
        Ok(_) => Answer::Gone,
        Err(error) => {
            warn!(error = %chain(&error), "not found, and its name could not be looked up");
            Answer::Unclear
        }
    }
}

/// Only for one that GitHub gives no job any more. Whether it got one just before is asked
/// of its own log: its output may have broken off, and nobody has followed it since.
async fn remove_idle(host: &Host, order: &RetireOrder) -> RetireEnd {
    let Some(id) = &order.container else { return RetireEnd::Removed };
    match began_a_job(host, id).await {
        Ok(false) => (),
        Ok(true) => {
            info!("its log shows a job that began just before; left alone");
            return RetireEnd::TookAJob;
        }
        Err(error) => {
            warn!(error = %chain(&error), "its log cannot be read, so it is left alone");
            return RetireEnd::NotNow;
        }
    }
    if let Err(error) = host.docker.stop(id, IDLE_STOP_GRACE).await {
        warn!(error = %chain(&error), "could not stop its container");
    }
    if container(host, id).await { RetireEnd::Removed } else { RetireEnd::NotNow }
}

async fn began_a_job(host: &Host, container: &ContainerId) -> Result<bool, DockerError> {
    let mut lines = match host.docker.logs(container, &LogQuery::default()).await {
        Ok(lines) => lines,
        // What is not there any more runs nothing.
        Err(error) if error.status() == Some(404) => return Ok(false),
        Err(error) => return Err(error),
    };
    while let Some(line) = lines.next().await {
        if matches!(classify(&line?.text), Some(Line::RunningJob)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// It never had its configuration: no job can have reached it, nobody needs to be asked.
async fn retire_never_handed(host: &Host, order: &RetireOrder, scope: &Scope) -> RetireEnd {
    if let Some(id) = &order.container
        && !container(host, id).await
    {
        return RetireEnd::NotNow;
    }
    if let Some(id) = order.github_id
        && let Err(error) = host.github.deregister(scope, id).await
    {
        warn!(error = %chain(&error), "could not delete its registration yet");
    }
    RetireEnd::Removed
}

/// An operator has accepted that its job dies. The listener is interrupted first, so that
/// the job is reported as cancelled instead of lost.
async fn retire_by_force(host: &Host, order: &RetireOrder, scope: &Scope) -> RetireEnd {
    if let Some(id) = &order.container {
        if let Err(error) = host.docker.stop(id, STOP_GRACE).await {
            warn!(error = %chain(&error), "could not stop its container");
        }
        if !container(host, id).await {
            return RetireEnd::NotNow;
        }
    }
    match order.github_id {
        Some(id) => {
            if let Err(error) = host.github.deregister(scope, id).await {
                warn!(error = %chain(&error), "could not delete its registration yet");
            }
        }
        None => deregister_by_name(host, scope, &order.name).await,
    }
    RetireEnd::Removed
}

/// Removes the container of a runner that exited, and its registration if it ran no job.
pub async fn reap(host: Host, order: ReapOrder, scope: Option<Scope>, events: mpsc::Sender<Event>) {
    let span = info_span!("reap_runner", runner.id = %order.runner, pool = %order.pool);
    let span = trace::of_runner(order.runner, span);
    let removed = container(&host, &order.container).instrument(span).await;
    if !order.ran_job
        && let Some(scope) = scope
    {
        match order.github_id {
            Some(id) => {
                if let Err(error) = host.github.deregister(&scope, id).await {
                    warn!(runner.id = %order.runner, error = %chain(&error),
                        "could not delete its registration yet");
                }
            }
            None => deregister_by_name(&host, &scope, &order.name).await,
        }
    }
    let result =
        if removed { Ok(()) } else { Err("its container could not be removed".to_owned()) };
    let _ = events.send(Event::ReapEnded(order.runner, result)).await;
}

/// Removes a container without life that nobody here runs, and its registration.
pub async fn discard(host: Host, found: Found, scope: Option<Scope>, events: mpsc::Sender<Event>) {
    info!(runner.name = %found.name, container = %found.id, state = ?found.state,
        "discarding a container that has no life left in it");
    if container(&host, &found.id).await
        && let Some(scope) = scope
    {
        deregister_by_name(&host, &scope, &found.name).await;
    }
    let _ = events.send(Event::DiscardEnded(found.id)).await;
}

/// Deletes a registration known only by its name, unless it is busy. What fails here is
/// found again by the leader's sweep.
pub async fn deregister_by_name(host: &Host, scope: &Scope, name: &RunnerName) {
    let found = match host.github.find(scope, name).await {
        Ok(found) => found,
        Err(error) => {
            warn!(runner.name = %name, error = %chain(&error), "could not look a name up");
            return;
        }
    };
    if let Some(registration) = found
        && let Err(error) = host.github.deregister(scope, registration.id).await
    {
        warn!(runner.name = %name, error = %chain(&error), "could not delete a registration yet");
    }
}

/// Removes a container. Whether it is gone.
pub async fn container(host: &Host, id: &ContainerId) -> bool {
    match host.docker.remove(id).await {
        Ok(()) => true,
        Err(error) => {
            warn!(container = %id, error = %chain(&error), "could not remove a container");
            false
        }
    }
}

/// Removes volumes and networks of this cluster that nothing uses and no pool names.
pub async fn sweep(host: Host) {
    let keep: Vec<String> = host.pools.values().map(|pool| host.network(pool).name).collect();
    match host.docker.sweep(&host.cluster, &keep).await {
        Ok(swept) => {
            if swept.volumes + swept.networks > 0 {
                info!(volumes = swept.volumes, networks = swept.networks, "swept leftovers");
            }
            for network in swept.stuck_networks {
                warn!(network, reason = "stuck_network", "a network refuses to go; it is kept");
            }
        }
        Err(error) => warn!(error = %chain(&error), "could not sweep leftovers"),
    }
}
