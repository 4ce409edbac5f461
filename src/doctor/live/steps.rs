//! The measurements, in the order in which the runner lives.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::wire::{Answer, LiveError, Wire, id};
use super::{Notes, Probe, Wishes, lock};
use crate::sim::github::Assumption;

/// How often the list is read while its age is measured.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A list that is older than this is not waited for.
const STALE_MAX: Duration = Duration::from_secs(90);
/// What counts as at once: two readings.
const AT_ONCE: Duration = Duration::from_millis(750);

pub(super) async fn all(
    wire: &Wire,
    probe: &Probe,
    wishes: &Wishes,
    notes: &Notes,
) -> Result<(), LiveError> {
    let runner = register(wire, probe, notes).await?;
    labels(probe, &runner, notes);
    let (listed, took) = until(wire, probe, true).await?;
    let assumed = "at once";
    notes.say("new runner is listed", assumed, told(listed, took), listed && took <= AT_ONCE);
    same_name(wire, probe, notes).await?;
    etags(wire, probe, wishes, notes).await?;
    if let Some(busy) = wishes.busy_runner {
        delete_busy(wire, busy, notes).await?;
    }
    if let Some(id) = id(&runner) {
        delete_idle(wire, probe, id, notes).await?;
    }
    Ok(())
}

async fn register(wire: &Wire, probe: &Probe, notes: &Notes) -> Result<Value, LiveError> {
    let answer = mint(wire, probe, notes).await?;
    let Some(runner) = registered(&answer) else {
        return Err(answer.refused("the registration"));
    };
    let resource = answer.header("x-ratelimit-resource");
    let remaining = answer.header("x-ratelimit-remaining").is_some();
    let measured = if remaining { "present" } else { "missing" };
    notes.say("rate headers on a registration", "present", measured.to_owned(), remaining);
    let core = resource.as_deref() == Some("core");
    let measured = resource.unwrap_or_else(|| "not named".to_owned());
    notes.judge(Assumption::MintRateResource, measured, core);
    Ok(runner.clone())
}

/// Registers, and takes note of what was registered. An answer without a runner leaves
/// open whether there is one, unless it is a refusal.
async fn mint(wire: &Wire, probe: &Probe, notes: &Notes) -> Result<Answer, LiveError> {
    let _under_way = notes.minting.lock().await;
    lock(&notes.made).unsure = true;
    let answer = wire.mint(probe).await?;
    let id = registered(&answer).and_then(id);
    let refused = (400..500).contains(&answer.status);
    let mut made = lock(&notes.made);
    made.ids.extend(id);
    made.unsure = id.is_none() && !refused;
    drop(made);
    Ok(answer)
}

/// The runner that an answer says was registered.
fn registered(answer: &Answer) -> Option<&Value> {
    answer.body.get("runner").filter(|runner| id(runner).is_some())
}

fn labels(probe: &Probe, runner: &Value, notes: &Notes) {
    let listed = runner.get("labels").and_then(Value::as_array);
    let names: Vec<&str> = listed
        .into_iter()
        .flatten()
        .filter_map(|label| label.get("name").and_then(Value::as_str))
        .collect();
    let (ours, added): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| name.eq_ignore_ascii_case(&probe.label));
    let measured = if added.is_empty() {
        "only those sent".to_owned()
    } else {
        format!("{} added", added.join(", "))
    };
    notes.judge(Assumption::DefaultLabels, measured, added.is_empty());
    let (measured, lower) = match ours.first() {
        None => ("the label sent is missing", false),
        Some(name) if *name == probe.label.to_lowercase() => ("lower case", true),
        Some(name) if *name == probe.label => ("as sent", false),
        Some(_) => ("another case", false),
    };
    notes.judge(Assumption::LabelCase, measured.to_owned(), lower);
}

/// A second registration of one name. What GitHub makes of it is deleted at the end.
async fn same_name(wire: &Wire, probe: &Probe, notes: &Notes) -> Result<(), LiveError> {
    let status = mint(wire, probe, notes).await?.status;
    notes.say("same name again", "409", status.to_string(), status == 409);
    Ok(())
}

async fn etags(
    wire: &Wire,
    probe: &Probe,
    wishes: &Wishes,
    notes: &Notes,
) -> Result<(), LiveError> {
    let answer = wire.list(&probe.name, None, None).await?;
    let Some(etag) = answer.header("etag") else {
        notes.say("runner list has an ETag", "yes", "no".to_owned(), false);
        return Ok(());
    };
    let weak = etag.starts_with("W/");
    let measured = if weak { "weak" } else { "strong" };
    notes.judge(Assumption::EtagWeak, measured.to_owned(), !weak);
    let again = wire.list(&probe.name, Some(&etag), None).await?.status;
    notes.say("runner list with its own ETag", "304", again.to_string(), again == 304);
    if let Some(token) = &wishes.second_token {
        let other = wire.list(&probe.name, None, Some(token)).await?;
        if other.status != 200 {
            return Err(other.refused("the list of runners with the second token"));
        }
        let same = other.header("etag").as_ref() == Some(&etag);
        let measured = if same { "by content" } else { "by content and token" };
        notes.judge(Assumption::EtagPerToken, measured.to_owned(), same);
    }
    Ok(())
}

/// Only a runner that GitHub calls busy: an idle one would be gone.
async fn delete_busy(wire: &Wire, id: u64, notes: &Notes) -> Result<(), LiveError> {
    const WHAT: &str = "the busy runner";
    let answer = wire.one(id).await?;
    if answer.body.get("busy").and_then(Value::as_bool) != Some(true) {
        let measured = format!("runner {id} is not busy, so it was left alone");
        notes.say(WHAT, "busy", measured, false);
        return Ok(());
    }
    let status = wire.delete(id).await?.status;
    notes.judge(Assumption::BusyDeleteStatus, status.to_string(), status == 422);
    Ok(())
}

async fn delete_idle(wire: &Wire, probe: &Probe, id: u64, notes: &Notes) -> Result<(), LiveError> {
    let status = wire.delete(id).await?.status;
    notes.say("delete when idle", "204", status.to_string(), status == 204);
    if !matches!(status, 200..300 | 404) {
        return Ok(());
    }
    lock(&notes.made).ids.retain(|made| *made != id);
    let again = wire.delete(id).await?.status;
    notes.say("delete again", "404", again.to_string(), again == 404);
    let (gone, took) = until(wire, probe, false).await?;
    let measured = if gone && took <= AT_ONCE {
        "gone from the list at once".to_owned()
    } else {
        told(gone, took)
    };
    notes.judge(Assumption::DeletedStillListed, measured, gone && took <= AT_ONCE);
    Ok(())
}

/// Reads the list until the runner is (or is no longer) on it. Whether it came to that,
/// and after how long.
async fn until(wire: &Wire, probe: &Probe, there: bool) -> Result<(bool, Duration), LiveError> {
    let begun = Instant::now();
    loop {
        let is_there = !wire.find(&probe.name).await?.is_empty();
        let took = begun.elapsed();
        if is_there == there || took > STALE_MAX {
            return Ok((is_there == there, took));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn told(came: bool, took: Duration) -> String {
    let after = if came { "after" } else { "not within" };
    format!("{after} {:.1} s", took.as_secs_f64())
}
