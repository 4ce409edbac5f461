//! How the text of a setting becomes a value. Each error says what is allowed.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

use crate::fleet::id::RepoName;

/// A whole number within a range.
pub(super) fn whole<T: FromStr + PartialOrd + Display>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            format!("expected a whole number from {} to {}", range.start(), range.end())
        })
    }
}

/// Whole seconds within a range.
pub(super) fn seconds(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        text.parse()
            .ok()
            .filter(|number| range.contains(number))
            .map(Duration::from_secs)
            .ok_or_else(|| {
                let (from, to) = (range.start(), range.end());
                format!("expected whole seconds from {from} to {to}")
            })
    }
}

/// `true` or `false`, in the spellings people use.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// Items between commas, without blanks and empty ones.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// A decimal number within a range.
pub(super) fn decimal(range: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, String> {
    move |text| {
        text.parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("expected a number from {} to {}", range.start(), range.end()))
    }
}

/// Less is refused by Docker or by the runner's own start.
const MEMORY_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// Bytes as Docker writes them: `512m`, `4g`, `1.5g`, `4GiB`, or a bare number.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    let allowed = || "expected memory of at least 16m, such as 512m or 4g".to_owned();
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(allowed()),
    };
    let (whole, fraction) = digits.trim().split_once('.').unwrap_or((digits.trim(), ""));
    // Three digits are kept; the rest is below a thousandth of the unit.
    let thousandths: String = format!("{fraction}000").chars().take(3).collect();
    let thousandths: u64 = thousandths.parse().map_err(|_| allowed())?;
    let whole: u64 = whole.parse().map_err(|_| allowed())?;
    whole
        .checked_mul(factor)
        .and_then(|bytes| bytes.checked_add(thousandths * factor / 1000))
        .filter(|bytes| *bytes >= MEMORY_BYTES_MIN && i64::try_from(*bytes).is_ok())
        .ok_or_else(allowed)
}

/// Words as a shell splits them.
pub(super) fn command(text: &str) -> Result<Vec<String>, String> {
    shlex::split(text)
        .filter(|words| !words.is_empty())
        .ok_or_else(|| "expected a command with every quote closed".to_owned())
}

/// `owner/name`.
pub(super) fn repository(text: &str) -> Result<RepoName, String> {
    let repo = RepoName::from(text);
    match repo.split() {
        Some((owner, name)) if is_github_name(owner) && is_github_name(name) => Ok(repo),
        _ => Err("expected owner/name".to_owned()),
    }
}

/// The login of an organisation or the slug of an enterprise.
pub(super) fn login(text: &str) -> Result<String, String> {
    if is_github_name(text) {
        Ok(text.to_owned())
    } else {
        Err("expected the bare name, as in github.com/NAME".to_owned())
    }
}

/// The logins of organisations, separated by commas.
pub(super) fn logins(text: &str) -> Result<Vec<String>, String> {
    let names = list(text);
    if !names.is_empty() && names.iter().all(|name| is_github_name(name)) {
        Ok(names)
    } else {
        Err("expected names of organisations, separated by commas".to_owned())
    }
}

/// GitHub's own rule is narrower; this one keeps anything out that would change a URL.
fn is_github_name(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !text.bytes().all(|b| b == b'.')
}

/// The name of a cluster or a pool: it becomes part of names and labels.
pub(super) fn name(text: &str) -> Result<String, String> {
    let fits = (1..=40).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 40 lower-case letters, digits and hyphens".to_owned())
    }
}

/// An `http` or `https` URL without credentials, query or fragment.
pub(super) fn http_url(text: &str) -> Result<Url, String> {
    Url::parse(text)
        .ok()
        .filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        })
        .ok_or_else(|| "expected a URL such as https://host/path, without credentials".to_owned())
}

/// `unix:///path` or `tcp://host:port`.
pub(super) fn docker_host(text: &str) -> Result<String, String> {
    let unix = text.strip_prefix("unix://").is_some_and(|path| path.starts_with('/'));
    let tcp = || {
        Url::parse(text).is_ok_and(|url| {
            matches!(url.scheme(), "tcp" | "http")
                && url.has_host()
                && url.port_or_known_default().is_some()
                && matches!(url.path(), "" | "/")
        })
    };
    if unix || tcp() {
        Ok(text.to_owned())
    } else {
        Err("expected unix:///path or tcp://host:port".to_owned())
    }
}

/// `host:port`, where the host is an IP address or `localhost`.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let local = || {
        let port = text.strip_prefix("localhost:")?.parse().ok()?;
        Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    };
    text.parse().ok().or_else(local).ok_or_else(|| {
        "expected an address and a port, such as 127.0.0.1:8080 or 0.0.0.0:8080".to_owned()
    })
}

/// `name=value,name=value`, with values percent-decoded.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    list(text)
        .iter()
        .map(|item| {
            item.split_once('=')
                .map(|(name, value)| (name.trim().to_owned(), percent_decode(value.trim())))
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| "expected name=value, separated by commas".to_owned())
        })
        .collect()
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = || {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            u8::from_str_radix(digits, 16).ok()
        };
        if let Some(byte) = (*first == b'%').then(hex).flatten() {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_docker_reads_it() {
        for (text, bytes) in [
            ("4g", 4 << 30),
            ("4G", 4 << 30),
            ("4GiB", 4 << 30),
            ("1.5g", 3 << 29),
            ("512m", 512 << 20),
            ("512 MB", 512 << 20),
            ("16777216", 16 << 20),
        ] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        for bad in ["", "g", "4x", "-4g", "1m", "99999999999t", "4g4", "1.x", "four"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_would_change_a_url_are_refused() {
        assert!(repository("acme/demo.js").is_ok());
        for bad in ["acme", "acme/", "a/b/c", "https://github.com/a/b", "a/..", "a b/c", "a/b?c"] {
            assert!(repository(bad).is_err(), "{bad}");
        }
        for bad in ["", "..", "a/b", "https://github.com/acme", "a b"] {
            assert!(login(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_and_urls() {
        assert!(listen_address("localhost:0").unwrap().ip().is_loopback());
        assert!(listen_address("[::1]:8080").is_ok());
        for bad in ["8080", ":8080", "host:8080", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(listen_address(bad).is_err(), "{bad}");
        }
        for good in ["unix:///run/docker.sock", "tcp://10.0.0.1:2375", "http://docker:2375"] {
            assert!(docker_host(good).is_ok(), "{good}");
        }
        for bad in ["/run/docker.sock", "unix://run", "ssh://me@host", "tcp://", "tcp://host"] {
            assert!(docker_host(bad).is_err(), "{bad}");
        }
        for bad in ["ftp://x", "api.github.com", "https://u:p@x", "https://x?y=1", "https://"] {
            assert!(http_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_are_split_as_a_shell_splits_them() {
        assert_eq!(command("/run.sh --a 'b c' \"d\"").unwrap(), ["/run.sh", "--a", "b c", "d"]);
        assert!(command("/run.sh 'open").is_err());
    }

    #[test]
    fn pairs_are_percent_decoded() {
        let read = pairs("a=1, b = x%20y%2,").unwrap();
        assert_eq!(read, [("a".into(), "1".into()), ("b".into(), "x y%2".into())]);
        assert!(pairs("a").is_err() && pairs("=1").is_err());
    }
}
