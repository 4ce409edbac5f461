//! Child processes of the demo: the modelled GitHub and the orchestrator are programs of
//! their own, so that one can be killed without the other noticing.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// A child says that it is ready within this time or has failed.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Lines of a child's messages kept for the case that it fails.
const TAIL_LINES: usize = 40;

/// What is read of a child's output.
#[derive(Clone, Debug)]
pub struct Output {
    /// The text field of the JSON line that says that it is ready.
    pub ready_field: &'static str,
    /// Everything it says is appended here.
    pub log: Option<PathBuf>,
}

/// One child. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    child: Child,
    _drains: JoinSet<()>,
}

impl Program {
    /// Starts `executable` with `args` and only the environment given, and waits
    /// for the first line of its standard output that is JSON with the ready field; returns
    /// that field's value.
    pub async fn start(
        executable: &Path,
        args: &[String],
        env: &[(String, String)],
        output: Output,
    ) -> anyhow::Result<(Self, String)> {
        let mut child = Command::new(executable)
            .args(args)
            .env_clear()
            .envs(env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // An interrupt from the keyboard is ours to pass on, in the right order.
            .process_group(0)
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
                        Some(line) => match ready_field(&line, output.ready_field) {
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
        let log = match &output.log {
            Some(path) => {
                let open = std::fs::OpenOptions::new().create(true).append(true).open(path);
                let mut file =
                    open.with_context(|| format!("could not open {}", path.display()))?;
                writeln!(file, "{}", tail.join("\n"))?;
                Some(Arc::new(file))
            }
            None => None,
        };
        drains.spawn(drain(lines, log.clone()));
        drains.spawn(drain(errors, log));
        Ok((Self { child, _drains: drains }, value))
    }

    /// Its process id; `None` once it has been waited for.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
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
        if let Ok(status) = tokio::time::timeout(within, self.child.wait()).await {
            return Ok(status?.success());
        }
        self.child.kill().await?;
        Ok(false)
    }
}

/// Reads to the end, so that the child never blocks on a full pipe.
async fn drain<R: AsyncBufRead + Unpin>(mut lines: Lines<R>, log: Option<Arc<File>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(mut file) = log.as_deref() {
            // A full disk costs the log, not the demo.
            let _ = writeln!(file, "{line}");
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
