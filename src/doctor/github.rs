//! GitHub, as far as reading shows.

use std::time::Duration;

use super::{Finding, chain};
use crate::clock::Clock;
use crate::config::Config;
use crate::fleet::pool::Scope;
use crate::fleet::time::Timestamp;
use crate::github::{GitHub, Verdict};

/// An App's signed request may be a minute off before GitHub refuses it; half of it is
/// the time to set the clock.
const SKEW_MAX: Duration = Duration::from_secs(30);
/// The answer's date has whole seconds and was on its way for a while.
const SKEW_UNSEEN: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Every row of the start-up check, and this machine's clock.
pub async fn examine(config: &Config, github: &dyn GitHub, clock: &dyn Clock) -> Vec<Finding> {
    let mut scopes: Vec<Scope> = config.pools.values().map(|pool| pool.scope.clone()).collect();
    scopes.sort();
    scopes.dedup();
    let api_url = config.github.api_url.as_str();
    let checks = github.preflight(&scopes).await.checks;
    let mut rows: Vec<Finding> = checks
        .into_iter()
        .map(|check| match check.verdict {
            Verdict::Proven => Finding::fine(check.what, ""),
            Verdict::Refused { fix } => Finding::broken(check.what, "refused", fix),
            Verdict::UnknownUntilUse { why } => {
                let fix = "none needed; `doctor --live` tries it with one throw-away runner";
                Finding::warning(check.what, why, fix)
            }
            Verdict::Unreachable { why } => {
                let fix = format!(
                    "check GITHUB_API_URL ({api_url}), DNS and the firewall between this \
                     machine and it"
                );
                Finding::broken(check.what, why, fix)
            }
        })
        .collect();
    rows.extend(skew(api_url, clock).await);
    rows
}

/// How far this machine's clock is from GitHub's; nothing when GitHub does not answer,
/// which other rows tell.
async fn skew(api_url: &str, clock: &dyn Clock) -> Option<Finding> {
    let client = reqwest::Client::builder()
        .timeout(ANSWER_TIMEOUT)
        .user_agent(concat!("runner-orchestrator/", env!("CARGO_PKG_VERSION")))
        .build()
        .ok()?;
    let begun = clock.now();
    let answer = client.get(api_url).send().await;
    let ended = clock.now();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(error = chain(&error), "github's date was not read");
            return None;
        }
    };
    let date = answer.headers().get("date")?.to_str().ok()?;
    let theirs = Timestamp::from_utc(chrono::DateTime::parse_from_rfc2822(date).ok()?.to_utc());
    Some(judge(begun, theirs, ended))
}

fn judge(begun: Timestamp, theirs: Timestamp, ended: Timestamp) -> Finding {
    let ahead = begun.since(theirs);
    let behind = theirs.since(ended);
    let off = ahead.max(behind);
    if off <= SKEW_UNSEEN {
        return Finding::fine("clock", "agrees with GitHub's");
    }
    let direction = if ahead > behind { "ahead of" } else { "behind" };
    let detail = format!("{} s {direction} GitHub's", off.as_secs());
    if off <= SKEW_MAX {
        return Finding::fine("clock", detail);
    }
    let fix = "set this machine's clock, e.g. `timedatectl set-ntp true`";
    Finding::warning("clock", detail, fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_clock_is_judged_in_both_directions() {
        let at = |seconds: u64| Timestamp(1_700_000_000_000 + seconds * 1000);
        let level = |begun, theirs, ended| judge(at(begun), at(theirs), at(ended)).level;
        assert_eq!(level(100, 100, 101), Level::Fine);
        assert_eq!(level(100, 75, 101), Level::Fine);
        assert_eq!(level(100, 60, 101), Level::Warning);
        assert_eq!(level(100, 160, 101), Level::Warning);
        // A slow answer is not a wrong clock.
        assert_eq!(level(100, 140, 180), Level::Fine);
    }
}
