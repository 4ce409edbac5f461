//! The Redis that replicas share, and what they must agree on. Nothing is written.

use uuid::Uuid;

use super::Finding;
use crate::clock::Clock;
use crate::config::Config;
use crate::fleet::host::RECORD_VERSION;
use crate::fleet::id::ReplicaId;
use crate::fleet::replica::{ReplicaRecord, disagreements};
use crate::loops::announce::{pools_fingerprint, secret_fingerprint};
use crate::store::redis::RedisSettings;
use crate::store::redis::examine::{Look, Server, Setting, Unseen, look};

/// Reachable, let in, sound settings, and replicas that get on with this configuration.
pub async fn examine(config: &Config, settings: RedisSettings, clock: &dyn Clock) -> Vec<Finding> {
    let seen = match look(settings, clock).await {
        Ok(seen) => seen,
        Err(error) => return vec![unseen(&error)],
    };
    let mut rows = vec![Finding::fine("reachable", "")];
    match &seen.server {
        Some(server) => rows.extend(server_rows(server)),
        None => rows.push(Finding::warning(
            "settings",
            "this user may not ask for them (INFO)",
            "let it, or see yourself that the version is 6.2 or newer, maxmemory-policy is \
             noeviction and appendonly is yes",
        )),
    }
    rows.extend(company(config, &seen, own(config, &seen)));
    rows
}

fn unseen(error: &Unseen) -> Finding {
    let fix = match error {
        Unseen::Unreachable(_) => {
            "start Redis, check REDIS_URL, DNS and the firewall between this machine and it; \
             replicas start without it and wait"
        }
        Unseen::Refused(_) => "put its user and password into REDIS_URL, or REDIS_URL_FILE",
    };
    let what = match error {
        Unseen::Unreachable(_) => "reachable",
        Unseen::Refused(_) => "password",
    };
    Finding::broken(what, error.to_string(), fix)
}

/// A row for each setting; what is wrong is told as in `/readyz`.
fn server_rows(server: &Server) -> Vec<Finding> {
    let wrong = |setting: Setting| {
        let mut found = server.shortcomings.iter().filter(|(what, _)| *what == setting);
        found.next().map(|(_, text)| text.split_once("; ").unwrap_or((text, text)))
    };
    let row = |what: &'static str, setting: Setting, fine: &str| match wrong(setting) {
        Some((problem, fix)) => Finding::broken(what, problem, fix),
        None => Finding::fine(what, fine),
    };
    let mut rows = vec![
        row("version", Setting::Version, &server.version),
        row("eviction", Setting::Eviction, &server.maxmemory_policy),
        row("role", Setting::Role, "master"),
    ];
    rows.push(if server.appendonly {
        Finding::fine("persistence", "appendonly")
    } else {
        Finding::warning(
            "persistence",
            "appendonly is off: its restart makes every host report anew before anything starts",
            "set appendonly to yes",
        )
    });
    rows
}

/// This configuration as a replica of it would announce itself.
fn own(config: &Config, seen: &Look) -> ReplicaRecord {
    ReplicaRecord {
        version: RECORD_VERSION,
        replica: ReplicaId(Uuid::nil()),
        hostname: String::new(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        advertise: None,
        host: None,
        agent: false,
        started_at: seen.wall,
        clock: seen.wall,
        at: seen.time,
        secret_fingerprint: config.cluster.secret.as_ref().and_then(secret_fingerprint),
        pools_fingerprint: pools_fingerprint(&config.pools),
    }
}

fn company(config: &Config, seen: &Look, own: ReplicaRecord) -> Vec<Finding> {
    let mut rows: Vec<Finding> = seen
        .unreadable
        .iter()
        .map(|record| {
            let problem = format!("record {} cannot be read: {}", record.key, record.problem);
            let fix = "run the same version on every replica; the record is left as it is";
            Finding::warning("replicas", problem, fix)
        })
        .collect();
    let (measure, mut all) = (own.replica, seen.replicas.clone());
    all.insert(measure, own);
    let differ = disagreements(&all, Some(measure));
    rows.extend(differ.iter().filter_map(|found| {
        let record = seen.replicas.get(&found.replica)?;
        let problem = format!("{} {} this configuration", record.hostname, found.what);
        Some(Finding::warning("replicas", problem, found.what.fix()))
    }));
    if config.cluster.secret.is_none() {
        rows.push(Finding::warning(
            "peers",
            "CLUSTER_SECRET is not set: logs of runners on other replicas' hosts are not shown here",
            "set the same CLUSTER_SECRET on every replica",
        ));
    }
    if rows.iter().all(|row| row.what != "replicas") {
        let many = seen.replicas.len();
        rows.push(Finding::fine("replicas", format!("{many} announced, none differs")));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn every_setting_has_a_row_and_what_is_wrong_its_remedy() {
        let mut server = Server {
            version: "7.0.15".to_owned(),
            maxmemory_policy: "noeviction".to_owned(),
            appendonly: true,
            shortcomings: Vec::new(),
        };
        let levels = |server: &Server| {
            server_rows(server).iter().map(|row| (row.what.clone(), row.level)).collect::<Vec<_>>()
        };
        assert!(levels(&server).iter().all(|(_, level)| *level == Level::Fine));
        server.appendonly = false;
        server.shortcomings =
            vec![(Setting::Version, "version 6.0.16 is too old; use 6.2 or newer".to_owned())];
        let rows = server_rows(&server);
        assert_eq!(rows[0].level, Level::Broken);
        assert_eq!(rows[0].detail.as_deref(), Some("version 6.0.16 is too old"));
        assert_eq!(rows[0].fix.as_deref(), Some("use 6.2 or newer"));
        assert_eq!((rows[1].level, rows[2].level), (Level::Fine, Level::Fine));
        assert_eq!((rows[3].what.as_str(), rows[3].level), ("persistence", Level::Warning));
    }
}
