//! The scripts: each is one step of the store, all of it or nothing. They are known to the
//! server by their digest, so replicas of different versions do not disturb each other.

use redis::Script;

const CLOCK: &str = include_str!("../scripts/clock.lua");
const FENCE: &str = include_str!("../scripts/fence.lua");
const ORDER: &str = include_str!("../scripts/order.lua");

/// Every script, ready to be run.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) acquire: Script,
    pub(super) renew: Script,
    pub(super) release: Script,
    pub(super) commit: Script,
    pub(super) publish: Script,
    pub(super) report: Script,
    pub(super) snapshot: Script,
    pub(super) record: Script,
    pub(super) announce: Script,
    pub(super) restore: Script,
    pub(super) share: Script,
    pub(super) put_by: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let of = |parts: &[&str]| Script::new(&parts.concat());
        Self {
            acquire: of(&[CLOCK, include_str!("../scripts/acquire.lua")]),
            renew: of(&[include_str!("../scripts/renew.lua")]),
            release: of(&[include_str!("../scripts/release.lua")]),
            commit: of(&[FENCE, ORDER, CLOCK, include_str!("../scripts/commit.lua")]),
            publish: of(&[FENCE, ORDER, CLOCK, include_str!("../scripts/publish.lua")]),
            report: of(&[FENCE, ORDER, CLOCK, include_str!("../scripts/report.lua")]),
            snapshot: of(&[CLOCK, include_str!("../scripts/snapshot.lua")]),
            record: of(&[CLOCK, include_str!("../scripts/record.lua")]),
            announce: of(&[CLOCK, include_str!("../scripts/announce.lua")]),
            restore: of(&[include_str!("../scripts/restore.lua")]),
            share: of(&[CLOCK, include_str!("../scripts/share.lua")]),
            put_by: of(&[FENCE, include_str!("../scripts/put_by.lua")]),
        }
    }
}
