//! The network: one bridge on this machine, and for each host a namespace with one end of
//! a cable whose other end is plugged into the bridge.

use super::HostsError;
use super::system::run;

/// The private range: away from Docker's own pools and from those of our runner networks.
const RANGE: &str = "10.77";

/// What was laid so far.
#[derive(Debug)]
pub(super) struct Wires {
    tag: String,
    bridge: String,
    /// `a.b.c` of the bridge's network; empty until there is one.
    subnet: String,
    cables: Vec<Cable>,
}

#[derive(Debug)]
struct Cable {
    namespace: String,
    /// The end on this machine.
    plug: String,
}

impl Wires {
    pub(super) fn new(tag: &str) -> Self {
        Self {
            tag: tag.to_owned(),
            bridge: format!("ro{tag}b"),
            subnet: String::new(),
            cables: Vec::new(),
        }
    }

    pub(super) fn bridge(&self) -> &str {
        &self.bridge
    }

    pub(super) fn gateway(&self) -> String {
        format!("{}.1", self.subnet)
    }

    /// Makes the bridge, with an address of a network that nobody on this machine uses.
    pub(super) fn lay_bridge(&mut self) -> Result<(), HostsError> {
        let used = run("ip", &["-4", "address", "show"])? + &run("ip", &["-4", "route", "show"])?;
        // Two worlds at once begin their search at different numbers.
        let first = u32::from_str_radix(&self.tag, 16).unwrap_or(0);
        let subnet = (0..256)
            .map(|n| format!("{RANGE}.{}", (first + n) % 256))
            .find(|subnet| !used.contains(&format!("{subnet}.")))
            .ok_or(HostsError::NoSubnet)?;
        run("ip", &["link", "add", &self.bridge, "type", "bridge"])?;
        self.subnet = subnet;
        // A bridge without a hardware address of its own changes it with every cable, and
        // the hosts would talk to one that is gone.
        let hardware = hardware_address(&self.tag);
        run("ip", &["link", "set", &self.bridge, "address", &hardware])?;
        let address = format!("{}/24", self.gateway());
        run("ip", &["address", "add", &address, "dev", &self.bridge])?;
        run("ip", &["link", "set", &self.bridge, "up"])?;
        Ok(())
    }

    /// One more host; the path of its namespace.
    pub(super) fn add(&mut self) -> Result<String, HostsError> {
        let number = self.cables.len();
        let namespace = format!("ro-{}-{number}", self.tag);
        let plug = format!("ro{}v{number}", self.tag);
        run("ip", &["netns", "add", &namespace])?;
        self.cables.push(Cable { namespace: namespace.clone(), plug: plug.clone() });
        let inside = ["-n", &namespace];
        run(
            "ip",
            &["link", "add", &plug, "type", "veth", "peer", "name", "eth0", "netns", &namespace],
        )?;
        run("ip", &["link", "set", &plug, "master", &self.bridge, "up"])?;
        let address = format!("{}.{}/24", self.subnet, number + 2);
        for words in [
            vec!["link", "set", "lo", "up"],
            vec!["address", "add", &address, "dev", "eth0"],
            vec!["link", "set", "eth0", "up"],
            vec!["route", "add", "default", "via", &self.gateway()],
        ] {
            run("ip", &[&inside[..], &words].concat())?;
        }
        Ok(format!("/run/netns/{namespace}"))
    }

    /// Sets a host's cable `up` or `down`.
    pub(super) fn set(&self, host: usize, state: &str) -> Result<(), HostsError> {
        match self.cables.get(host) {
            Some(cable) => run("ip", &["link", "set", &cable.plug, state]).map(drop),
            None => Ok(()),
        }
    }

    /// Takes everything away; names what could not be.
    pub(super) fn remove(&mut self) -> Vec<String> {
        let mut left = Vec::new();
        for cable in self.cables.drain(..) {
            // A namespace that is still in use would keep the cable alive.
            let _ = run("ip", &["link", "delete", &cable.plug]);
            if let Err(error) = run("ip", &["netns", "delete", &cable.namespace]) {
                left.push(error.to_string());
            }
        }
        if !self.subnet.is_empty() {
            self.subnet.clear();
            if let Err(error) = run("ip", &["link", "delete", &self.bridge]) {
                left.push(error.to_string());
            }
        }
        left
    }
}

/// A locally administered address made from the tag's digits.
fn hardware_address(tag: &str) -> String {
    let pairs: Vec<&str> = (0..3).filter_map(|n| tag.get(2 * n..2 * n + 2)).collect();
    format!("02:77:01:{}", pairs.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_the_address_is_one() {
        let wires = Wires::new("a1b2c3");
        assert!(wires.bridge().len() <= 15 && "roa1b2c3v15".len() <= 15);
        assert_eq!(hardware_address("a1b2c3"), "02:77:01:a1:b2:c3");
    }
}
