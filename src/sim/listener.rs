//! The stand-in listener: what the real runner shows to the outside (its lines on
//! standard output, exit codes, behaviour at a signal, one job and gone), against
//! the modelled GitHub's runner service. It runs nothing: a job is a wait.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::clock::calendar;
use super::github::JitConfig;
use super::github::runner_service::JobMessage;

mod config;
mod options;
mod transport;

pub use options::{ListenerFaults, ListenerOptions, StopSignal, exit};
pub use transport::Transport;

use config::read_config;
use transport::{CallError, Opened, Polled, Service};

/// The version every runner of the modelled world shows.
const VERSION: &str = "2.336.0";
/// First and longest pause between attempts to reach the service.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a job's end is offered to a service that does not answer.
const COMPLETE_FOR: Duration = Duration::from_secs(30);
/// What a shutting-down listener spends on closing its session.
const CLOSE_FOR: Duration = Duration::from_secs(5);

/// Runs one listener to its end and answers its exit code.
///
/// Reads one line, the JIT configuration, from `input`; writes its lines to `out`;
/// stops at the first signal. Dropping the future is a kill -9.
pub async fn run<I, O, S>(options: ListenerOptions, input: I, out: O, signals: S) -> i32
where
    I: AsyncRead + Unpin,
    O: AsyncWrite + Unpin,
    S: Stream<Item = StopSignal> + Unpin,
{
    if let Some(code) = options.faults.exit_at_start {
        return code;
    }
    let ignore_term = options.faults.ignore_term;
    let fold = options.fold_exit_codes;
    let mut listener =
        Listener { options, out, signals: Signals { stream: signals, ignore_term, over: false } };
    match listener.whole_life(input).await {
        exit::TERMINATED | exit::SESSION_CONFLICT if fold => exit::DONE,
        code => code,
    }
}

struct Signals<S> {
    stream: S,
    ignore_term: bool,
    over: bool,
}

impl<S: Stream<Item = StopSignal> + Unpin> Signals<S> {
    /// Waits for a signal that counts; for ever when none can come any more.
    async fn stop(&mut self) {
        while !self.over {
            match self.stream.next().await {
                Some(StopSignal::Terminate) if self.ignore_term => (),
                Some(_) => return,
                None => self.over = true,
            }
        }
        std::future::pending::<()>().await;
    }
}

struct Listener<O, S> {
    options: ListenerOptions,
    out: O,
    signals: Signals<S>,
}

/// What ended the wait for a job.
enum Waited {
    Job(JobMessage),
    Gone,
    Stopped,
}

/// An attempt to start the job.
enum Started {
    Ours,
    NotOurs,
    Stopped,
}

impl<O: AsyncWrite + Unpin, S: Stream<Item = StopSignal> + Unpin> Listener<O, S> {
    async fn whole_life<I: AsyncRead + Unpin>(&mut self, input: I) -> i32 {
        let limit = self.options.input_limit;
        let config = tokio::select! {
            biased;
            () = self.signals.stop() => return self.say_exiting().await,
            config = read_config(input, limit) => config,
        };
        let config = match config {
            Ok(config) => config,
            Err(error) => {
                self.line(&format!("An error occurred: {error}")).await;
                return exit::TERMINATED;
            }
        };
        self.line("√ Connected to GitHub").await;
        self.line("").await;
        self.line(&format!("Current runner version: '{VERSION}'")).await;
        if self.options.faults.never_listen {
            self.signals.stop().await;
            return self.say_exiting().await;
        }
        let service = Service::new(self.options.transport.clone(), &config);
        match self.open(&service, &config).await {
            Ok(session) => self.listen(&service, &session).await,
            Err(code) => code,
        }
    }

    /// Opens the session, waiting out another one and a service that is away.
    async fn open(&mut self, service: &Service, config: &JitConfig) -> Result<String, i32> {
        let give_up = Instant::now() + self.options.conflict_limit;
        let mut trouble = Trouble::default();
        loop {
            let opened = tokio::select! {
                biased;
                () = self.signals.stop() => return Err(self.say_exiting().await),
                opened = service.open(config) => opened,
            };
            let pause = match opened {
                Ok(Opened::Session(id)) => {
                    self.over(&mut trouble).await;
                    return Ok(id);
                }
                Ok(Opened::Gone) => {
                    self.line("Failed to create a session. The runner registration has been deleted from the server, please re-configure. Runner registrations are automatically deleted for runners that have not connected to the service recently.").await;
                    return Err(exit::TERMINATED);
                }
                Ok(Opened::Refused) => {
                    self.line("An error occurred: Not configured. The credentials of this runner are not accepted.").await;
                    return Err(exit::TERMINATED);
                }
                Ok(Opened::Conflict) => {
                    self.line("A session for this runner already exists.").await;
                    if Instant::now() >= give_up {
                        return Err(exit::SESSION_CONFLICT);
                    }
                    self.options.conflict_pause
                }
                Err(error) => self.bad_news(&mut trouble, &error).await,
            };
            tokio::select! {
                biased;
                () = self.signals.stop() => return Err(self.say_exiting().await),
                () = sleep(pause) => (),
            }
        }
    }

    /// Listens until a job was done, the registration is gone, or a signal comes.
    async fn listen(&mut self, service: &Service, session: &str) -> i32 {
        self.stamped("Listening for Jobs").await;
        loop {
            match self.wait_for_job(service, session).await {
                Waited::Job(job) => {
                    if let Some(code) = self.do_job(service, session, &job).await {
                        return code;
                    }
                }
                Waited::Gone => {
                    self.line(
                        "The runner no longer exists on the server. Please reconfigure the runner.",
                    )
                    .await;
                    return exit::TERMINATED;
                }
                Waited::Stopped => {
                    let code = self.say_exiting().await;
                    timeout(CLOSE_FOR, service.close(session)).await.ok();
                    return code;
                }
            }
        }
    }

    async fn wait_for_job(&mut self, service: &Service, session: &str) -> Waited {
        let mut trouble = Trouble::default();
        loop {
            let polled = tokio::select! {
                biased;
                () = self.signals.stop() => return Waited::Stopped,
                polled = service.poll(session, self.options.hold) => polled,
            };
            let pause = match polled {
                Ok(answer) => {
                    self.over(&mut trouble).await;
                    match answer {
                        Polled::Job(job) => return Waited::Job(job),
                        Polled::Gone => return Waited::Gone,
                        Polled::Nothing => continue,
                    }
                }
                Err(error) => self.bad_news(&mut trouble, &error).await,
            };
            tokio::select! {
                biased;
                () = self.signals.stop() => return Waited::Stopped,
                () = sleep(pause) => (),
            }
        }
    }

    /// Runs the one job; `None` when it is not this runner's any more.
    async fn do_job(&mut self, service: &Service, session: &str, job: &JobMessage) -> Option<i32> {
        sleep(self.options.faults.late_start).await;
        match self.start_job(service, session, job).await {
            Started::Ours => (),
            Started::NotOurs => return None,
            Started::Stopped => {
                let code = self.say_exiting().await;
                timeout(CLOSE_FOR, service.close(session)).await.ok();
                return Some(code);
            }
        }
        self.stamped(&format!("Running job: {}", job.name)).await;
        for line in self.options.faults.forged_lines.clone() {
            self.line(&line).await;
        }
        let result = self.work(service, session, job).await;
        complete(service, session, job, &result).await;
        self.stamped(&format!("Job {} completed with result: {result}", job.name)).await;
        self.line("√ Removed .credentials").await;
        self.line("√ Removed .runner").await;
        self.line("Runner listener exit with 0 return code, stop the service, no retry needed.")
            .await;
        self.line("Exiting runner...").await;
        Some(exit::DONE)
    }

    async fn start_job(&mut self, service: &Service, session: &str, job: &JobMessage) -> Started {
        let mut trouble = Trouble::default();
        loop {
            // Not broken off by a signal: a job that was started must be ended too.
            let pause = match service.start(session, job.id).await {
                Ok(true) => return Started::Ours,
                Ok(false) => return Started::NotOurs,
                Err(error) => self.bad_news(&mut trouble, &error).await,
            };
            tokio::select! {
                biased;
                () = self.signals.stop() => return Started::Stopped,
                () = sleep(pause) => (),
            }
        }
    }

    /// Waits for as long as the job lasts, with signs of life; answers its result.
    async fn work(&mut self, service: &Service, session: &str, job: &JobMessage) -> String {
        let end = Instant::now() + Duration::from_millis(job.duration_ms);
        let renew = Duration::from_millis(job.renew_ms.max(100));
        loop {
            let now = Instant::now();
            if now >= end {
                return job.result.clone();
            }
            tokio::select! {
                biased;
                () = self.signals.stop() => {
                    self.say_exiting().await;
                    return "Canceled".to_owned();
                }
                () = sleep(renew.min(end - now)) => (),
            }
            if Instant::now() < end {
                // An error is no reason to stop: the next sign of life may arrive.
                let go_on = service.renew(session, job.id).await.unwrap_or(true);
                if !go_on {
                    return "Canceled".to_owned();
                }
            }
        }
    }

    async fn say_exiting(&mut self) -> i32 {
        self.line("Exiting...").await;
        exit::DONE
    }

    async fn bad_news(&mut self, trouble: &mut Trouble, error: &CallError) -> Duration {
        if !trouble.told {
            trouble.told = true;
            self.stamped(&format!("Runner connect error: {error}. Retrying until reconnected."))
                .await;
        }
        trouble.pause = (trouble.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        trouble.pause
    }

    async fn over(&mut self, trouble: &mut Trouble) {
        if trouble.told {
            self.stamped("Runner reconnected.").await;
        }
        *trouble = Trouble::default();
    }

    async fn stamped(&mut self, text: &str) {
        let now = calendar(self.options.clock.now_ms()).format("%Y-%m-%d %H:%M:%SZ");
        self.line(&format!("{now}: {text}")).await;
    }

    /// Writes one line. A reader that has gone away is no reason to stop.
    async fn line(&mut self, text: &str) {
        let line = format!("{text}\n");
        if self.out.write_all(line.as_bytes()).await.is_ok() {
            self.out.flush().await.ok();
        }
    }
}

/// Trouble with the service that was already told about.
#[derive(Default)]
struct Trouble {
    told: bool,
    pause: Duration,
}

/// Reports the job's end, again when there is no answer. A service that does not
/// know the job any more has already ended it.
async fn complete(service: &Service, session: &str, job: &JobMessage, result: &str) {
    let give_up = Instant::now() + COMPLETE_FOR;
    let mut pause = PAUSE_MIN;
    while service.complete(session, job.id, result).await.is_err() && Instant::now() < give_up {
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
