//! Who may ask: the `Host` must be ours (a name that was rebound to us is not), the
//! `Origin` absent or the same (another web page's script is refused), the token right.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tracing::{Instrument, info_span};

use super::ApiState;
use super::extract::{BODY_BYTES_MAX, too_large};
use super::peer;
use super::problem::{Code, Problem, quoted};
use crate::telemetry::trace;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Asked without a token: probes say nothing secret and must work for whoever restarts
/// us; the documentation is the same in every installation.
const OPEN_PATHS: &[&str] = &[
    "/health",
    "/api/v1/health",
    "/livez",
    "/readyz",
    "/openapi.json",
    "/api/v1/openapi.json",
    "/docs",
];

/// Values `Host` may have, without the port: ports are mapped on the way here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllowedHosts {
    names: BTreeSet<String>,
    /// Listening on every address: any of them may be named. An address cannot be
    /// rebound, only a name can.
    any_address: bool,
    address: IpAddr,
}

impl AllowedHosts {
    /// `localhost`, loopback addresses, the listen address and `names`.
    #[must_use]
    pub fn new(listen: SocketAddr, names: &[String]) -> Self {
        let names = names.iter().map(|name| normal(name)).chain(["localhost".to_owned()]);
        Self {
            names: names.collect(),
            any_address: listen.ip().is_unspecified(),
            address: listen.ip(),
        }
    }

    /// Whether a request for this host is for us.
    #[must_use]
    pub fn allow(&self, host: &str) -> bool {
        let host = normal(host);
        match host.parse::<IpAddr>() {
            Ok(address) => {
                self.any_address
                    || address.is_loopback()
                    || address == self.address
                    || self.names.contains(&host)
            }
            Err(_) => self.names.contains(&host),
        }
    }
}

/// Lower case, without brackets and without the root's dot.
fn normal(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Refuses what may not ask, before any handler or extractor runs.
pub async fn guard(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if peer::claims(request.headers()) {
        return of_peer(&state, request, next).await;
    }
    match check(&state, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// A signature proves more than a token, and no web page can make one: whatever name the
/// other replica knows us by is right.
async fn of_peer(state: &ApiState, request: Request, next: Next) -> Response {
    let request = match peer::admit(state, request).await {
        Ok(request) => request,
        Err(problem) => return problem.into_response(),
    };
    let span = info_span!("http.forwarded");
    let trace = request.headers().get(&peer::TRACEPARENT).and_then(|value| value.to_str().ok());
    let span = match trace {
        Some(traceparent) => trace::continued(traceparent, span),
        None => span,
    };
    next.run(request).instrument(span).await
}

fn check(state: &ApiState, request: &Request) -> Result<(), Problem> {
    let authority = authority(request)?;
    if !state.hosts_allowed.allow(authority.host()) {
        let detail = format!(
            "this server is not {}; use localhost or its address, or list the name as allowed",
            quoted(authority.host())
        );
        return Err(Problem::new(Code::HostRefused, detail));
    }
    check_origin(request.method(), request.headers(), &authority)?;
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let path = request.uri().path();
    let open = OPEN_PATHS.contains(&path) || path.starts_with("/docs/");
    match &state.settings.api_token {
        Some(token) if !open => check_token(request.headers(), token),
        Some(_) | None => Ok(()),
    }
}

/// The one host the request is for: that of the request line, else of the header.
fn authority(request: &Request) -> Result<Authority, Problem> {
    let bad = |detail: &str| Problem::new(Code::InvalidHeader, detail);
    let mut headers = request.headers().get_all(header::HOST).iter();
    let (first, more) = (headers.next(), headers.next());
    if more.is_some() {
        return Err(bad("more than one Host header"));
    }
    let header = match first {
        Some(value) => {
            let text = value.to_str().map_err(|_| bad("the Host header is not text"))?;
            Some(text.parse::<Authority>().map_err(|_| bad("the Host header is no host name"))?)
        }
        None => None,
    };
    let authority = request.uri().authority().cloned().or(header);
    let authority = authority.ok_or_else(|| bad("the Host header is missing"))?;
    if authority.as_str().contains('@') {
        return Err(bad("the Host header carries a user name"));
    }
    Ok(authority)
}

fn check_origin(method: &Method, headers: &HeaderMap, own: &Authority) -> Result<(), Problem> {
    let refused = |what: String| {
        let detail = format!("{what}; this API is not for scripts of other web pages");
        Err(Problem::new(Code::OriginRefused, detail))
    };
    for origin in headers.get_all(header::ORIGIN) {
        let text = origin.to_str().unwrap_or_default();
        if !is_same_origin(text, own) {
            return refused(format!("the request comes from the page {}", quoted(text)));
        }
    }
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let site = headers.get(&SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    if !reads && site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return refused("the browser says that another site sent this".to_owned());
    }
    Ok(())
}

/// Whether a page of this origin was served by us. The scheme may differ: a proxy in
/// front of us may speak TLS.
fn is_same_origin(origin: &str, own: &Authority) -> bool {
    let (authority, default_port) = match origin.split_once("://") {
        Some(("http", rest)) => (rest, 80),
        Some(("https", rest)) => (rest, 443),
        _ => return false,
    };
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    normal(authority.host()) == normal(own.host())
        && authority.port_u16().unwrap_or(default_port) == own.port_u16().unwrap_or(default_port)
}

fn check_token(headers: &HeaderMap, expected: &SecretString) -> Result<(), Problem> {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().split_first_chunk::<7>())
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
        .map(|(_, token)| token);
    match given {
        Some(token) if is_token(token, expected) => Ok(()),
        Some(_) => Err(Problem::new(Code::Unauthorized, "the token is not the one configured")),
        None => {
            let detail = "send the header Authorization: Bearer <API_TOKEN>";
            Err(Problem::new(Code::Unauthorized, detail))
        }
    }
}

/// Compares digests, in constant time: neither content nor length leaks.
fn is_token(given: &[u8], expected: &SecretString) -> bool {
    let given = Sha256::digest(given);
    let expected = Sha256::digest(expected.expose_secret().as_bytes());
    given.ct_eq(&expected).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_allowed() {
        let local = AllowedHosts::new("127.0.0.1:8080".parse().unwrap(), &["Ops.Example.".into()]);
        for ours in ["localhost", "LOCALHOST.", "127.0.0.1", "127.0.0.2", "[::1]", "ops.example"] {
            assert!(local.allow(ours), "{ours}");
        }
        for other in ["evil.example", "localhost.evil.example", "10.0.0.1", "", "127.0.0.1.nip.io"]
        {
            assert!(!local.allow(other), "{other}");
        }
        let open = AllowedHosts::new("0.0.0.0:8080".parse().unwrap(), &[]);
        assert!(open.allow("10.0.0.1") && open.allow("[fe80::1]") && open.allow("localhost"));
        assert!(!open.allow("evil.example"));
        let one = AllowedHosts::new("10.0.0.7:80".parse().unwrap(), &[]);
        assert!(one.allow("10.0.0.7") && !one.allow("10.0.0.8"));
    }

    #[test]
    fn a_page_is_ours_only_with_our_host_and_port() {
        let own: Authority = "localhost:8080".parse().unwrap();
        assert!(is_same_origin("http://localhost:8080", &own));
        assert!(is_same_origin("https://LOCALHOST:8080", &own));
        for other in [
            "null",
            "",
            "http://localhost",
            "http://localhost:8081",
            "http://evil.example",
            "file://localhost:8080",
            "http://localhost:8080.evil.example",
        ] {
            assert!(!is_same_origin(other, &own), "{other}");
        }
        let proxied: Authority = "ops.example".parse().unwrap();
        assert!(is_same_origin("https://ops.example", &proxied));
        assert!(is_same_origin("https://ops.example:443", &proxied));
    }

    #[test]
    fn a_token_is_compared_whole() {
        let token = SecretString::from("s3cret");
        assert!(is_token(b"s3cret", &token));
        for wrong in [&b""[..], b"s3cre", b"s3cret ", b"S3cret", b"s3cret\0"] {
            assert!(!is_token(wrong, &token));
        }
    }
}
