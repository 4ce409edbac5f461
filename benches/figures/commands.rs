//! What a replica at rest asks of Redis.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::Instant;

use super::cluster::{Cluster, REPLICAS, user};
use super::figure::{Figure, Measured, rounded};
use super::world::in_real_time;

pub(crate) const COMMANDS: Figure =
    Figure { name: "redis_commands_per_replica", limit: 8.0, unit: "commands/s", measure };

/// Two idle runners, as by default.
const ENV: [(&str, &str); 3] =
    [("MIN_RUNNERS", "2"), ("MAX_RUNNERS", "10"), ("POLL_INTERVAL", "30")];
/// The first minute after a start is not rest.
const SETTLED: Duration = Duration::from_secs(25);
/// Two full rounds of everything that repeats.
const WATCH: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(1);

const HOW: &str = "3 `serve --engine model` with two idle runners around one redis-server; every \
    command that a replica's connections send in 60 s by MONITOR (an EVALSHA is one, what the \
    script does inside is not counted; PING is), told apart by the replicas' users; value = the \
    busiest replica, which is the leader";

fn measure() -> anyhow::Result<Measured> {
    in_real_time(async {
        let mut cluster = Cluster::start(&ENV).await?;
        tokio::time::sleep(SETTLED).await;
        let (leader, term) = cluster.leader().await?;
        let sent = watch(&cluster).await?;
        let mut broken = Vec::new();
        if cluster.leader().await? != (leader, term) {
            broken.push("the leader changed meanwhile".to_owned());
        }
        cluster.stop().await?;
        let rates: Vec<f64> = (0..REPLICAS).map(|number| sent.rate(&user(number))).collect();
        let detail = json!({
            "how": HOW,
            "by_replica": rates.iter().map(|rate| rounded(*rate)).collect::<Vec<_>>(),
            "leader": user(leader),
            "leader_by_command": sent.by_command(&user(leader)),
            "of_nobody": rounded(sent.rate("")),
        });
        // What came over a connection that was gone before it was listed counts for each.
        let value = rates.iter().copied().fold(f64::NAN, f64::max) + sent.rate("");
        Ok(Measured { value, detail, broken })
    })
}

/// Commands by user, then by what they are.
#[derive(Debug, Default)]
struct Sent {
    seconds: f64,
    commands: BTreeMap<String, BTreeMap<String, u32>>,
}

impl Sent {
    fn rate(&self, user: &str) -> f64 {
        self.by_command(user).values().sum()
    }

    fn by_command(&self, user: &str) -> BTreeMap<String, f64> {
        let commands = self.commands.get(user).into_iter().flatten();
        let rate = |count: u32| rounded(f64::from(count) / self.seconds);
        commands.map(|(command, count)| (command.clone(), rate(*count))).collect()
    }
}

async fn watch(cluster: &Cluster) -> anyhow::Result<Sent> {
    let mut users = users(cluster).await?;
    let mut commands = cluster.redis.monitor().await?;
    let mut by_address: BTreeMap<(String, String), u32> = BTreeMap::new();
    let begun = Instant::now();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    while begun.elapsed() < WATCH {
        tokio::select! {
            line = commands.next() => {
                if let Some(sent) = command(&line.context("MONITOR has ended")?) {
                    *by_address.entry(sent).or_default() += 1;
                }
            }
            _ = looks.tick() => users.extend(self::users(cluster).await?),
        }
    }
    let mut sent = Sent { seconds: begun.elapsed().as_secs_f64(), ..Sent::default() };
    for ((address, command), count) in by_address {
        let user = users.get(&address).cloned().unwrap_or_default();
        *sent.commands.entry(user).or_default().entry(command).or_default() += count;
    }
    Ok(sent)
}

/// Whose each connection is.
async fn users(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, String>> {
    let text: String = cluster.redis.ask(redis::cmd("CLIENT").arg("LIST")).await?;
    let of = |line: &str| {
        let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name));
        Some((field("addr=")?.to_owned(), field("user=")?.to_owned()))
    };
    Ok(text.lines().filter_map(of).collect())
}

/// The address and the command of a line of `MONITOR`; `None` for what a script did. Of a
/// script the last key tells which one it is.
fn command(line: &str) -> Option<(String, String)> {
    let (head, words) = line.split_once("] \"")?;
    let address = head.rsplit(' ').next()?;
    if address == "lua" {
        return None;
    }
    let words: Vec<&str> = words.trim_end_matches('"').split("\" \"").collect();
    let mut name = words.first()?.to_ascii_uppercase();
    let count: Option<usize> = words.get(2).and_then(|count| count.parse().ok());
    if let (true, Some(count)) = (name.starts_with("EVAL"), count)
        && let Some(key) = words.get(2 + count)
    {
        let script = key.rsplit("}:").next().unwrap_or(key);
        let script = script.split_once("agent:").map_or(script, |(kind, _)| kind);
        name = format!("{name} {count} {script}");
    }
    Some((address.to_owned(), name))
}
