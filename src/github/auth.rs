//! Whose name our calls carry: a personal access token, or a GitHub App whose installation
//! tokens are minted, kept and renewed here. Both stand behind [`Auth::bearer`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use octocrab::auth::EncodingKey;
use octocrab::jsonwebtoken::{Algorithm, Header, encode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::budget::{CallClass, CredentialId};
use super::line::{ASK_AGAIN_AFTER, Bearer, Call, Line, refused, unreadable};
use super::route::{Account, INSTALLATION, INSTALLATION_TOKEN, Route};
use super::{GitHubError, GitHubSetupError};
use crate::fleet::time::Timestamp;

/// An installation token is renewed this long before it expires (it lives an hour), so
/// that no call under way meets its end, and a clock that is minutes off does no harm.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// A token is used at least this long, however soon it says it ends.
const TOKEN_KEPT_MIN: Duration = Duration::from_secs(60);
/// The App's own token begins a minute ago, for clocks that differ.
const JWT_BACKDATED_S: u64 = 60;
/// And ends in nine minutes; GitHub takes at most ten from its beginning.
const JWT_LIFE_S: u64 = 9 * 60;

/// What the operator gave us.
#[derive(Clone)]
pub enum Credentials {
    /// A personal access token, classic or fine-grained.
    Token(SecretString),
    /// A GitHub App.
    App {
        /// The App's numeric id or its client id.
        issuer: String,
        /// Its private key, RSA in PEM.
        private_key_pem: SecretString,
        /// Where it is installed; looked up per organisation or repository when absent.
        installation_id: Option<u64>,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token"),
            Self::App { issuer, installation_id, .. } => f
                .debug_struct("App")
                .field("issuer", issuer)
                .field("installation_id", installation_id)
                .finish_non_exhaustive(),
        }
    }
}

/// Permissions of an installation token as GitHub named them, e.g. `actions` → `read`.
pub(crate) type Permissions = BTreeMap<String, String>;

/// Yields the token for a call.
#[derive(Debug)]
pub(crate) enum Auth {
    Token(SecretString),
    App(App),
}

/// A GitHub App and its installations.
pub(crate) struct App {
    issuer: String,
    key: EncodingKey,
    installation_id: Option<u64>,
    /// One per login the App is installed at; as many as the configuration names.
    installations: Mutex<BTreeMap<String, Arc<Installation>>>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// One installation. Its lock is held while a token is minted: whoever needs one at the
/// same time waits for that one instead of minting another.
#[derive(Default)]
struct Installation(tokio::sync::Mutex<InstallationState>);

#[derive(Default)]
struct InstallationState {
    id: Option<u64>,
    token: Option<InstallationToken>,
    /// The last failure, told to everybody who asks soon after it.
    failure: Option<(Timestamp, Failure)>,
}

struct InstallationToken {
    token: SecretString,
    renew_at: Timestamp,
    permissions: Permissions,
}

#[derive(Clone)]
enum Failure {
    Refused { route: &'static str, status: u16, message: String },
    Other { route: &'static str, text: String },
}

impl Auth {
    pub(crate) fn new(credentials: Credentials) -> Result<Self, GitHubSetupError> {
        match credentials {
            Credentials::Token(token) => Ok(Self::Token(token)),
            Credentials::App { issuer, private_key_pem, installation_id } => {
                let key = EncodingKey::from_rsa_pem(private_key_pem.expose_secret().as_bytes())
                    .map_err(|_| GitHubSetupError::PrivateKey)?;
                let installations = Mutex::default();
                Ok(Self::App(App { issuer, key, installation_id, installations }))
            }
        }
    }

    /// The token for calls to the account. May mint one, which is a call of its own.
    pub(crate) async fn bearer(
        &self,
        line: &Line,
        account: &Account,
        route: Route,
    ) -> Result<Bearer, GitHubError> {
        match self {
            Self::Token(token) => {
                Ok(Bearer { token: token.clone(), credential: CredentialId::Token })
            }
            Self::App(app) if *account == Account::Anyone => app.own_bearer(line.now(), route),
            Self::App(app) => app.installation_bearer(line, account, route).await,
        }
    }

    /// Gives up a token that GitHub no longer takes. `true` when another one can be had.
    pub(crate) async fn renounce(&self, account: &Account, bearer: &Bearer) -> bool {
        let Self::App(app) = self else { return false };
        let Some(installation) = app.installation(account) else { return false };
        let mut state = installation.0.lock().await;
        // Somebody else may have renewed it since: then theirs is the next to try.
        let ours =
            |kept: &InstallationToken| kept.token.expose_secret() == bearer.token.expose_secret();
        if state.token.as_ref().is_some_and(ours) {
            state.token = None;
        }
        true
    }

    /// What the account's installation token may do; `None` for personal tokens, which
    /// do not tell, and before the first call.
    pub(crate) async fn permissions(&self, account: &Account) -> Option<Permissions> {
        let Self::App(app) = self else { return None };
        let state = app.installation(account)?;
        let state = state.0.lock().await;
        state.token.as_ref().map(|token| token.permissions.clone())
    }
}

impl App {
    fn installation(&self, account: &Account) -> Option<Arc<Installation>> {
        let login = match self.installation_id {
            Some(_) => String::new(),
            None => account.login()?,
        };
        let mut all = self.installations.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(all.entry(login).or_default()))
    }

    fn own_bearer(&self, now: Timestamp, route: Route) -> Result<Bearer, GitHubError> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iat: u64,
            exp: u64,
            iss: &'a str,
        }
        let now_s = now.0 / 1000;
        let claims = Claims {
            iat: now_s.saturating_sub(JWT_BACKDATED_S),
            exp: now_s + JWT_LIFE_S,
            iss: &self.issuer,
        };
        let token =
            encode(&Header::new(Algorithm::RS256), &claims, &self.key).map_err(|source| {
                GitHubError::Unreachable { route: route.name, source: source.into() }
            })?;
        Ok(Bearer { token: token.into(), credential: CredentialId::App })
    }

    async fn installation_bearer(
        &self,
        line: &Line,
        account: &Account,
        route: Route,
    ) -> Result<Bearer, GitHubError> {
        if matches!(account, Account::Enterprise(_)) {
            let message = "a GitHub App cannot manage the runners of an enterprise";
            return Err(GitHubError::Refused {
                route: route.name,
                status: 403,
                message: message.to_owned(),
            });
        }
        let installation = self.installation(account).ok_or_else(|| GitHubError::Refused {
            route: route.name,
            status: 404,
            message: "not a repository as owner/name".to_owned(),
        })?;
        let mut state = installation.0.lock().await;
        let now = line.now();
        if let (Some(id), Some(token)) = (state.id, &state.token)
            && now < token.renew_at
        {
            return Ok(token.bearer(id));
        }
        if let Some((at, failure)) = &state.failure
            && now.since(*at) < ASK_AGAIN_AFTER
        {
            return Err(failure.clone().into());
        }
        let renewed = self.renew(line, account, &mut state).await;
        state.failure = match &renewed {
            Ok(_) => None,
            Err(error) => Failure::worth_telling(error).map(|failure| (line.now(), failure)),
        };
        renewed
    }

    async fn renew(
        &self,
        line: &Line,
        account: &Account,
        state: &mut InstallationState,
    ) -> Result<Bearer, GitHubError> {
        let id = match state.id.or(self.installation_id) {
            Some(id) => id,
            None => self.find_installation(line, account).await?,
        };
        // Kept only once it yields a token: an App that is installed anew has another id.
        state.id = None;
        let token = self.mint(line, id).await?;
        state.id = Some(id);
        let bearer = token.bearer(id);
        state.token = Some(token);
        Ok(bearer)
    }

    async fn find_installation(&self, line: &Line, account: &Account) -> Result<u64, GitHubError> {
        #[derive(Deserialize)]
        struct Found {
            id: u64,
        }
        let path = format!("{}/installation", account.prefix());
        // A token is at stake, but finding its installation only reads.
        let call = Call::get(INSTALLATION, CallClass::Registrations, path);
        let bearer = self.own_bearer(line.now(), INSTALLATION)?;
        let answer = line.send(&call, &bearer, None).await?;
        if answer.status != 200 {
            return Err(refused(INSTALLATION, &answer));
        }
        let found: Found = serde_json::from_slice(&answer.body)
            .map_err(|source| unreadable(INSTALLATION, source))?;
        Ok(found.id)
    }

    async fn mint(&self, line: &Line, id: u64) -> Result<InstallationToken, GitHubError> {
        #[derive(Deserialize)]
        struct Minted {
            token: String,
            expires_at: chrono::DateTime<chrono::Utc>,
            #[serde(default)]
            permissions: Option<Permissions>,
        }
        let call = Call {
            route: INSTALLATION_TOKEN,
            class: CallClass::Token,
            method: Method::POST,
            path: format!("/app/installations/{id}/access_tokens"),
            body: None,
        };
        let bearer = self.own_bearer(line.now(), INSTALLATION_TOKEN)?;
        let answer = line.send(&call, &bearer, None).await?;
        if !(200..300).contains(&answer.status) {
            return Err(refused(INSTALLATION_TOKEN, &answer));
        }
        // The parser's words could quote the body, and the body holds the token.
        let minted: Minted = serde_json::from_slice(&answer.body)
            .map_err(|_| unreadable(INSTALLATION_TOKEN, "not an installation token"))?;
        Ok(InstallationToken {
            token: minted.token.into(),
            renew_at: renewal(line.now(), Timestamp::from_utc(minted.expires_at)),
            permissions: minted.permissions.unwrap_or_default(),
        })
    }
}

/// When to renew a token: some minutes before its end, never in a hurry. A clock that
/// is hours off must not mint one per call; a 401 tells when it is really over.
fn renewal(now: Timestamp, expires_at: Timestamp) -> Timestamp {
    let life = expires_at.since(now);
    now + life.saturating_sub(RENEW_BEFORE.min(life / 2)).max(TOKEN_KEPT_MIN)
}

impl InstallationToken {
    fn bearer(&self, id: u64) -> Bearer {
        Bearer { token: self.token.clone(), credential: CredentialId::Installation(id) }
    }
}

impl Failure {
    /// What those who ask next shall be told; `None` when asking costs nothing.
    fn worth_telling(error: &GitHubError) -> Option<Self> {
        match error {
            GitHubError::Refused { route, status, message } => {
                Some(Self::Refused { route, status: *status, message: message.clone() })
            }
            GitHubError::Timeout { route, .. }
            | GitHubError::Unreachable { route, .. }
            | GitHubError::Answer { route, .. } => {
                Some(Self::Other { route, text: error.to_string() })
            }
            GitHubError::Limited { .. }
            | GitHubError::Shed { .. }
            | GitHubError::NameTaken { .. } => None,
        }
    }
}

impl From<Failure> for GitHubError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused { route, status, message } => Self::Refused { route, status, message },
            Failure::Other { route, text } => Self::Unreachable { route, source: text.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_its_end_but_never_at_every_call() {
        let now = Timestamp(1_000_000_000);
        for (life_s, kept_s) in [(3600, 3300), (400, 200), (100, 60), (0, 60)] {
            let expires_at = now + Duration::from_secs(life_s);
            assert_eq!(renewal(now, expires_at).since(now).as_secs(), kept_s, "{life_s} s");
        }
    }
}
