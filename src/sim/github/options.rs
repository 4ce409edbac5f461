//! How a model is set up before it starts.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};

use super::settings::Settings;

/// How much a token may do with one permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// GET calls.
    Read,
    /// Every call.
    Write,
}

/// Permissions by GitHub's names, `administration` or `organization_self_hosted_runners`.
pub type Permissions = BTreeMap<String, Level>;

/// The kind of a token, which decides the wording of refusals and the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// A classic personal token.
    Classic,
    /// A fine-grained personal token: never for an enterprise.
    FineGrained,
}

/// A token the model accepts.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    /// The token itself.
    pub token: SecretString,
    /// Its kind.
    pub kind: TokenKind,
    /// What it may do; absent: everything.
    pub permissions: Option<Permissions>,
    /// Private repositories it sees, as `owner/name`; absent: all.
    pub repos: Option<Vec<String>>,
}

impl TokenSpec {
    /// A classic token that may do everything.
    #[must_use]
    pub fn all_powerful(token: &str) -> Self {
        Self {
            token: SecretString::from(token),
            kind: TokenKind::Classic,
            permissions: None,
            repos: None,
        }
    }
}

/// A GitHub App with its installations.
#[derive(Clone, Debug)]
pub struct AppSpec {
    /// The numeric app id.
    pub id: u64,
    /// The client id, also accepted as issuer.
    pub client_id: String,
    /// The public half of the app's RSA key, PEM.
    pub public_key_pem: String,
    /// Where it is installed.
    pub installations: Vec<InstallationSpec>,
}

/// One installation of the App.
#[derive(Clone, Debug)]
pub struct InstallationSpec {
    /// Its number.
    pub id: u64,
    /// The organisation (or repository owner) it is installed on.
    pub account: String,
    /// What it may do.
    pub permissions: Permissions,
    /// Repositories it sees, as `owner/name`; absent: all of the account.
    pub repos: Option<Vec<String>>,
}

impl InstallationSpec {
    /// An installation with what a runner fleet needs.
    #[must_use]
    pub fn for_runners(id: u64, account: &str) -> Self {
        let permissions = [
            ("actions", Level::Read),
            ("administration", Level::Write),
            ("metadata", Level::Read),
            ("organization_self_hosted_runners", Level::Write),
        ];
        let permissions = permissions.map(|(name, level)| (name.to_owned(), level));
        Self {
            id,
            account: account.to_owned(),
            permissions: permissions.into_iter().collect(),
            repos: None,
        }
    }
}

/// Everything a model is made from.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// Decides every random choice of the model.
    pub seed: u64,
    /// Organisations; the first is the default owner.
    pub orgs: Vec<String>,
    /// The enterprise above all organisations.
    pub enterprise: Option<String>,
    /// Private repositories `repo-1`, `repo-2` … of the first organisation.
    pub repos: usize,
    /// Tokens accepted.
    pub tokens: Vec<TokenSpec>,
    /// The App, if there is one.
    pub app: Option<AppSpec>,
    /// Initial settings.
    pub settings: Settings,
    /// Calendar start in milliseconds since 1970; absent: the wall clock.
    pub start_epoch_ms: Option<u64>,
}

impl Default for SimOptions {
    /// Organisation `acme` with one repository, and the token `sim-token`.
    fn default() -> Self {
        Self {
            seed: 1,
            orgs: vec!["acme".to_owned()],
            enterprise: None,
            repos: 1,
            tokens: vec![TokenSpec::all_powerful("sim-token")],
            app: None,
            settings: Settings::default(),
            start_epoch_ms: None,
        }
    }
}

impl SimOptions {
    pub(crate) fn default_owner(&self) -> String {
        self.orgs.first().cloned().unwrap_or_else(|| "octo".to_owned())
    }
}

/// Reads a secret of a JSON body straight into its sealed form.
pub(crate) fn secret<'de, D: Deserializer<'de>>(input: D) -> Result<SecretString, D::Error> {
    String::deserialize(input).map(SecretString::from)
}

/// Like [`secret`], for one that may be absent.
pub(crate) fn optional_secret<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(input)?.map(SecretString::from))
}
