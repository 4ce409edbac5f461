//! The modelled GitHub: an HTTP server that answers the calls we use as GitHub
//! would, enforces its limits, gives jobs to runners, and can be told to misbehave.
//!
//! It is used by `demo`, `sim github` and the tests, always through the product's
//! own client. It never calls into the product.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::time::{Duration, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

mod assignment;
mod auth;
mod bodies;
mod control;
mod errors;
mod faults;
mod gate;
mod ids;
mod jit;
mod jobs;
mod limits;
mod options;
mod paging;
mod place;
mod report;
mod routes_account;
mod routes_actions;
mod routes_runners;
pub(crate) mod runner_service;
mod runners;
mod sender;
mod serve;
mod settings;
mod state;
mod unverified;
mod webhooks;

pub use control::{ControlError, PlantedRunners, ReposPatch};
pub use faults::Fault;
pub use ids::{JobId, RunId, RunnerId};
pub use jit::{JitConfig, JitError, decode as decode_jit};
pub use jobs::{JobStatus, JobsRefused, NewJobs};
pub use limits::LimitCrossings;
pub use options::{
    AppSpec, InstallationSpec, Level, Permissions, SimOptions, TokenKind, TokenSpec,
};
pub use report::{JobReport, RunnerReport, StateReport};
pub use runners::Removed;
pub use settings::{Settings, SettingsPatch};
pub use unverified::{Assumption, Row, TABLE as UNVERIFIED, Variants};
pub use webhooks::{Delivered, NewWebhook, sign};

use super::clock::SimClock;
use state::World;

/// How long the clock loop sleeps when nothing is due.
const NOTHING_DUE: Duration = Duration::from_secs(3_600);

/// One modelled GitHub. Clones are the same one.
#[derive(Clone)]
pub struct SimGitHub {
    inner: Arc<Inner>,
}

struct Inner {
    world: Mutex<World>,
    clock: SimClock,
}

impl fmt::Debug for SimGitHub {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SimGitHub")
    }
}

impl SimGitHub {
    /// A model that is not reachable by any socket yet.
    #[must_use]
    pub fn new(options: &SimOptions) -> Self {
        let clock = options.start_epoch_ms.map_or_else(SimClock::real, SimClock::starting_at);
        let world = Mutex::new(World::new(options, clock.now_ms()));
        Self { inner: Arc::new(Inner { world, clock }) }
    }

    /// Modelled time.
    #[must_use]
    pub fn clock(&self) -> SimClock {
        self.inner.clock
    }

    /// Everything the model serves, also without a socket: the API at `/` and at
    /// `/api/v3`, the runner service under `/_runner`, control under `/_sim`.
    pub fn router(&self) -> Router {
        let mut api = Router::new();
        for root in ["", gate::GHES] {
            api = routes_account::mount(api, root);
            api = routes_actions::mount(api, root);
            api = routes_runners::mount(api, root);
        }
        let missing = || async { errors::ApiFailure::not_found() };
        api.fallback(missing)
            .method_not_allowed_fallback(missing)
            .layer(from_fn_with_state(self.clone(), gate::pass))
            .merge(runner_service::routes())
            .merge(control::routes())
            .with_state(self.clone())
    }

    /// Serves on a free port of 127.0.0.1 until the handle is dropped.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub async fn start(options: SimOptions) -> io::Result<SimHandle> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self::new(&options).listen(any, None, CancellationToken::new()).await
    }

    /// Serves on `address`, reachable only through the network device `device` when
    /// one is named, until `stop` is cancelled or the handle is dropped.
    ///
    /// # Errors
    /// When the address or the device cannot be bound.
    #[expect(clippy::unused_async, reason = "a runtime must be there, so callers shall be async")]
    pub async fn listen(
        self,
        address: SocketAddr,
        device: Option<&str>,
        stop: CancellationToken,
    ) -> io::Result<SimHandle> {
        let stop = stop.child_token();
        let socket = serve::listen(address, device)?;
        let address = socket.local_addr()?;
        let base_url = format!("http://{address}");
        self.with(|world, _| world.base_url.clone_from(&base_url));
        let tasks = TaskTracker::new();
        let listener = serve::CuttableListener::new(socket, stop.clone());
        let service = self.router().into_make_service_with_connect_info::<serve::Peer>();
        let stopped = stop.clone();
        tasks.spawn(async move {
            let served = axum::serve(listener, service).into_future();
            tokio::select! {
                () = stopped.cancelled() => (),
                result = served => if let Err(error) = result {
                    tracing::error!(%error, "the modelled GitHub stopped serving");
                },
            }
        });
        tasks.spawn(self.clone().drive(stop.clone()));
        tasks.close();
        Ok(SimHandle {
            sim: self,
            base_url,
            address,
            tasks,
            stop: stop.clone(),
            _guard: stop.drop_guard(),
        })
    }

    /// Carries out what is due without a request coming in (lost runners, jobs not
    /// picked up) and sends webhooks, until `stop`. [`SimGitHub::start`] runs it; who
    /// uses the bare [`SimGitHub::router`] may run it too.
    pub async fn drive(self, stop: CancellationToken) {
        tokio::join!(self.keep_time(&stop), sender::deliver(&self, &stop));
    }

    async fn keep_time(&self, stop: &CancellationToken) {
        loop {
            let (due_ms, changed) =
                self.with(|world, _| (world.next_due_ms, world.changed.clone()));
            let clock = self.clock();
            let nothing_due = clock.now_ms().saturating_add(super::clock::millis(NOTHING_DUE));
            tokio::select! { biased;
                () = stop.cancelled() => return,
                () = sleep_until(clock.instant_of(due_ms.min(nothing_due))) => (),
                () = changed.notified() => (),
            }
        }
    }

    /// Runs `act` on the state as of now, with everything due carried out before.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut World, u64) -> R) -> R {
        // A panic of another holder leaves nothing half done that matters to a model.
        let mut world = self.inner.world.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.inner.clock.now_ms();
        world.advance(now);
        act(&mut world, now)
    }
}

/// A model that is being served. Dropping it stops it and closes all connections.
#[derive(Debug)]
pub struct SimHandle {
    sim: SimGitHub,
    base_url: String,
    address: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl SimHandle {
    /// `http://IP:PORT`.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// What `GITHUB_API_URL` names: the GHES form of the API.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("{}{}", self.base_url, gate::GHES)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The model itself.
    #[must_use]
    pub fn sim(&self) -> &SimGitHub {
        &self.sim
    }

    /// Stops and waits until nothing of it runs any more.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// Waits until the model was stopped.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }
}

impl Deref for SimHandle {
    type Target = SimGitHub;

    fn deref(&self) -> &SimGitHub {
        &self.sim
    }
}
