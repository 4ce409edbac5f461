//! Hints that something changed, through the server's channel. They may be lost at any
//! time and carry no facts: whoever hears one reads. When the connection comes back,
//! everything counts as changed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::{ErrorKind, RedisError, Value, cmd};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tracing::debug;

use super::codec::text;
use super::connect::Dialer;
use super::link::{Link, Question, Way};
use crate::store::Topic;

/// A subscriber on which nothing comes back hears nothing either, and is not told.
const PING_EVERY: Duration = Duration::from_secs(5);
/// An answer that takes longer is none.
const WITHIN: Duration = Duration::from_secs(1);
/// A lost subscription is made again after this long.
const AGAIN: Duration = Duration::from_millis(500);
/// The server's settings may be changed while it runs.
const LOOK_EVERY: Duration = Duration::from_secs(60);

const NAMES: [(Topic, &str); Topic::ALL.len()] = [
    (Topic::Assignments, "assignments"),
    (Topic::Hosts, "hosts"),
    (Topic::Intents, "intents"),
    (Topic::Outcomes, "outcomes"),
    (Topic::Leases, "leases"),
];

/// The counters that move with the hints.
#[derive(Debug)]
pub(super) struct Topics {
    counters: [watch::Sender<u64>; Topic::ALL.len()],
    /// Our own hints come back to us; they were counted when they were sent.
    sender: String,
}

impl Topics {
    pub(super) fn new(sender: String) -> Self {
        Self { counters: std::array::from_fn(|_| watch::Sender::new(0)), sender }
    }

    pub(super) fn watch(&self, topic: Topic) -> watch::Receiver<u64> {
        self.counters[topic as usize].subscribe()
    }

    pub(super) fn moved(&self, topics: &[Topic]) {
        for topic in topics {
            self.counters[*topic as usize].send_modify(|count| *count += 1);
        }
    }

    /// The hint to publish; empty when nothing changed.
    pub(super) fn hint(&self, topics: &[Topic]) -> String {
        if topics.is_empty() {
            return String::new();
        }
        let mut hint = self.sender.clone();
        for (_, name) in NAMES.iter().filter(|(topic, _)| topics.contains(topic)) {
            hint.push(' ');
            hint.push_str(name);
        }
        hint
    }

    fn heard(&self, hint: &str) {
        let mut words = hint.split(' ');
        if words.next() == Some(&self.sender) {
            return;
        }
        for word in words {
            let named = NAMES.iter().find(|(_, name)| *name == word);
            self.moved(named.map(|(topic, _)| *topic).as_slice());
        }
    }
}

/// Listens for as long as it lives.
pub(super) struct Listener {
    pub(super) dialer: Arc<Dialer>,
    pub(super) link: Arc<Link>,
    pub(super) topics: Arc<Topics>,
    pub(super) channel: String,
}

impl Listener {
    pub(super) async fn run(self) {
        loop {
            if let Err(error) = self.listen().await {
                debug!(error = %error, "not listening to the store's hints");
            }
            sleep(AGAIN).await;
        }
    }

    async fn listen(&self) -> Result<(), RedisError> {
        self.look().await;
        let (mut sink, mut hints) = within(self.dialer.pubsub()).await?.split();
        within(sink.subscribe(&self.channel)).await?;
        // What was said while nobody listened is not said again.
        self.topics.moved(&Topic::ALL);
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = Instant::now();
        loop {
            tokio::select! {
                hint = hints.next() => match hint {
                    Some(hint) => {
                        self.topics.heard(&String::from_utf8_lossy(hint.get_payload_bytes()));
                    }
                    None => return Ok(()),
                },
                _ = pings.tick() => {
                    within(sink.ping::<Value>()).await?;
                    if looked.elapsed() > LOOK_EVERY {
                        self.look().await;
                        looked = Instant::now();
                    }
                }
            }
        }
    }

    /// What the server says of itself. One that does not let us ask is not blamed.
    async fn look(&self) {
        let command = cmd("INFO");
        let question = Question::Command(&command);
        if let Ok(info) = self.link.ask(Way::Read, "asking for its settings", question).await
            && let Some(info) = text(&info)
        {
            self.link.health.looked_at(&info);
        }
    }
}

async fn within<T>(step: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    match timeout(WITHIN, step).await {
        Ok(ended) => ended,
        Err(_) => Err((ErrorKind::Io, "no answer in time").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_moves_what_it_names_and_only_at_the_others() {
        let (here, there) = (Topics::new("a".to_owned()), Topics::new("b".to_owned()));
        let hint = here.hint(&[Topic::Outcomes, Topic::Assignments]);
        for topics in [&here, &there] {
            topics.heard(&hint);
            topics.heard("x unknown");
        }
        let counts = |topics: &Topics| Topic::ALL.map(|topic| *topics.watch(topic).borrow());
        assert_eq!(counts(&here), [0; 5]);
        assert_eq!(counts(&there), [1, 0, 0, 1, 0]);
        assert_eq!(here.hint(&[]), "");
    }
}
