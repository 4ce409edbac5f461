//! Who we are at GitHub, and whom the runners serve.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::reader::Reader;
use super::value;
use crate::fleet::pool::Scope;

/// What the GitHub edge needs.
#[derive(Clone, Debug)]
pub struct GitHubConfig {
    pub credentials: Credentials,
    /// Without a trailing slash: routes begin with one.
    pub api_url: ApiUrl,
    /// How often the queue is read.
    pub poll_interval: Duration,
}

/// How we authenticate.
#[derive(Clone, Debug)]
pub enum Credentials {
    Token(SecretString),
    App(AppCredentials),
}

/// A GitHub App.
#[derive(Clone, Debug)]
pub struct AppCredentials {
    pub id: u64,
    /// PEM text.
    pub private_key: SecretString,
    /// `None`: looked up by the scope.
    pub installation_id: Option<u64>,
}

/// The root of the REST API, such as `https://api.github.com`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiUrl(String);

impl ApiUrl {
    /// The text, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is github.com, where the public rate limits hold.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.0 == "https://api.github.com"
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The edge's settings and the scope that the environment names.
pub(super) fn read(reader: &mut Reader<'_>) -> (Option<GitHubConfig>, Option<Scope>) {
    let token = reader.secret("GITHUB_TOKEN", token);
    let scope = scope(reader);
    let app = app(reader);
    let api_url = reader.get("GITHUB_API_URL", api_url);
    let poll_interval = reader.get("POLL_INTERVAL", value::seconds(1..=3600));
    let token_set = reader.is_set("GITHUB_TOKEN");
    let app_set = APP_VARIABLES.iter().any(|name| reader.is_set(name));
    match (token_set, app_set) {
        (true, true) => {
            let app = APP_VARIABLES.iter().find(|name| reader.is_set(name)).unwrap_or(&"");
            let text = format!("set either this or the GitHub App ({app}), not both");
            let subject = reader.spelled("GITHUB_TOKEN");
            reader.problem(subject, text);
        }
        (false, false) => reader.problem(
            "GITHUB_TOKEN",
            "missing (set it, or GITHUB_APP_ID and GITHUB_APP_PRIVATE_KEY_FILE)",
        ),
        (true, false) | (false, true) => {}
    }
    if matches!(scope, Some(Scope::Enterprise { .. })) {
        check_enterprise_credentials(reader, token.as_ref(), app_set);
    }
    let credentials = token.map(Credentials::Token).or(app.map(Credentials::App));
    let github = match (credentials, api_url, poll_interval) {
        (Some(credentials), Some(api_url), Some(poll_interval)) => {
            warn_of_plain_http(reader, &api_url);
            Some(GitHubConfig { credentials, api_url, poll_interval })
        }
        _ => None,
    };
    (github, scope)
}

/// Any of these names whom the pool `default` serves; the first that is set wins.
pub(super) const SCOPE_VARIABLES: [&str; 3] = ["GITHUB_ENTERPRISE", "GITHUB_ORG", "GITHUB_REPO"];

const APP_VARIABLES: [&str; 3] =
    ["GITHUB_APP_ID", "GITHUB_APP_PRIVATE_KEY", "GITHUB_APP_INSTALLATION_ID"];

fn app(reader: &mut Reader<'_>) -> Option<AppCredentials> {
    let id = reader.get("GITHUB_APP_ID", value::whole(1..=u64::MAX));
    let private_key = reader.secret("GITHUB_APP_PRIVATE_KEY", private_key);
    let installation_id = reader.get("GITHUB_APP_INSTALLATION_ID", value::whole(1..=u64::MAX));
    let [id_set, key_set, installation_set] = APP_VARIABLES.map(|name| reader.is_set(name));
    if !id_set && (key_set || installation_set) {
        reader.problem("GITHUB_APP_ID", "missing: a GitHub App needs its id and its private key");
    }
    if !key_set && (id_set || installation_set) {
        reader.problem(
            "GITHUB_APP_PRIVATE_KEY_FILE",
            "missing: a GitHub App needs its id and its private key",
        );
    }
    // In an environment variable the line breaks of a PEM text are often written as \n.
    let private_key = private_key?;
    let private_key = SecretString::from(private_key.expose_secret().replace("\\n", "\n"));
    Some(AppCredentials { id: id?, private_key, installation_id })
}

fn scope(reader: &mut Reader<'_>) -> Option<Scope> {
    let org = reader.get("GITHUB_ORG", value::login);
    let repo = reader.get("GITHUB_REPO", value::repository);
    let enterprise = reader.get("GITHUB_ENTERPRISE", value::login);
    let orgs = reader.get("GITHUB_ENTERPRISE_ORGS", value::logins);
    let set: Vec<&str> = SCOPE_VARIABLES.into_iter().filter(|name| reader.is_set(name)).collect();
    if let [winner, losers @ ..] = set.as_slice() {
        for loser in losers {
            let (winner, loser) = (reader.spelled(winner), reader.spelled(loser));
            reader.warn(format!("{loser} is ignored, because {winner} is set too"));
        }
    }
    match (reader.is_set("GITHUB_ENTERPRISE"), reader.is_set("GITHUB_ENTERPRISE_ORGS")) {
        (true, false) => reader.problem(
            "GITHUB_ENTERPRISE_ORGS",
            "missing: the organisations of the enterprise whose queues are read",
        ),
        (false, true) => {
            reader.warn("GITHUB_ENTERPRISE_ORGS is ignored without GITHUB_ENTERPRISE");
        }
        (true, true) | (false, false) => {}
    }
    match set.first() {
        Some(&"GITHUB_ENTERPRISE") => Some(Scope::Enterprise { slug: enterprise?, orgs: orgs? }),
        Some(&"GITHUB_ORG") => org.map(Scope::Org),
        _ => repo.map(Scope::Repo),
    }
}

/// GitHub lets neither Apps nor fine-grained tokens register runners for an enterprise.
fn check_enterprise_credentials(
    reader: &mut Reader<'_>,
    token: Option<&SecretString>,
    app_set: bool,
) {
    let fine_grained = token.is_some_and(|token| token.expose_secret().starts_with("github_pat_"));
    if app_set || fine_grained {
        let subject = reader.spelled("GITHUB_ENTERPRISE");
        reader.problem(
            subject,
            "needs a classic GITHUB_TOKEN with manage_runners:enterprise; GitHub accepts \
             neither Apps nor fine-grained tokens there",
        );
    }
}

fn token(text: &str) -> Result<(), String> {
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("expected a token without blanks or control characters".to_owned());
    }
    let lower = text.to_ascii_lowercase();
    if lower.contains("your") && lower.contains("token") {
        return Err("still holds the placeholder; put your token there".to_owned());
    }
    Ok(())
}

fn private_key(text: &str) -> Result<(), String> {
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        Ok(())
    } else {
        Err("expected a private key in PEM form (-----BEGIN RSA PRIVATE KEY-----)".to_owned())
    }
}

fn api_url(text: &str) -> Result<ApiUrl, String> {
    let url: Url = value::http_url(text)?;
    if matches!(url.host_str(), Some("github.com" | "www.github.com")) {
        return Err("expected the API's address, https://api.github.com".to_owned());
    }
    Ok(ApiUrl(url.as_str().trim_end_matches('/').to_owned()))
}

fn warn_of_plain_http(reader: &mut Reader<'_>, api_url: &ApiUrl) {
    let local = |url: &Url| match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback() || address.is_private(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if Url::parse(api_url.as_str()).is_ok_and(|url| url.scheme() == "http" && !local(&url)) {
        let name = reader.spelled("GITHUB_API_URL");
        reader.warn(format!("{name} is plain http: the credentials cross the network readable"));
    }
}
