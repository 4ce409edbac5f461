//! `healthcheck`: whether the API of this machine's orchestrator answers; for images
//! without a shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::print;
use crate::config::Config;

/// An engine asks every few seconds; an answer from memory takes a millisecond.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Where the API listens unless configured otherwise.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// What to ask.
#[derive(Clone, Debug, Args)]
pub struct HealthcheckArgs {
    /// What to ask instead of `/livez` at the address configured
    #[arg(long, value_name = "URL")]
    pub url: Option<url::Url>,
}

/// Succeeds when the answer is a success.
pub async fn run(args: HealthcheckArgs) -> anyhow::Result<ExitCode> {
    let url = match args.url {
        Some(url) => url.to_string(),
        None => format!("http://{}/livez", here()),
    };
    let client = reqwest::Client::builder()
        .timeout(ANSWER_TIMEOUT)
        .no_proxy()
        .build()
        .context("could not make an HTTP client")?;
    let answer = client.get(&url).send().await.map_err(reqwest::Error::without_url);
    let status = answer.with_context(|| format!("no answer from {url}"))?.status();
    if status.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    print::message(&format!("{url} answers {status}"));
    Ok(ExitCode::FAILURE)
}

/// The address configured, as reached from this machine.
fn here() -> SocketAddr {
    let mut address = Config::from_process().map_or(USUAL, |config| config.api.listen);
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
