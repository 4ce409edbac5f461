//! Where shared state is kept.

use secrecy::{ExposeSecret, SecretString};

use super::process::ClusterConfig;
use super::reader::Reader;
use crate::store::redis::address::{Address, Place};

/// Where shared state is kept.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// In this process: one replica.
    Memory,
    Redis(RedisConfig),
}

/// What the store on Redis needs.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    pub address: Address,
    /// Authorities to trust, in PEM form; `None` = the system's.
    pub ca_pem: Option<String>,
    /// Certificate and key of this client, in PEM form.
    pub identity_pem: Option<(String, SecretString)>,
    /// The cluster's name, which all replicas share.
    pub cluster: String,
}

const TLS_FILES: [&str; 3] = ["REDIS_CA_FILE", "REDIS_CLIENT_CERT_FILE", "REDIS_CLIENT_KEY_FILE"];

pub(super) fn read(reader: &mut Reader<'_>, cluster: &ClusterConfig) -> StoreConfig {
    let url = reader.secret("REDIS_URL", |text| Address::parse(text).map(drop));
    let [ca_pem, certificate, key] = TLS_FILES.map(|name| pem_file(reader, name));
    let address = url.and_then(|url| Address::parse(url.expose_secret()).ok());
    // A replica that falls back to its own memory would start a second fleet.
    if reader.is_set("REDIS_URL") && cluster.name.is_none() && !reader.is_set("CLUSTER_NAME") {
        reader.problem(
            "CLUSTER_NAME",
            "missing: REDIS_URL is set, and replicas that share a Redis must carry one name",
        );
    }
    let tls = address.as_ref().is_some_and(|address| address.tls);
    if !tls {
        for name in TLS_FILES {
            if reader.is_set(name) {
                let name = reader.spelled(name);
                reader.warn(format!("{name} has no effect: REDIS_URL does not begin with rediss"));
            }
        }
    }
    let identity_pem = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, SecretString::from(key))),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            let subject = reader.spelled("REDIS_CLIENT_CERT_FILE");
            reader.problem(subject, "goes together with REDIS_CLIENT_KEY_FILE; set both or none");
            None
        }
    };
    let Some(address) = address else { return StoreConfig::Memory };
    warn_of_plain_text(reader, &address);
    let cluster = cluster.name.clone().unwrap_or_default();
    StoreConfig::Redis(RedisConfig { address, ca_pem, identity_pem, cluster })
}

/// The text of a file that must hold something in PEM form.
fn pem_file(reader: &mut Reader<'_>, name: &'static str) -> Option<String> {
    let path = reader.text(name)?;
    let problem = match reader.read_file(&path) {
        Ok(text) if text.contains("-----BEGIN ") => return Some(text),
        Ok(_) => "expected the path of a file in PEM form (-----BEGIN …)".to_owned(),
        Err(error) => format!("the file cannot be read ({error})"),
    };
    let subject = reader.spelled(name);
    reader.problem(subject, problem);
    None
}

/// The operator state and, through it, the fleet are anybody's who can read the line.
fn warn_of_plain_text(reader: &mut Reader<'_>, address: &Address) {
    let Place::Server { host, .. } = &address.place else { return };
    let named = host.contains('.') && host.parse::<std::net::IpAddr>().is_err();
    if !address.tls && named && address.password.is_some() {
        let name = reader.spelled("REDIS_URL");
        reader.warn(format!("{name} is not encrypted: its password crosses the network readable"));
    }
}
