//! Where the Redis is: the forms of `REDIS_URL`.

use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use url::Url;

/// What a wrong address is answered with. It never repeats the address: a password is in it.
pub const EXPECTED: &str = "expected redis://[[user]:password@]host[:port][/db], rediss:// for \
                            TLS, or redis+sentinel://[[user]:password@]host:port,host:port/master[/db]";

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A Redis, and who we are there.
#[derive(Clone, Debug)]
pub struct Address {
    pub place: Place,
    /// Encrypted, with the server's certificate checked.
    pub tls: bool,
    pub user: Option<String>,
    pub password: Option<SecretString>,
    pub db: i64,
}

/// Where to knock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    Server { host: String, port: u16 },
    Socket { path: String },
    Sentinels { sentinels: Vec<(String, u16)>, master: String },
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// With [`EXPECTED`], whatever is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).ok_or_else(|| EXPECTED.to_owned())
    }

    fn read(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        match scheme {
            "redis" | "rediss" => Self::server(&Url::parse(text).ok()?),
            "redis+unix" | "unix" => Self::socket(&Url::parse(text).ok()?),
            "redis+sentinel" | "rediss+sentinel" => Self::sentinels(rest, scheme),
            _ => None,
        }
    }

    fn server(url: &Url) -> Option<Self> {
        let host = match url.host()? {
            url::Host::Domain("") => return None,
            url::Host::Domain(name) => name.to_owned(),
            url::Host::Ipv4(address) => address.to_string(),
            url::Host::Ipv6(address) => address.to_string(),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return None;
        }
        Some(Self {
            place: Place::Server { host, port: url.port().unwrap_or(PORT) },
            tls: url.scheme() == "rediss",
            user: text(url.username()),
            password: url.password().and_then(text).map(SecretString::from),
            db: database(url.path().trim_matches('/'))?,
        })
    }

    fn socket(url: &Url) -> Option<Self> {
        let set = |name: &str| {
            let found = url.query_pairs().find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned()).filter(|value| !value.is_empty())
        };
        let path = url.path();
        (path.len() > 1 && !url.has_host()).then_some(())?;
        Some(Self {
            place: Place::Socket { path: text(path)? },
            tls: false,
            user: set("user"),
            password: set("pass").map(SecretString::from),
            db: database(&set("db").unwrap_or_default())?,
        })
    }

    /// Several hosts fit into no URL that a library reads.
    fn sentinels(rest: &str, scheme: &str) -> Option<Self> {
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        let (hosts, path) = rest.split_once('/')?;
        let (master, db) = path.split_once('/').unwrap_or((path, ""));
        let sentinels: Vec<_> = hosts.split(',').map(host_and_port).collect::<Option<_>>()?;
        let (user, password) = match credentials {
            Some(credentials) => {
                let (user, password) = credentials.split_once(':')?;
                (text(user), text(password))
            }
            None => (None, None),
        };
        Some(Self {
            place: Place::Sentinels { sentinels, master: text(master)? },
            tls: scheme == "rediss+sentinel",
            user,
            password: password.map(SecretString::from),
            db: database(db)?,
        })
    }
}

/// Decoded; `None` when it is empty or no text.
fn text(encoded: &str) -> Option<String> {
    let decoded = percent_decode_str(encoded).decode_utf8().ok()?;
    (!decoded.is_empty()).then(|| decoded.into_owned())
}

fn database(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    text.parse().ok().filter(|number| (0..=9_999).contains(number))
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address is in brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, SENTINEL_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn read(text: &str) -> (Place, bool, Option<String>, Option<String>, i64) {
        let address = Address::parse(text).expect(text);
        let password = address.password.map(|password| password.expose_secret().to_owned());
        (address.place, address.tls, address.user, password, address.db)
    }

    fn server(host: &str, port: u16) -> Place {
        Place::Server { host: host.to_owned(), port }
    }

    #[test]
    fn every_form_is_read() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("redis://cache"), (server("cache", 6379), false, None, None, 0));
        assert_eq!(
            read("rediss://me:p%40ss@cache:7000/3"),
            (server("cache", 7000), true, some("me"), some("p@ss"), 3)
        );
        assert_eq!(read("redis://:pw@[::1]:7"), (server("::1", 7), false, None, some("pw"), 0));
        let socket = Place::Socket { path: "/run/redis.sock".to_owned() };
        assert_eq!(read("unix:///run/redis.sock?db=2"), (socket, false, None, None, 2));
        let sentinels = Place::Sentinels {
            sentinels: vec![("a".to_owned(), 26379), ("::1".to_owned(), 5)],
            master: "fleet".to_owned(),
        };
        assert_eq!(
            read("redis+sentinel://:p@w@a,[::1]:5/fleet/1"),
            (sentinels, false, None, some("p@w"), 1)
        );
    }

    #[test]
    fn anything_else_is_refused_without_being_repeated() {
        for bad in [
            "",
            "redis://",
            "redis:secret",
            "http://secret",
            "redis://host/secret",
            "redis://host?secret=1",
            "unix://secret",
            "redis+sentinel://host:26379",
            "redis+sentinel://host:26379/",
            "redis+sentinel://secret@host/fleet",
            "redis+sentinel://host:secret/fleet",
        ] {
            let error = Address::parse(bad).map(|_| ()).expect_err(bad);
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_password_is_in_no_debug_output() {
        let address = Address::parse("redis://me:hunter2@cache").unwrap();
        assert!(!format!("{address:?}").contains("hunter2"));
    }
}
