//! The JIT configuration: what a mint hands out and a listener reads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::runners::Runner;
use crate::sim::random::Random;

/// What a listener needs of its JIT configuration.
#[derive(Clone)]
pub struct JitConfig {
    /// Number of the registration.
    pub agent_id: u64,
    /// Name of the registration.
    pub agent_name: String,
    /// Base URL of the runner service.
    pub server_url: String,
    /// Proves that the listener is that runner.
    pub secret: secrecy::SecretString,
}

impl std::fmt::Debug for JitConfig {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "JitConfig {{ agent_id: {}, .. }}", self.agent_id)
    }
}

/// Why a JIT configuration could not be read. Never names its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JitError {
    /// The outer text is not base64.
    #[error("the JIT configuration is not base64")]
    Encoding,
    /// The decoded text is not the expected JSON.
    #[error("the JIT configuration is not a JSON object of files")]
    Shape,
    /// A file is missing or not what it should be.
    #[error("the JIT configuration lacks a usable {0}")]
    File(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RunnerFile {
    agent_id: u64,
    agent_name: String,
    server_url_v2: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CredentialsFile {
    data: CredentialsData,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CredentialsData {
    #[serde(deserialize_with = "super::options::secret")]
    secret: secrecy::SecretString,
}

/// The blob for a registration, reached at `server_url`. About as long as the real one.
pub(crate) fn encode(
    runner: &Runner,
    work_folder: &str,
    server_url: &str,
    random: &mut Random,
) -> String {
    let file = json!({
        "AgentId": runner.id,
        "AgentName": runner.name,
        "PoolId": runner.group_id,
        "PoolName": "Default",
        "DisableUpdate": true,
        "Ephemeral": true,
        "ServerUrl": format!("{server_url}/"),
        "WorkFolder": work_folder,
        "UseV2Flow": true,
        "ServerUrlV2": server_url,
    });
    let credentials = json!({
        "Scheme": "OAuth",
        "Data": {
            "ClientId": random.uuid(),
            "AuthorizationUrl": format!("{server_url}/_runner/token"),
            "RequireFipsCryptography": "True",
            "Secret": runner.secret,
        },
    });
    let mut key = Map::new();
    key.insert("exponent".into(), "AQAB".into());
    for part in ["modulus", "d"] {
        key.insert(part.into(), STANDARD.encode(random.bytes(256)).into());
    }
    for part in ["dp", "dq", "inverseQ", "p", "q"] {
        key.insert(part.into(), STANDARD.encode(random.bytes(128)).into());
    }
    let files = json!({
        ".runner": STANDARD.encode(file.to_string()),
        ".credentials": STANDARD.encode(credentials.to_string()),
        ".credentials_rsaparams": STANDARD.encode(Value::Object(key).to_string()),
    });
    STANDARD.encode(files.to_string())
}

/// Reads a blob as the listener does.
pub fn decode(blob: &str) -> Result<JitConfig, JitError> {
    let files = STANDARD.decode(blob.trim()).map_err(|_| JitError::Encoding)?;
    let files: Value = serde_json::from_slice(&files).map_err(|_| JitError::Shape)?;
    let runner: RunnerFile = file(&files, ".runner")?;
    let credentials: CredentialsFile = file(&files, ".credentials")?;
    Ok(JitConfig {
        agent_id: runner.agent_id,
        agent_name: runner.agent_name,
        server_url: runner.server_url_v2.trim_end_matches('/').to_owned(),
        secret: credentials.data.secret,
    })
}

fn file<T: serde::de::DeserializeOwned>(files: &Value, name: &'static str) -> Result<T, JitError> {
    let text = files.get(name).and_then(Value::as_str).ok_or(JitError::File(name))?;
    let bytes = STANDARD.decode(text).map_err(|_| JitError::File(name))?;
    serde_json::from_slice(&bytes).map_err(|_| JitError::File(name))
}
