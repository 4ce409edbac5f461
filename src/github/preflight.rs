//! The check at start: the token, each scope and each permission, by harmless GETs. What
//! is refused is named with the fix, what reading cannot show is said to be unknown.

use serde::Deserialize;

use super::auth::Auth;
use super::budget::CallClass;
use super::line::{Call, message};
use super::pages::Caller;
use super::route::{APP, Account, ORG, ORG_REPOS, REPO, RUNNERS, RUNS, Route, USER, repo_prefix};
use super::wire::Answer;
use super::{GitHubError, Preflight, PreflightCheck, Verdict};
use crate::fleet::id::RepoName;
use crate::fleet::pool::Scope;

/// Checks the token and every scope.
pub(crate) async fn check(caller: &Caller, scopes: &[Scope]) -> Preflight {
    let mut checker = Checker { caller, checks: Vec::new(), token: TokenKind::Unknown };
    if checker.token().await {
        for scope in scopes {
            checker.scope(scope).await;
        }
    }
    Preflight { checks: checker.checks }
}

struct Checker<'a> {
    caller: &'a Caller,
    checks: Vec<PreflightCheck>,
    token: TokenKind,
}

/// What the token told of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
enum TokenKind {
    /// Names its scopes in every answer.
    Classic(Vec<String>),
    FineGrained,
    /// Installation tokens name their permissions when they are minted.
    App,
    Unknown,
}

impl Checker<'_> {
    fn note(&mut self, what: impl Into<String>, verdict: Verdict) {
        self.checks.push(PreflightCheck { what: what.into(), verdict });
    }

    async fn get(
        &self,
        account: &Account,
        route: Route,
        path: String,
    ) -> Result<Answer, GitHubError> {
        self.caller.call(account, &Call::get(route, CallClass::Queue, path)).await
    }

    /// Whether it makes sense to go on.
    async fn token(&mut self) -> bool {
        let app = matches!(self.caller.auth, Auth::App(_));
        let (route, path, what) =
            if app { (APP, "/app", "github app") } else { (USER, "/user", "token") };
        let answer = self.get(&Account::Anyone, route, path.to_owned()).await;
        let fix = if app {
            "GitHub does not know the App: check GITHUB_APP_ID, that \
             GITHUB_APP_PRIVATE_KEY_FILE is one of its private keys, and this machine's clock"
        } else {
            "GitHub does not accept GITHUB_TOKEN: it may have expired or been revoked; \
             make a new one"
        };
        if let Ok(answer) = &answer {
            self.token = if app { TokenKind::App } else { token_kind(answer) };
        }
        let verdict = match answer {
            Ok(answer) if answer.status == 401 => Verdict::Refused { fix: fix.to_owned() },
            Ok(answer) if app && answer.status == 404 => Verdict::Refused { fix: fix.to_owned() },
            // Some tokens may not read who they are; the checks below tell more.
            Ok(answer) if answer.status < 500 => Verdict::Proven,
            other => unreachable(other),
        };
        let go_on = verdict == Verdict::Proven;
        self.note(what, verdict);
        go_on
    }

    async fn scope(&mut self, scope: &Scope) {
        let account = Account::of(scope);
        if !self.visible(scope, &account).await {
            return;
        }
        self.runners(scope, &account).await;
        match scope {
            Scope::Repo(repo) => self.actions_read(repo).await,
            Scope::Org(org) => self.actions_read_in(org).await,
            Scope::Enterprise { orgs, .. } => {
                for org in orgs {
                    let account = Account::Org(org.clone());
                    if self.visible(&Scope::Org(org.clone()), &account).await {
                        self.actions_read_in(org).await;
                    }
                }
            }
        }
    }

    async fn visible(&mut self, scope: &Scope, account: &Account) -> bool {
        let (route, fix) = match scope {
            Scope::Repo(repo) => (
                REPO,
                format!(
                    "the token does not see repository {repo}: check GITHUB_REPO, and give the \
                     token (or install the App on) that repository"
                ),
            ),
            Scope::Org(org) => (
                ORG,
                format!(
                    "the token does not see organization {org}: check its name, and give the \
                     token (or install the App on) that organization"
                ),
            ),
            // An enterprise can only be seen by what may manage its runners.
            Scope::Enterprise { .. } => return true,
        };
        let answer = self.get(account, route, account.prefix()).await;
        let verdict = verdict(answer, || fix);
        let visible = verdict == Verdict::Proven;
        self.note(scope.to_string(), verdict);
        visible
    }

    async fn runners(&mut self, scope: &Scope, account: &Account) {
        let path = format!("{}/actions/runners?per_page=1", account.prefix());
        let answer = self.get(account, RUNNERS, path).await;
        let read = verdict(answer, || format!("to list runners, {}", grant(scope)));
        let readable = read == Verdict::Proven;
        self.note(format!("runners read on {scope}"), read);
        if readable {
            let write = self.write(scope, account).await;
            self.note(format!("runners write on {scope}"), write);
        }
    }

    /// Whether runners may be registered and deleted, as far as can be told without doing it.
    async fn write(&self, scope: &Scope, account: &Account) -> Verdict {
        let refused = || Verdict::Refused {
            fix: format!("to register and delete runners, {}", grant(scope)),
        };
        match &self.token {
            TokenKind::Classic(scopes) => {
                let needed = classic_scopes(scope);
                let had = scopes.iter().any(|scope| needed.contains(&scope.as_str()));
                if had { Verdict::Proven } else { refused() }
            }
            TokenKind::App => match self.caller.auth.permissions(account).await {
                Some(permissions) => match permissions.get(app_permission(scope)) {
                    Some(level) if level == "write" || level == "admin" => Verdict::Proven,
                    Some(_) | None => refused(),
                },
                None => unknown(),
            },
            TokenKind::FineGrained | TokenKind::Unknown => unknown(),
        }
    }

    async fn actions_read(&mut self, repo: &RepoName) {
        let account = Account::Repo(repo.clone());
        let path = format!("{}/actions/runs?status=queued&per_page=1", repo_prefix(repo));
        let answer = self.get(&account, RUNS, path).await;
        let verdict = verdict(answer, || {
            format!(
                "to see queued jobs, grant the repository permission \"Actions: read\" on {repo} \
                 (fine-grained token or App), or the scope \"repo\" (classic token)"
            )
        });
        self.note(format!("actions read on repo {repo}"), verdict);
    }

    /// One repository stands for all: a private one where there is any, because everybody
    /// may read the runs of a public one.
    async fn actions_read_in(&mut self, org: &str) {
        #[derive(Deserialize)]
        struct Element {
            full_name: String,
            private: Option<bool>,
            archived: Option<bool>,
        }
        let account = Account::Org(org.to_owned());
        let path = format!("{}/repos?type=all&sort=pushed&per_page=100", account.prefix());
        let answer = match self.get(&account, ORG_REPOS, path).await {
            Ok(answer) if answer.status == 200 => answer,
            other => {
                let verdict = verdict(other, || {
                    format!(
                        "to list the repositories of {org}, grant \"Metadata: read\" on all of \
                         them (fine-grained token or App), or the scope \"repo\" (classic token)"
                    )
                });
                self.note(format!("repositories of org {org}"), verdict);
                return;
            }
        };
        let repos: Vec<Element> = serde_json::from_slice(&answer.body).unwrap_or_default();
        let mut open = repos.into_iter().filter(|repo| repo.archived != Some(true)).peekable();
        let newest = open.peek().map(|repo| repo.full_name.clone());
        let private = open.find(|repo| repo.private == Some(true)).map(|repo| repo.full_name);
        if let Some(repo) = private.or(newest) {
            self.actions_read(&RepoName(repo)).await;
        } else {
            let why = format!("{org} shows no repository whose jobs could be read");
            self.note(format!("actions read on org {org}"), Verdict::UnknownUntilUse { why });
        }
    }
}

fn verdict(answer: Result<Answer, GitHubError>, fix: impl FnOnce() -> String) -> Verdict {
    match answer {
        Ok(answer) if (200..400).contains(&answer.status) => Verdict::Proven,
        Ok(answer) if answer.status < 500 => {
            Verdict::Refused { fix: format!("{} (GitHub: {})", fix(), message(&answer)) }
        }
        Err(GitHubError::Refused { status, message, .. }) if status < 500 => {
            Verdict::Refused { fix: format!("{} (GitHub: {message})", fix()) }
        }
        other => unreachable(other),
    }
}

fn unreachable(answer: Result<Answer, GitHubError>) -> Verdict {
    let why = match answer {
        Ok(answer) => format!("GitHub answered with status {}", answer.status),
        Err(error) => with_sources(&error),
    };
    Verdict::Unreachable { why }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn unknown() -> Verdict {
    Verdict::UnknownUntilUse {
        why: "a token's right to write cannot be seen by reading; the first runner tells"
            .to_owned(),
    }
}

fn token_kind(answer: &Answer) -> TokenKind {
    match answer.headers.get("x-oauth-scopes").map(|scopes| scopes.to_str()) {
        Some(Ok(scopes)) => {
            TokenKind::Classic(scopes.split(',').map(|scope| scope.trim().to_owned()).collect())
        }
        Some(Err(_)) => TokenKind::Unknown,
        None => TokenKind::FineGrained,
    }
}

/// What to grant so that runners of the scope can be managed.
fn grant(scope: &Scope) -> String {
    match scope {
        Scope::Repo(repo) => format!(
            "grant the repository permission \"Administration: read and write\" on {repo} \
             (fine-grained token or App), or the scope \"repo\" (classic token of an \
             administrator of the repository)"
        ),
        Scope::Org(org) => format!(
            "grant the organization permission \"Self-hosted runners: read and write\" on {org} \
             (fine-grained token or App), or the scope \"admin:org\" (classic token of an owner)"
        ),
        Scope::Enterprise { slug, .. } => format!(
            "use a classic token of an owner of {slug} with the scope \
             \"manage_runners:enterprise\"; no other kind of token can do it"
        ),
    }
}

/// The scopes of a classic token of which one is enough.
fn classic_scopes(scope: &Scope) -> &'static [&'static str] {
    match scope {
        Scope::Repo(_) => &["repo"],
        Scope::Org(_) => &["admin:org"],
        Scope::Enterprise { .. } => &["manage_runners:enterprise", "admin:enterprise"],
    }
}

fn app_permission(scope: &Scope) -> &'static str {
    match scope {
        Scope::Repo(_) => "administration",
        Scope::Org(_) | Scope::Enterprise { .. } => "organization_self_hosted_runners",
    }
}
