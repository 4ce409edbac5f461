//! The wire: one request to GitHub through `octocrab`, bounded in time and size.
//!
//! `octocrab` brings TLS, redirects and the base address. Authorization is ours
//! ([`super::auth`]): octocrab would leave it off absolute addresses of any other host than
//! `api.github.com`, renews tokens without single flight, and retries are not wanted.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::header::{ACCEPT, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use octocrab::service::middleware::base_uri::BaseUriLayer;
use octocrab::service::middleware::extra_headers::ExtraHeadersLayer;
use octocrab::service::middleware::retry::RetryConfig;
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use tower::ServiceExt;

use super::GitHubSetupError;

/// The longest a call may take, from sending to the last byte. GitHub gives up after 10 s.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer read: 100 jobs with all their steps are below 2 MiB.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The version of the REST API this client was written for.
const API_VERSION: (HeaderName, &str) =
    (HeaderName::from_static("x-github-api-version"), "2022-11-28");
const MEDIA_TYPE: &str = "application/vnd.github+json";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    Timeout,
    /// No connection, or it broke.
    Broken(BoxError),
    /// It was larger than we read.
    TooLarge(BoxError),
}

/// The way to GitHub.
#[derive(Clone)]
pub(crate) struct Wire {
    crab: Octocrab,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Wire {
    /// Over the network, to the base address of a REST API. Must be called inside a
    /// tokio runtime: octocrab starts its buffer's worker.
    pub(crate) fn over_network(api_url: &str) -> Result<Self, GitHubSetupError> {
        // The first installation wins; a second one by another edge is the same provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (version, value) = API_VERSION;
        let crab = OctocrabBuilder::new()
            .base_uri(base(api_url)?)
            .and_then(|builder| {
                builder
                    .add_retry_config(RetryConfig::None)
                    .set_connect_timeout(Some(CONNECT_TIMEOUT))
                    .set_read_timeout(Some(CALL_TIMEOUT))
                    .set_write_timeout(Some(CALL_TIMEOUT))
                    .add_header(version, value.to_owned())
                    .build()
            })
            .map_err(|source| GitHubSetupError::Client { source: source.into() })?;
        Ok(Self { crab })
    }

    /// In this process, to a router that plays GitHub: no socket, so that a test may
    /// pause the clock.
    pub(crate) fn over_router(api_url: &str, router: Router) -> Result<Self, GitHubSetupError> {
        let (version, value) = API_VERSION;
        let headers = vec![
            (version, HeaderValue::from_static(value)),
            (USER_AGENT, HeaderValue::from_static("octocrab")),
        ];
        let service = tower::service_fn(move |request: Request<OctoBody>| {
            answer_whole(router.clone(), request)
        });
        let built = OctocrabBuilder::new_empty()
            .with_service(service)
            .with_layer(&ExtraHeadersLayer::new(Arc::new(headers)))
            .with_layer(&BaseUriLayer::new(base(api_url)?))
            .with_auth(AuthState::None)
            .build();
        let crab = match built {
            Ok(crab) => crab,
            Err(never) => match never {},
        };
        Ok(Self { crab })
    }

    /// Sends one request and reads its answer. Dropping the future abandons the call.
    pub(crate) async fn send(&self, mut request: Request<OctoBody>) -> Result<Answer, NoAnswer> {
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(MEDIA_TYPE));
        let call = async {
            let response = self
                .crab
                .execute(request)
                .await
                .map_err(|source| NoAnswer::Broken(source.into()))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(unreadable)?;
            Ok(Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: body.to_bytes(),
            })
        };
        tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(NoAnswer::Timeout))
    }
}

fn unreadable(source: BoxError) -> NoAnswer {
    if source.is::<LengthLimitError>() {
        NoAnswer::TooLarge(source)
    } else {
        NoAnswer::Broken(source)
    }
}

fn base(api_url: &str) -> Result<Uri, GitHubSetupError> {
    let bad = || GitHubSetupError::ApiUrl { url: api_url.to_owned() };
    let uri: Uri = api_url.trim_end_matches('/').parse().map_err(|_| bad())?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    if web && uri.authority().is_some() && uri.query().is_none() { Ok(uri) } else { Err(bad()) }
}

/// Answers with the whole body at once: octocrab wants one it may share between threads.
async fn answer_whole(
    router: Router,
    request: Request<OctoBody>,
) -> Result<Response<Full<Bytes>>, axum::Error> {
    let response = router.oneshot(request).await.unwrap_or_else(|never: Infallible| match never {});
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response::from_parts(parts, Full::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_web_address_is_a_base() {
        for good in ["https://api.github.com", "http://127.0.0.1:1/api/v3/"] {
            assert!(base(good).is_ok(), "{good}");
        }
        for bad in ["", "api.github.com", "ftp://x", "https://", "https://x/?a=b", "/api/v3"] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }
}
