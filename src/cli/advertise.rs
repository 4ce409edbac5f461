//! Where other replicas reach this one: as configured, or as follows from the address
//! listened on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use url::Url;

/// Documentation addresses (RFC 5737 and 3849): nobody is there, and nothing is sent. The
/// way to them is the way to everybody outside this network.
const OUTWARD_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
const OUTWARD_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);

/// The URL to announce; `None` when this machine alone can reach the API.
#[must_use]
pub fn url(configured: Option<&Url>, listening: SocketAddr) -> Option<String> {
    if let Some(url) = configured {
        let mut url = url.clone();
        // Who lets the system choose the port cannot know it beforehand.
        if url.port() == Some(0) && url.set_port(Some(listening.port())).is_err() {
            return None;
        }
        return Some(url.as_str().trim_end_matches('/').to_owned());
    }
    let address = match listening.ip() {
        address if address.is_loopback() => return None,
        address if address.is_unspecified() => outward(address.is_ipv4())?,
        address => address,
    };
    Some(format!("http://{}", SocketAddr::new(address, listening.port())))
}

/// The address this machine speaks to others from. A datagram socket that is connected
/// sends nothing; it only asks for the route.
fn outward(v4: bool) -> Option<IpAddr> {
    let (any, target): (IpAddr, _) = if v4 {
        (Ipv4Addr::UNSPECIFIED.into(), OUTWARD_V4)
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), OUTWARD_V6)
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_concrete_address_is_announced_and_loopback_is_not() {
        let listening = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(url(None, listening("10.0.0.7:80")).as_deref(), Some("http://10.0.0.7:80"));
        assert_eq!(url(None, listening("[fd00::7]:81")).as_deref(), Some("http://[fd00::7]:81"));
        assert_eq!(url(None, listening("127.0.0.1:80")), None);
        assert_eq!(url(None, listening("[::1]:80")), None);
        // Whatever this machine has for a network, a wildcard is never announced.
        let any = url(None, listening("0.0.0.0:80")).unwrap_or_default();
        assert!(!any.contains("0.0.0.0") && !any.contains("127.0.0.1"), "{any}");
    }

    #[test]
    fn a_configured_url_wins_and_may_leave_the_port_open() {
        let configured = |text: &str| Url::parse(text).unwrap();
        let listening = "127.0.0.1:4711".parse().unwrap();
        let named = configured("https://runners.example/");
        assert_eq!(url(Some(&named), listening).as_deref(), Some("https://runners.example"));
        let open = configured("http://127.0.0.1:0");
        assert_eq!(url(Some(&open), listening).as_deref(), Some("http://127.0.0.1:4711"));
    }
}
