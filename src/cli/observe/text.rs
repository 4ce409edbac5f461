//! What the API answers, as text for people.

use std::fmt::Write;

use serde_json::Value;

use crate::cli::table::{cell, render, rows};

/// A line over what may no longer be so; nothing over what is.
pub(super) fn stale(body: &Value) -> String {
    if body.get("stale") != Some(&Value::Bool(true)) {
        return String::new();
    }
    match body.get("age_seconds").and_then(Value::as_f64) {
        Some(age) => format!("! stale: as it was {age:.0} s ago\n"),
        None => "! stale: nothing could be read yet\n".to_owned(),
    }
}

pub(super) fn status_text(body: &Value) -> String {
    let at = |path: &str| cell(body, path);
    let mut out = stale(body);
    // Writing to a `String` cannot fail.
    let _ = write!(
        out,
        "cluster {}, version {}, up {}, leader: {}{}\n\
         runners: {} idle, {} busy, {} starting, {} retiring, {} unknown\n\
         queue: {} waiting, last read {}\n",
        at("orchestrator/cluster"),
        at("orchestrator/version"),
        at("orchestrator/uptime"),
        at("orchestrator/leader_name"),
        if body.pointer("/orchestrator/leader") == Some(&Value::Bool(true)) {
            ", this replica"
        } else {
            ""
        },
        at("runners/idle"),
        at("runners/busy"),
        at("runners/starting"),
        at("runners/retiring"),
        at("runners/unknown"),
        at("queue/current_length"),
        at("queue/last_poll"),
    );
    if body.pointer("/frozen") == Some(&Value::Bool(true)) {
        out.push_str("frozen: nothing is changed until someone unfreezes\n");
    }
    for row in rows(body.get("degraded"), &["what", "problem", "fix"]) {
        let said: Vec<String> = row.into_iter().filter(|cell| cell != "-").collect();
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "! {}", said.join(": "));
    }
    out.push('\n');
    out.push_str(&pools_table(body));
    out.push('\n');
    out.push_str(&hosts_table(body));
    // One replica alone is told of above.
    if listed(body, "replicas").len() > 1 {
        out.push('\n');
        out.push_str(&replicas_table(body));
    }
    out
}

pub(super) fn runners_table(body: &Value) -> String {
    let fields = ["name", "pool", "phase", "hostname", "since", "id"];
    let head = ["NAME", "POOL", "PHASE", "HOST", "SINCE", "ID"];
    render(&head, &rows(body.get("runners"), &fields))
}

pub(super) fn pools_table(body: &Value) -> String {
    let fields = [
        "name",
        "scope",
        "runners/listening",
        "runners/running",
        "runners/starting",
        "desired",
        "max_runners",
        "demand/waiting",
        "paused",
        "why",
    ];
    let head =
        ["POOL", "SCOPE", "IDLE", "BUSY", "STARTING", "DESIRED", "MAX", "WAITING", "PAUSED", "WHY"];
    render(&head, &rows(body.get("pools"), &fields))
}

pub(super) fn hosts_table(body: &Value) -> String {
    let head = ["HOST", "STATE", "DOCKER", "RUNNERS", "MAX", "DRAIN", "AGENT", "ID"];
    let fields = ["hostname", "liveness", "docker_up", "runners", "max_runners"];
    let rows: Vec<Vec<String>> = listed(body, "hosts")
        .iter()
        .map(|host| {
            let mut row: Vec<String> = fields.iter().map(|path| cell(host, path)).collect();
            row.push(drain(host));
            row.extend(["agent", "id"].map(|path| cell(host, path)));
            row
        })
        .collect();
    render(&head, &rows)
}

/// Nothing is seen there any more, and reports and GitHub's lists have yet to say so.
const CONFIRMED_SOON: &str = "being confirmed";

/// How far the drain of a host has come: `1 idle, 2 busy of 5`, or `done`.
fn drain(host: &Value) -> String {
    let Some(drain) = host.get("drain").filter(|drain| !drain.is_null()) else {
        return "-".to_owned();
    };
    if drain.get("done") == Some(&Value::Bool(true)) {
        return "done".to_owned();
    }
    let states = ["idle", "busy", "starting", "unknown", "unclaimed"];
    let left = states.iter().filter_map(|state| {
        let many = drain.pointer(&format!("/left/{state}"))?.as_u64().filter(|many| *many > 0)?;
        Some(format!("{many} {state}"))
    });
    let left: Vec<String> = left.collect();
    if left.is_empty() {
        return CONFIRMED_SOON.to_owned();
    }
    match drain.get("runners_at_first").and_then(Value::as_u64) {
        Some(first) => format!("{} of {first}", left.join(", ")),
        None => left.join(", "),
    }
}

pub(super) fn replicas_table(body: &Value) -> String {
    let head =
        ["REPLICA", "LEADS", "STANDING", "HOST", "VERSION", "ADDRESS", "SEEN", "DRAIN", "PROBLEMS"];
    let fields = ["name", "leader", "standing", "host", "version", "address"];
    let rows: Vec<Vec<String>> = listed(body, "replicas")
        .iter()
        .map(|replica| {
            let age = replica.get("age_seconds").and_then(Value::as_f64).unwrap_or_default();
            let problems: Vec<String> =
                rows(replica.get("problems"), &["what"]).into_iter().flatten().collect();
            let mut row: Vec<String> = fields.iter().map(|path| cell(replica, path)).collect();
            row.push(format!("{age:.0} s ago"));
            row.push(replica_drain(replica));
            row.push(if problems.is_empty() { "-".to_owned() } else { problems.join(", ") });
            row
        })
        .collect();
    render(&head, &rows)
}

/// How far a replica is from being dispensable: `3 runners left`, `leads`, or `done`.
fn replica_drain(replica: &Value) -> String {
    let drain = replica.get("drain").unwrap_or(&Value::Null);
    let is = |field: &str| drain.get(field) == Some(&Value::Bool(true));
    match drain.get("runners_left").and_then(Value::as_u64) {
        None => "-".to_owned(),
        Some(_) if is("done") => "done".to_owned(),
        Some(0) if is("leads") => "leads".to_owned(),
        Some(0) => CONFIRMED_SOON.to_owned(),
        Some(left) => format!("{left} runners left"),
    }
}

fn listed<'a>(body: &'a Value, what: &str) -> &'a [Value] {
    body.get(what).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_drain_is_told_with_what_is_left_and_what_there_was() {
        let left = json!({"idle": 1, "busy": 2, "starting": 0, "unknown": 0, "unclaimed": 0});
        let told = |drain: Value| drain_cell(&drain);
        assert_eq!(told(Value::Null), "-");
        assert_eq!(told(json!({"done": true, "left": left, "runners_at_first": 5})), "done");
        let going = json!({"done": false, "left": left, "runners_at_first": 5});
        assert_eq!(told(going), "1 idle, 2 busy of 5");
        let unnoted = json!({"done": false, "left": left, "runners_at_first": null});
        assert_eq!(told(unnoted), "1 idle, 2 busy");
        let none = json!({"idle": 0, "busy": 0, "starting": 0, "unknown": 0, "unclaimed": 0});
        let unseen = json!({"done": false, "left": none, "runners_at_first": 5});
        assert_eq!(told(unseen), "being confirmed");
    }

    fn drain_cell(drain: &Value) -> String {
        let body = json!({"hosts": [{"hostname": "h", "drain": drain, "id": "END"}]});
        let table = hosts_table(&body);
        let row = table.lines().nth(1).unwrap().replace("  ", "\t");
        row.split('\t').map(str::trim).filter(|cell| !cell.is_empty()).nth(5).unwrap().to_owned()
    }
}
