//! Which addresses a pool's network gets. Docker's own pools end after 31 networks, so we
//! choose: a slice of a private range, just large enough.

use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

/// A bridge holds 1023 ports; a /21 has room for twice as many addresses.
const PREFIX_MIN: u8 = 21;
/// Smaller ones only save addresses nobody is short of.
const PREFIX_MAX: u8 = 28;
/// The network's own address, its gateway and the broadcast address.
const RESERVED: u32 = 3;

/// The private range that pool networks are cut from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Supernet {
    base: u32,
    prefix: u8,
}

impl Supernet {
    /// 10.213.0.0/16: neither Docker's own ranges (172.16.0.0/12, 192.168.0.0/16) nor the
    /// first ones people number their networks with.
    pub const DEFAULT: Self = Self { base: u32::from_be_bytes([10, 213, 0, 0]), prefix: 16 };

    /// From `a.b.c.d/prefix`; the prefix is 8 to 20. `None` when it is not that.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.split_once('/')?;
        let base = u32::from(base.parse::<Ipv4Addr>().ok()?);
        let prefix: u8 = prefix.parse().ok().filter(|prefix| (8..=20).contains(prefix))?;
        (base.trailing_zeros() >= 32 - u32::from(prefix)).then_some(Self { base, prefix })
    }

    /// Subnets of this size, all of them, beginning at one that depends on the name: two
    /// installations on one daemon seldom ask for the same one first.
    pub(super) fn candidates(self, prefix: u8, name: &str) -> impl Iterator<Item = Subnet> {
        let count = 1_u32 << (prefix.max(self.prefix) - self.prefix);
        let first = u32::from_be_bytes(digest(name));
        (0..count).map(move |n| {
            let slot = first.wrapping_add(n) % count;
            Subnet { base: self.base + (slot << (32 - prefix)), prefix }
        })
    }
}

/// One candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Subnet {
    base: u32,
    prefix: u8,
}

impl Subnet {
    /// `a.b.c.d/prefix`
    pub(super) fn cidr(self) -> String {
        format!("{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }

    /// The first usable address; 20.10 does not show a gateway it chose itself.
    pub(super) fn gateway(self) -> String {
        Ipv4Addr::from(self.base + 1).to_string()
    }
}

/// The prefix that holds `capacity` containers twice: while ended ones are being removed,
/// their replacements start beside them.
#[must_use]
pub(crate) fn prefix_for(capacity: u32) -> u8 {
    let addresses = capacity.saturating_mul(2).saturating_add(RESERVED);
    let bits = addresses.checked_next_power_of_two().map_or(32, u32::trailing_zeros);
    let prefix = 32_u32.saturating_sub(bits);
    u8::try_from(prefix).unwrap_or(PREFIX_MIN).clamp(PREFIX_MIN, PREFIX_MAX)
}

/// The bridge device's name: the same for the same network, at most 15 characters, which
/// is the kernel's limit.
pub(super) fn bridge_name(network: &str) -> String {
    let [a, b, c, d] = digest(network);
    format!("ro-{a:02x}{b:02x}{c:02x}{d:02x}")
}

fn digest(text: &str) -> [u8; 4] {
    let whole: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    let [a, b, c, d, ..] = whole;
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_subnet_is_sized_to_twice_the_capacity() {
        let sizes = [0, 1, 6, 7, 10, 14, 100, 1000, 1_000_000, u32::MAX];
        let prefixes = sizes.map(prefix_for);
        assert_eq!(prefixes, [28, 28, 28, 27, 27, 27, 24, 21, 21, 21]);
    }

    #[test]
    fn candidates_are_distinct_aligned_and_inside() {
        let all: BTreeSet<_> =
            Supernet::DEFAULT.candidates(24, "runners").map(Subnet::cidr).collect();
        assert_eq!(all.len(), 256);
        assert!(all.iter().all(|cidr| cidr.starts_with("10.213.") && cidr.ends_with(".0/24")));
        let first = Supernet::DEFAULT.candidates(24, "runners").next();
        assert_ne!(first, Supernet::DEFAULT.candidates(24, "others").next());
        assert!(first.unwrap().gateway().ends_with(".1"));
    }

    #[test]
    fn a_supernet_must_be_a_network_address_of_useful_size() {
        assert_eq!(Supernet::parse("10.213.0.0/16"), Some(Supernet::DEFAULT));
        for bad in ["10.213.0.1/16", "10.0.0.0/24", "10.0.0.0/7", "10.0.0.0", "x/16", "::/16"] {
            assert_eq!(Supernet::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_bridge_name_fits_the_kernel() {
        let name = bridge_name(&"long".repeat(100));
        assert!(name.len() <= 15, "{name}");
        assert_eq!(name, bridge_name(&"long".repeat(100)));
    }
}
