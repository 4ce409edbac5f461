//! A replica of the release before, as far as records tell: what it writes says so and has
//! none of the fields that came later, and of what it reads it does not know them either.
//! A release reads the next version of every record before any release writes it.

use std::sync::Arc;

use runner_orchestrator::fleet::digest::Digest;
use runner_orchestrator::fleet::host::{Assignment, HostRecord, RECORD_VERSION};
use runner_orchestrator::fleet::replica::ReplicaRecord;
use runner_orchestrator::store::{Commit, Snapshot};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The version it writes.
const OLDER: u32 = RECORD_VERSION - 1;

/// The fields that came later, by their ways through the record; `*` is any key.
const OF_A_REPORT: &[&[&str]] = &[&["capacity"], &["runners", "*", "scope"]];
const OF_AN_ASSIGNMENT: &[&[&str]] = &[&["frozen"]];
const OF_A_DIGEST: &[&[&str]] = &[
    &["ledger", "term"],
    &["ledger", "rebuilding"],
    &["ledger", "refusals"],
    &["ledger", "draining_since"],
    &["ledger", "drained_replicas"],
    &["ledger", "heard", "*", "stale"],
    &["plan", "written_off"],
];

pub(super) fn report(record: &HostRecord) -> HostRecord {
    HostRecord { version: OLDER, ..without(record, OF_A_REPORT) }
}

pub(super) fn announcement(record: &mut ReplicaRecord) {
    record.version = OLDER;
}

pub(super) fn digest(digest: &Digest) -> Digest {
    Digest { version: OLDER, ..without(digest, OF_A_DIGEST) }
}

pub(super) fn commit(commit: &mut Commit) {
    for assignment in commit.assignments.values_mut() {
        *assignment = Assignment { version: OLDER, ..read(assignment) };
    }
}

/// One host's assignment as it reads it.
pub(super) fn read(assignment: &Assignment) -> Assignment {
    without(assignment, OF_AN_ASSIGNMENT)
}

/// Everything as it reads it.
pub(super) fn read_all(snapshot: &mut Snapshot) {
    for record in snapshot.hosts.values_mut().filter(|record| record.version > OLDER) {
        *record = without(record, OF_A_REPORT);
    }
    for assignment in snapshot.assignments.values_mut().filter(|read| read.version > OLDER) {
        *assignment = read(assignment).into();
    }
    if let Some(told) = snapshot.digest.as_mut().filter(|told| told.version > OLDER) {
        *told = Arc::new(without(told, OF_A_DIGEST));
    }
}

/// The record without these fields: through JSON, as it is stored.
fn without<T: Serialize + DeserializeOwned>(record: &T, fields: &[&[&str]]) -> T {
    let mut value = serde_json::to_value(record).unwrap();
    for way in fields {
        forget(&mut value, way);
    }
    serde_json::from_value(value).unwrap()
}

fn forget(value: &mut Value, way: &[&str]) {
    let Some(object) = value.as_object_mut() else { return };
    match way {
        [] => (),
        [field] => {
            object.remove(*field);
        }
        ["*", rest @ ..] => object.values_mut().for_each(|inner| forget(inner, rest)),
        [first, rest @ ..] => {
            if let Some(inner) = object.get_mut(*first) {
                forget(inner, rest);
            }
        }
    }
}
