//! The rules of a pod that redirect its traffic to the proxy, as text for `iptables-restore --noflush`: pure.
//!
//! All of them lie in two chains of our own in the table `nat`, each entered by one jump. A text replaces whatever was
//! there of them before, and the kernel takes it as a whole or not at all.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::config::{Block, Config};

/// What every chain of ours begins with, those of other versions included.
const PREFIX: &str = "SIGNET_";
/// Traffic to the pod: entered before it is routed to a socket.
const INBOUND: Way = Way {
    hook: "PREROUTING",
    chain: "SIGNET_INBOUND",
};
/// Traffic of the pod: entered when a process dials.
const OUTBOUND: Way = Way {
    hook: "OUTPUT",
    chain: "SIGNET_OUTBOUND",
};

/// A chain of ours, and where it is entered from.
struct Way {
    hook: &'static str,
    chain: &'static str,
}

/// A family of addresses: each has rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, by `iptables`.
    V4,
    /// IPv6, by `ip6tables`.
    V6,
}

/// What is let go beside what the proxy's own configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclusions {
    /// Users whose connections go out as they are.
    pub uids: Vec<u32>,
    /// Ports of the pod that are reached directly.
    pub inbound_ports: Vec<u16>,
    /// Ports of others that are dialled directly.
    pub outbound_ports: Vec<u16>,
    /// Addresses of others that are dialled directly.
    pub outbound: Vec<Block>,
}

/// Why there is no plan.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The proxy takes no redirected traffic.
    #[error(
        "the configuration has no capture.inbound and no capture.outbound: there is nothing to redirect to"
    )]
    NoCapture,
    /// A port that is only known once the proxy runs.
    #[error("{0} has port 0: rules need the port itself")]
    AnyPort(&'static str),
    /// The proxy's own dials would come back to it.
    #[error(
        "outbound traffic needs the proxy's user to be let go, or its own dials come back to it: --proxy-uid"
    )]
    NoUid,
    /// Whatever root dials would go out as it is.
    #[error("user 0 is not the proxy's: whatever runs as root would go out as it is")]
    Root,
}

/// What is redirected where, and what is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    inbound: Option<u16>,
    outbound: Option<u16>,
    direct: BTreeSet<u16>,
    exclusions: Exclusions,
}

impl Plan {
    /// For a proxy of this configuration: to the ports on which it takes redirected traffic. Those on which it listens
    /// itself are reached directly.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(config: &Config, exclusions: Exclusions) -> Result<Self, PlanError> {
        let capture = config.capture.clone().unwrap_or_default();
        if capture.inbound.is_none() && capture.outbound.is_none() {
            return Err(PlanError::NoCapture);
        }
        if exclusions.uids.contains(&0) {
            return Err(PlanError::Root);
        }
        if capture.outbound.is_some() && exclusions.uids.is_empty() {
            return Err(PlanError::NoUid);
        }
        let mut direct: BTreeSet<u16> = exclusions.inbound_ports.iter().copied().collect();
        direct.insert(known("metrics_listen", config.metrics_listen)?);
        if let Some(probes) = &config.probes {
            direct.insert(known("probes.listen", probes.listen)?);
        }
        for listener in &config.inbound {
            direct.insert(known("inbound.listen", listener.listen)?);
        }
        let port =
            |name, address: Option<SocketAddr>| address.map(|address| known(name, address)).transpose();
        Ok(Self {
            inbound: port("capture.inbound", capture.inbound)?,
            outbound: port("capture.outbound", capture.outbound)?,
            direct,
            exclusions,
        })
    }

    /// The text that puts these rules in force, in place of what was `found`.
    #[must_use]
    pub fn text(&self, family: Family, found: &Found) -> String {
        let mut text = String::from("*nat\n");
        let wanted = [(&INBOUND, self.inbound), (&OUTBOUND, self.outbound)];
        let wanted: Vec<(&Way, u16)> = wanted
            .into_iter()
            .filter_map(|(way, port)| Some((way, port?)))
            .collect();
        found.leave(&mut text);
        for (way, port) in &wanted {
            // Makes the chain, or empties it.
            let _ = writeln!(text, ":{} - [0:0]", way.chain);
            self.chain(&mut text, way, *port, family);
        }
        for way in wanted.iter().map(|(way, _)| way) {
            let _ = writeln!(text, "-I {} 1 -p tcp -j {}", way.hook, way.chain);
        }
        let kept: Vec<&str> = wanted.iter().map(|(way, _)| way.chain).collect();
        found.delete(&mut text, &kept);
        text.push_str("COMMIT\n");
        text
    }

    fn chain(&self, text: &mut String, way: &Way, port: u16, family: Family) {
        let chain = way.chain;
        if way.hook == INBOUND.hook {
            // Left as it is, the kernel drops what comes from outside and names loopback; redirected, it would not see it.
            let loopback = match family {
                Family::V4 => "127.0.0.0/8",
                Family::V6 => "::1/128",
            };
            let _ = writeln!(text, "-A {chain} -d {loopback} -j RETURN");
            // Redirected, a packet to another host would be taken for one to this pod, and the proxy would be a relay.
            let _ = writeln!(text, "-A {chain} -m addrtype ! --dst-type LOCAL -j RETURN");
            for direct in &self.direct {
                let _ = writeln!(text, "-A {chain} -p tcp --dport {direct} -j RETURN");
            }
        } else {
            for uid in &self.exclusions.uids {
                let _ = writeln!(text, "-A {chain} -m owner --uid-owner {uid} -j RETURN");
            }
            // The pod itself, by whatever address.
            let _ = writeln!(text, "-A {chain} -o lo -j RETURN");
            for direct in &self.exclusions.outbound_ports {
                let _ = writeln!(text, "-A {chain} -p tcp --dport {direct} -j RETURN");
            }
            let blocks = self.exclusions.outbound.iter();
            for block in blocks.filter(|block| block.is_ipv4() == (family == Family::V4)) {
                let _ = writeln!(text, "-A {chain} -d {block} -j RETURN");
            }
        }
        let _ = writeln!(text, "-A {chain} -p tcp -j REDIRECT --to-ports {port}");
    }

    /// Whether what was found enters every chain that is wanted, once.
    #[must_use]
    pub fn holds(&self, found: &Found) -> bool {
        let wanted = [(&INBOUND, self.inbound), (&OUTBOUND, self.outbound)];
        let wanted = wanted.into_iter().filter(|(_, port)| port.is_some());
        let entered = |way: &Way| {
            let jump = format!("-A {} -p tcp -j {}", way.hook, way.chain);
            found.jumps.iter().filter(|line| **line == jump).count() == 1
        };
        wanted.clone().all(|(way, _)| entered(way)) && found.jumps.len() == wanted.count()
    }
}

fn known(name: &'static str, address: SocketAddr) -> Result<u16, PlanError> {
    match address.port() {
        0 => Err(PlanError::AnyPort(name)),
        port => Ok(port),
    }
}

/// What is there of ours, read from what `iptables-save` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    jumps: Vec<String>,
    chains: Vec<String>,
}

impl Found {
    /// Reads the table `nat`.
    #[must_use]
    pub fn read(saved: &str) -> Self {
        let mut found = Self::default();
        let mut within = false;
        for line in saved.lines().map(str::trim) {
            if let Some(table) = line.strip_prefix('*') {
                within = table == "nat";
            } else if within {
                found.line(line);
            }
        }
        found
    }

    fn line(&mut self, line: &str) {
        if let Some(declared) = line.strip_prefix(':') {
            let chain = declared.split_whitespace().next().unwrap_or_default();
            if chain.starts_with(PREFIX) {
                self.chains.push(chain.to_owned());
            }
            return;
        }
        let mut words = line.split_whitespace();
        let (command, chain) = (words.next(), words.next().unwrap_or_default());
        let ours = |pair: &[&str]| matches!(pair, ["-j" | "-g", target] if target.starts_with(PREFIX));
        let words: Vec<&str> = words.collect();
        if command == Some("-A") && !chain.starts_with(PREFIX) && words.windows(2).any(ours) {
            self.jumps.push(line.to_owned());
        }
    }

    /// Whether there is nothing of ours.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jumps.is_empty() && self.chains.is_empty()
    }

    /// The text that takes away all that was found.
    #[must_use]
    pub fn removal(&self) -> String {
        let mut text = String::from("*nat\n");
        self.leave(&mut text);
        self.delete(&mut text, &[]);
        text.push_str("COMMIT\n");
        text
    }

    /// Nothing enters our chains any more.
    fn leave(&self, text: &mut String) {
        for jump in &self.jumps {
            let _ = writeln!(text, "{}", jump.replacen("-A ", "-D ", 1));
        }
    }

    fn delete(&self, text: &mut String, kept: &[&str]) {
        let stale: Vec<&String> = self
            .chains
            .iter()
            .filter(|chain| !kept.contains(&chain.as_str()))
            .collect();
        // They may lead to one another, so all are emptied first.
        for chain in &stale {
            let _ = writeln!(text, "-F {chain}");
        }
        for chain in &stale {
            let _ = writeln!(text, "-X {chain}");
        }
    }
}

#[cfg(test)]
mod tests;
