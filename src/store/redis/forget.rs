//! Takes away everything a cluster has left in a Redis: for the demo, whose cluster ends with
//! it. A fleet's own keys are never deleted like this.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use tokio::time::timeout;

use super::RedisSettings;
use super::connect::Dialer;
use super::keys::{KEYS, Keys};
use super::link::problem;

/// The whole of it; a large Redis of others is looked through in steps.
const WITHIN: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Keys the server looks at in one step: some milliseconds.
const STEP: usize = 1_000;

/// Deletes the keys of the cluster that are in the table of keys, and no others; how many.
///
/// # Errors
/// Why not all could be deleted, in words.
pub async fn forget(settings: RedisSettings) -> Result<u64, String> {
    let keys = Keys::new(&settings.cluster);
    let dialer = Dialer::new(settings.address, settings.tls);
    match timeout(WITHIN, delete(&dialer, &keys)).await {
        Ok(deleted) => deleted.map_err(|error| problem(&error)),
        Err(_) => Err(format!("not done within {} s", WITHIN.as_secs())),
    }
}

async fn delete(dialer: &Dialer, keys: &Keys) -> Result<u64, RedisError> {
    let mut connection = dialer.connection(ANSWER_WITHIN).await?;
    // On Redis Cluster another node may keep them, all together.
    let probe = cmd("EXISTS").arg(keys.named("state")).clone();
    if let Err(error) = probe.query_async::<u64>(&mut connection).await {
        let Some((node, _)) = error.redirect_node() else { return Err(error) };
        dialer.follow(Some(node));
        connection = dialer.connection(ANSWER_WITHIN).await?;
    }
    let mut deleted = 0;
    let mut cursor = 0;
    loop {
        let (next, found) = scan(&mut connection, keys, cursor).await?;
        let ours: Vec<String> = found.into_iter().filter(|key| is_ours(keys, key)).collect();
        if !ours.is_empty() {
            deleted += cmd("UNLINK").arg(ours).query_async::<u64>(&mut connection).await?;
        }
        if next == 0 {
            return Ok(deleted);
        }
        cursor = next;
    }
}

async fn scan(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    cursor: u64,
) -> Result<(u64, Vec<String>), RedisError> {
    let mut scan = cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(pattern(&keys.named(""))).arg("COUNT").arg(STEP);
    scan.query_async(connection).await
}

/// Matches what begins with `prefix`, whatever stands in it.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for c in prefix.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('*');
    pattern
}

/// Whether a key is of this cluster and in the table.
fn is_ours(keys: &Keys, key: &str) -> bool {
    let Some(name) = key.strip_prefix(&keys.named("")) else { return false };
    KEYS.iter().any(|entry| match entry.name.split_once('<') {
        Some((fixed, _)) => name.len() > fixed.len() && name.starts_with(fixed),
        None => name == entry.name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_of_the_table_and_of_this_cluster_are_ours() {
        let keys = Keys::new("demo-1");
        for key in ["{ro:demo-1}:state", "{ro:demo-1}:lease:agent:h", "{ro:demo-1}:kept:etags"] {
            assert!(is_ours(&keys, key), "{key}");
        }
        for key in [
            "{ro:demo-10}:state",
            "{ro:demo}:state",
            "state",
            "{ro:demo-1}:states",
            "{ro:demo-1}:notes",
            "{ro:demo-1}:kept:",
        ] {
            assert!(!is_ours(&keys, key), "{key}");
        }
    }

    #[test]
    fn a_name_is_no_pattern() {
        assert_eq!(pattern("{ro:a*b}:"), "{ro:a\\*b}:*");
    }
}
