//! The modelled world's HTTP client: plain HTTP to addresses on this machine.

/// A client builder that uses no proxy of the environment and trusts no certificate: it
/// works in an image that has none, where the usual builder refuses to.
pub fn plain_client() -> reqwest::ClientBuilder {
    let tls = rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions();
    let builder = reqwest::Client::builder().no_proxy();
    match tls {
        Ok(tls) => builder.tls_backend_preconfigured(
            tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth(),
        ),
        // The library's own protocol versions always fit its own provider.
        Err(_) => builder,
    }
}
