//! What `doctor` wants to know of a daemon beyond the trait. Reads only.

use std::net::Ipv4Addr;

use bollard::query_parameters::ListNetworksOptions;

use super::connection::READ_LIMIT;
use super::subnet::{Supernet, prefix_for};
use super::{BollardDocker, DockerError};

/// An IPv4 subnet as first and last address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    first: u32,
    last: u32,
}

impl Range {
    /// From `a.b.c.d/prefix`; `None` when it is not that.
    #[must_use]
    pub fn parse(cidr: &str) -> Option<Self> {
        let (base, prefix) = cidr.split_once('/')?;
        let base = u32::from(base.parse::<Ipv4Addr>().ok()?);
        let prefix: u32 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        let hosts = u32::MAX.checked_shr(prefix).unwrap_or(0);
        Some(Self { first: base & !hosts, last: base | hosts })
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl BollardDocker {
    /// The IPv4 subnets of every network of the daemon, whoever made it.
    ///
    /// # Errors
    /// As every call.
    pub async fn subnets(&self) -> Result<Vec<Range>, DockerError> {
        let networks = self
            .connection
            .call("listing networks", READ_LIMIT, async |docker| {
                docker.list_networks(None::<ListNetworksOptions>).await
            })
            .await?;
        let configs = networks.into_iter().filter_map(|network| network.ipam?.config).flatten();
        Ok(configs.filter_map(|config| Range::parse(&config.subnet?)).collect())
    }
}

impl Supernet {
    /// How many subnets that hold `capacity` runners are free beside those in use.
    #[must_use]
    pub fn free(self, capacity: u32, used: &[Range]) -> usize {
        self.candidates(prefix_for(capacity), "")
            .filter_map(|subnet| Range::parse(&subnet.cidr()))
            .filter(|candidate| !used.iter().any(|range| range.overlaps(*candidate)))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_overlap_takes_away_what_it_covers() {
        let used = |cidrs: &[&str]| -> Vec<Range> {
            cidrs.iter().map(|cidr| Range::parse(cidr).unwrap()).collect()
        };
        let free = |cidrs: &[&str]| Supernet::DEFAULT.free(100, &used(cidrs));
        assert_eq!(free(&[]), 256);
        assert_eq!(free(&["10.213.7.0/24"]), 255);
        assert_eq!(free(&["10.213.7.16/28", "10.213.8.0/23"]), 253);
        assert_eq!(free(&["172.17.0.0/16"]), 256);
        assert_eq!(free(&["10.0.0.0/8"]), 0);
        assert_eq!(free(&["0.0.0.0/0"]), 0);
    }

    #[test]
    fn what_is_no_ipv4_subnet_is_none() {
        for bad in ["", "10.0.0.0", "fd00::/8", "10.0.0.0/33", "10.0.0/8"] {
            assert_eq!(Range::parse(bad), None, "{bad}");
        }
    }
}
