//! Child processes of the demo: the modelled GitHub and the orchestrator are programs of
//! their own, so that one can be killed without the other noticing.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// A child says that it is ready within this time or has failed.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Lines of a child's messages kept for the case that it fails.
const TAIL_LINES: usize = 40;

/// One child. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    child: Child,
    _drains: JoinSet<()>,
}

impl Program {
    /// Starts this very executable with `args` and only the environment given, and waits
    /// for the first line on `ready_on` that is JSON with the text field `field`; returns
    /// that field. Everything after it is read and dropped.
    pub async fn start(
        args: &[String],
        env: &[(String, String)],
        field: &'static str,
    ) -> anyhow::Result<(Self, String)> {
        let executable = std::env::current_exe().context("could not find this executable")?;
        let mut child = Command::new(executable)
            .args(args)
            .env_clear()
            .envs(env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("could not start {args:?}"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut errors = BufReader::new(stderr).lines();
        let mut tail: Vec<String> = Vec::new();
        let ready = async {
            loop {
                tokio::select! {
                    line = lines.next_line() => match line? {
                        Some(line) => match ready_field(&line, field) {
                            Some(value) => return Ok(value),
                            None => keep(&mut tail, line),
                        },
                        None => bail!("{} ended before it was ready", args.join(" ")),
                    },
                    Ok(Some(line)) = errors.next_line() => keep(&mut tail, line),
                }
            }
        };
        let value = match tokio::time::timeout(READY_WITHIN, ready).await {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => bail!("{error}\n{}", tail.join("\n")),
            Err(_) => bail!("{} was not ready in time\n{}", args.join(" "), tail.join("\n")),
        };
        let mut drains = JoinSet::new();
        drains.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        drains.spawn(async move { while let Ok(Some(_)) = errors.next_line().await {} });
        Ok((Self { child, _drains: drains }, value))
    }

    /// kill -9.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("could not kill a child process")
    }

    /// Asks it to end (SIGTERM) and waits. Whether it ended well.
    pub async fn stop(mut self, within: Duration) -> anyhow::Result<bool> {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) => Ok(status?.success()),
            Err(_) => {
                self.child.kill().await?;
                Ok(false)
            }
        }
    }
}

fn keep(tail: &mut Vec<String>, line: String) {
    if tail.len() == TAIL_LINES {
        tail.remove(0);
    }
    tail.push(line);
}

fn ready_field(line: &str, field: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    value.get(field)?.as_str().map(str::to_owned)
}
