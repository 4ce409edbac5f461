//! The gate of one process: every call it makes passes here, so that it can be stopped
//! for a while (SIGSTOP) or for ever (kill -9), also in the middle of a chosen call.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use tokio::io::AsyncWrite;
use tokio::sync::Notify;

/// A step of the product's work at which a process may die.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Point {
    Commit,
    Report,
    Acquire,
    Create,
    Start,
    Remove,
    Mint,
    Deregister,
}

/// Before the call's effect or after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moment {
    Before,
    After,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    Shut,
    Dead,
}

/// The writing end of a container's standard input, as far as it is still held.
pub(super) type Feed = Mutex<Option<Pin<Box<dyn AsyncWrite + Send>>>>;

/// A value that many wait for. Unlike tokio's watch channel it wakes them in the order in
/// which they came, so that a seed is one run.
#[derive(Debug)]
pub(super) struct Signal<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Copy + PartialEq> Signal<T> {
    pub(super) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    pub(super) fn get(&self) -> T {
        *lock(&self.value)
    }

    pub(super) fn set(&self, value: T) {
        *lock(&self.value) = value;
        self.changed.notify_waiters();
    }

    /// Waits until it has this value.
    pub(super) async fn until(&self, value: T) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before looking, so that a change right after the look wakes us.
            changed.as_mut().enable();
            if self.get() == value {
                return;
            }
            changed.await;
        }
    }
}

#[derive(Debug)]
pub(super) struct Gate {
    state: Signal<State>,
    fatal: Mutex<Option<(Point, Moment)>>,
    halting: Mutex<Option<Point>>,
    /// A dying process's connections close.
    feeds: Mutex<Vec<Weak<Feed>>>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            state: Signal::new(State::Open),
            fatal: Mutex::default(),
            halting: Mutex::default(),
            feeds: Mutex::default(),
        }
    }

    /// Waits while the process is stopped; for ever once it is dead.
    pub(super) async fn pass(&self) {
        if self.state.get() != State::Open {
            self.state.until(State::Open).await;
        }
    }

    /// Passes at a named step, unless the process is to die or to be stopped there.
    pub(super) async fn at(&self, point: Point, moment: Moment) {
        self.pass().await;
        let fatal = *lock(&self.fatal) == Some((point, moment));
        if fatal {
            self.kill();
            self.pass().await;
        }
        let halts = moment == Moment::Before
            && lock(&self.halting).take_if(|halting| *halting == point).is_some();
        if halts {
            self.stop();
            self.pass().await;
        }
    }

    /// Lets the process die at the next such step.
    pub(super) fn die_at(&self, point: Point, moment: Moment) {
        *lock(&self.fatal) = Some((point, moment));
    }

    /// Stops the process right before its next such step.
    pub(super) fn stop_at(&self, point: Point) {
        *lock(&self.halting) = Some(point);
    }

    pub(super) fn stop(&self) {
        if self.state.get() == State::Open {
            self.state.set(State::Shut);
        }
    }

    pub(super) fn go_on(&self) {
        *lock(&self.halting) = None;
        if self.state.get() == State::Shut {
            self.state.set(State::Open);
        }
    }

    pub(super) fn kill(&self) {
        self.state.set(State::Dead);
        for feed in lock(&self.feeds).drain(..) {
            if let Some(feed) = feed.upgrade() {
                lock(&feed).take();
            }
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state.get() == State::Dead
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.get() == State::Open
    }

    /// Closes this input when the process dies.
    pub(super) fn holds(&self, feed: Weak<Feed>) {
        let mut feeds = lock(&self.feeds);
        feeds.retain(|feed| feed.strong_count() > 0);
        feeds.push(feed);
    }
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
