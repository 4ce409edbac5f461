//! Which organisation, repository or enterprise a request names, and whether the
//! caller may see it.

use std::collections::HashMap;

use axum::http::Method;

use super::auth::ENTERPRISE_RUNNERS;
use super::errors::ApiFailure;
use super::gate::Asked;
use super::ids::{RepoKey, Scope};
use super::options::Level;
use super::state::{Repo, World};

/// Named parts of a route's path.
pub(crate) type Parts = HashMap<String, String>;

/// A numbered part; what is no number names nothing.
pub(crate) fn number(parts: &Parts, name: &str) -> Result<u64, ApiFailure> {
    parts.get(name).and_then(|text| text.parse().ok()).ok_or_else(ApiFailure::not_found)
}

pub(crate) fn part<'a>(parts: &'a Parts, name: &str) -> &'a str {
    parts.get(name).map_or("", String::as_str)
}

/// Reading or changing, by method.
pub(crate) fn level(method: &Method) -> Level {
    if matches!(*method, Method::GET | Method::HEAD) { Level::Read } else { Level::Write }
}

impl World {
    /// The repository a path names, when the caller sees it.
    pub(crate) fn repo_at(&self, asked: &Asked, parts: &Parts) -> Result<&Repo, ApiFailure> {
        let key = RepoKey::new(part(parts, "owner"), part(parts, "repo"));
        let repo = self.repos.get(&key).ok_or_else(ApiFailure::not_found)?;
        let visible = !repo.private || (asked.grant.sees(&key) && asked.grant.within(key.owner()));
        if visible { Ok(repo) } else { Err(ApiFailure::not_found()) }
    }

    /// The repository a path names, for a call that needs one of its permissions.
    pub(crate) fn repo_for(
        &self,
        asked: &Asked,
        parts: &Parts,
        permission: &str,
        level: Level,
    ) -> Result<&Repo, ApiFailure> {
        let repo = self.repo_at(asked, parts)?;
        asked.grant.demand(permission, level)?;
        Ok(repo)
    }

    /// Where a runner call acts, when the caller may do that there.
    pub(crate) fn runner_scope(
        &self,
        asked: &Asked,
        parts: &Parts,
        level: Level,
    ) -> Result<Scope, ApiFailure> {
        if let Some(slug) = parts.get("enterprise") {
            let slug = slug.to_ascii_lowercase();
            if self.enterprise.as_ref() != Some(&slug) {
                return Err(ApiFailure::not_found());
            }
            asked.grant.demand(ENTERPRISE_RUNNERS, level)?;
            return Ok(Scope::Enterprise(slug));
        }
        if let Some(login) = parts.get("org") {
            let org = self.org(login).ok_or_else(ApiFailure::not_found)?;
            if !asked.grant.within(&org.login) {
                return Err(ApiFailure::not_found());
            }
            asked.grant.demand("organization_self_hosted_runners", level)?;
            return Ok(Scope::Org(org.login.to_ascii_lowercase()));
        }
        let repo = self.repo_for(asked, parts, "administration", level)?;
        Ok(Scope::Repo(RepoKey::new(&repo.owner, &repo.name)))
    }
}
