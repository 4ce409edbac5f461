//! Reads the JIT configuration from standard input.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::time::timeout;

use crate::sim::github::{JitConfig, JitError, decode_jit};

/// The longest line read. The real blob has about 4 KiB.
const LINE_BYTES_MAX: u64 = 256 * 1_024;

/// Why there is no configuration. Never shows what was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("no JIT configuration came on standard input within {seconds} s")]
    Timeout { seconds: u64 },
    #[error("standard input ended without a JIT configuration")]
    Empty,
    #[error("standard input could not be read")]
    Read(#[source] std::io::Error),
    #[error("{0}")]
    Jit(#[from] JitError),
}

/// Reads one line within `limit` and decodes it.
pub(super) async fn read_config(
    input: impl AsyncRead + Unpin,
    limit: Duration,
) -> Result<JitConfig, ConfigError> {
    let mut line = String::new();
    let mut input = BufReader::new(input.take(LINE_BYTES_MAX));
    match timeout(limit, input.read_line(&mut line)).await {
        Err(_) => Err(ConfigError::Timeout { seconds: limit.as_secs() }),
        Ok(Err(error)) => Err(ConfigError::Read(error)),
        Ok(Ok(_)) if line.trim().is_empty() => Err(ConfigError::Empty),
        Ok(Ok(_)) => Ok(decode_jit(&line)?),
    }
}
