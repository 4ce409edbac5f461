//! Who is asking and what they may do: tokens, App JWTs, permissions.

use std::collections::{BTreeSet, HashMap};

use axum::http::StatusCode;
use octocrab::jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use secrecy::ExposeSecret;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::errors::ApiFailure;
use super::ids::RepoKey;
use super::options::{AppSpec, Level, Permissions, SimOptions, TokenKind, TokenSpec};

/// Installation tokens live one hour.
pub(crate) const INSTALLATION_TOKEN_MS: u64 = 3_600_000;
/// A JWT may be valid for at most ten minutes, GitHub says.
const JWT_LIFE_MAX_S: u64 = 600;
/// Clocks may differ by this much.
const JWT_SKEW_S: u64 = 60;
/// Tokens remembered; a client mints one an hour, so this is years of them.
const TOKENS_MAX: usize = 10_000;

/// A token's fingerprint: the model does not keep tokens themselves.
type TokenDigest = [u8; 32];

/// What kind of caller a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Personal(TokenKind),
    Installation(u64),
    /// The App itself, by JWT.
    App,
}

/// What a request may do.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) caller: Caller,
    /// Absent: everything.
    pub(crate) permissions: Option<Permissions>,
    /// Private repositories it sees; absent: all.
    pub(crate) repos: Option<BTreeSet<RepoKey>>,
    /// The only organisation or user it reaches; absent: all.
    pub(crate) owner: Option<String>,
    /// The account whose limits it uses.
    pub(crate) account: String,
    pub(crate) expires_ms: Option<u64>,
    /// Tells two tokens of one account apart.
    pub(crate) fingerprint: u64,
}

impl Grant {
    pub(crate) fn sees(&self, key: &RepoKey) -> bool {
        self.repos.as_ref().is_none_or(|repos| repos.contains(key))
    }

    pub(crate) fn within(&self, owner: &str) -> bool {
        self.owner.as_ref().is_none_or(|only| only.eq_ignore_ascii_case(owner))
    }

    fn allows(&self, permission: &str, level: Level) -> bool {
        match &self.permissions {
            None => true,
            Some(permissions) => permissions.get(permission).is_some_and(|had| *had >= level),
        }
    }

    /// GitHub's refusal of a call that needs `permission`.
    pub(crate) fn demand(&self, permission: &str, level: Level) -> Result<(), ApiFailure> {
        let enterprise = permission == ENTERPRISE_RUNNERS;
        let fitting = !enterprise || self.caller == Caller::Personal(TokenKind::Classic);
        if fitting && self.allows(permission, level) {
            return Ok(());
        }
        let message = match self.caller {
            Caller::Personal(_) => "Resource not accessible by personal access token",
            Caller::Installation(_) | Caller::App => "Resource not accessible by integration",
        };
        Err(ApiFailure::new(StatusCode::FORBIDDEN, message))
    }
}

/// The permission for runners of an enterprise; only classic tokens have it.
pub(crate) const ENTERPRISE_RUNNERS: &str = "manage_runners:enterprise";

/// All tokens, and the App.
pub(crate) struct Accounts {
    tokens: HashMap<TokenDigest, Grant>,
    pub(crate) app: Option<AppSpec>,
}

#[derive(Deserialize)]
struct Claims {
    iat: u64,
    exp: u64,
    iss: serde_json::Value,
}

impl Accounts {
    pub(crate) fn new(options: &SimOptions) -> Self {
        let mut accounts = Self { tokens: HashMap::new(), app: options.app.clone() };
        let owner = options.default_owner();
        for spec in &options.tokens {
            accounts.add(spec, None, &owner);
        }
        accounts
    }

    /// Accepts a token from now on.
    pub(crate) fn add(&mut self, spec: &TokenSpec, expires_ms: Option<u64>, owner: &str) {
        let digest = digest(spec.token.expose_secret());
        let repos = spec.repos.as_ref().map(|names| keys(names, owner));
        let grant = Grant {
            caller: Caller::Personal(spec.kind),
            permissions: spec.permissions.clone(),
            repos,
            owner: None,
            account: format!("token {:016x}", fingerprint(&digest)),
            expires_ms,
            fingerprint: fingerprint(&digest),
        };
        self.keep(digest, grant);
    }

    /// Accepts a token of an installation until it expires.
    pub(crate) fn add_installation(&mut self, token: &str, grant: Grant) {
        let digest = digest(token);
        self.keep(digest, Grant { fingerprint: fingerprint(&digest), ..grant });
    }

    fn keep(&mut self, digest: TokenDigest, grant: Grant) {
        if self.tokens.len() >= TOKENS_MAX {
            self.tokens.retain(|_, old| old.expires_ms.is_none());
        }
        self.tokens.insert(digest, grant);
    }

    /// Makes one token, or every installation token, expire now.
    pub(crate) fn expire(&mut self, token: Option<&str>) -> usize {
        let before = self.tokens.len();
        match token {
            Some(token) => {
                self.tokens.remove(&digest(token));
            }
            None => self.tokens.retain(|_, g| !matches!(g.caller, Caller::Installation(_))),
        }
        before - self.tokens.len()
    }

    /// The grant behind an `Authorization` header.
    pub(crate) fn identify(&self, header: Option<&str>, now: u64) -> Result<Grant, ApiFailure> {
        let token = header.and_then(bearer).ok_or_else(bad_credentials)?;
        match self.tokens.get(&digest(token)) {
            Some(grant) if grant.expires_ms.is_none_or(|expires| now < expires) => {
                Ok(grant.clone())
            }
            Some(_) => Err(bad_credentials()),
            None => self.identify_app(token, now),
        }
    }

    fn identify_app(&self, token: &str, now: u64) -> Result<Grant, ApiFailure> {
        let app = self.app.as_ref().ok_or_else(bad_credentials)?;
        if token.matches('.').count() != 2 {
            return Err(bad_credentials());
        }
        check_jwt(app, token, now / 1_000)?;
        Ok(Grant {
            caller: Caller::App,
            permissions: Some(Permissions::new()),
            repos: Some(BTreeSet::new()),
            owner: None,
            account: format!("app {}", app.id),
            expires_ms: None,
            fingerprint: app.id,
        })
    }
}

fn check_jwt(app: &AppSpec, token: &str, now_s: u64) -> Result<(), ApiFailure> {
    let undecodable = || unauthorized("A JSON web token could not be decoded");
    let key =
        DecodingKey::from_rsa_pem(app.public_key_pem.as_bytes()).map_err(|_| undecodable())?;
    let mut rules = Validation::new(Algorithm::RS256);
    // The times are checked below against modelled time.
    rules.validate_exp = false;
    rules.required_spec_claims.clear();
    let claims = decode::<Claims>(token, &key, &rules).map_err(|_| undecodable())?.claims;
    let issuer = match &claims.iss {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if issuer != app.id.to_string() && issuer != app.client_id {
        return Err(ApiFailure::new(StatusCode::NOT_FOUND, "Integration not found"));
    }
    if claims.iat > now_s + JWT_SKEW_S {
        return Err(unauthorized(
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        ));
    }
    if claims.exp <= now_s {
        return Err(unauthorized(
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
        ));
    }
    if claims.exp > now_s + JWT_LIFE_MAX_S + JWT_SKEW_S
        || claims.exp.saturating_sub(claims.iat) > JWT_LIFE_MAX_S + JWT_SKEW_S
    {
        return Err(unauthorized("'Expiration time' claim ('exp') is too far in the future"));
    }
    Ok(())
}

/// The account an installation's limits belong to.
pub(crate) fn installation_account(id: u64) -> String {
    format!("installation {id}")
}

pub(crate) fn keys(names: &[String], owner: &str) -> BTreeSet<RepoKey> {
    names.iter().map(|name| RepoKey::parse(name, owner)).collect()
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
    known.then_some(token.trim()).filter(|token| !token.is_empty())
}

pub(crate) fn bad_credentials() -> ApiFailure {
    unauthorized("Bad credentials")
}

fn unauthorized(message: &str) -> ApiFailure {
    ApiFailure::new(StatusCode::UNAUTHORIZED, message)
}

fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token.as_bytes()).into()
}

fn fingerprint(digest: &TokenDigest) -> u64 {
    digest.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
