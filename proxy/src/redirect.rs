//! `signet-proxy redirect`: the rules by which a pod's traffic comes to the proxy. Run once per pod, before the proxy,
//! by a container that may change the pod's network; the proxy itself may not.

pub mod rules;
mod tables;

use clap::{Args, Subcommand};

use crate::config::{Block, Config};
pub use rules::{Exclusions, Family, Found, Plan, PlanError};
pub use tables::TableError;

/// What to do with the rules.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Print the rules, as iptables-restore --noflush and ip6tables-restore --noflush take them.
    Print(Rules),
    /// Put the rules in force in this network namespace, in place of those of an earlier run.
    Apply(Rules),
    /// Take away every rule of an earlier run.
    Remove,
}

/// What is not redirected, beside loopback and the ports on which the proxy listens itself.
#[derive(Clone, Debug, Args)]
pub struct Rules {
    /// The user the proxy runs as: its own dials are let go. May be repeated.
    #[arg(long = "proxy-uid", value_name = "UID", default_value = "65533")]
    proxy_uids: Vec<u32>,
    /// A port of this pod that is reached directly, without the proxy. May be repeated.
    #[arg(long = "exclude-inbound-port", value_name = "PORT")]
    inbound_ports: Vec<u16>,
    /// A port of others that is dialled directly. May be repeated.
    #[arg(long = "exclude-outbound-port", value_name = "PORT")]
    outbound_ports: Vec<u16>,
    /// Addresses that are dialled directly, as 10.96.0.10/32. May be repeated.
    #[arg(long = "exclude-outbound-cidr", value_name = "CIDR")]
    outbound: Vec<Block>,
    /// Leave IPv6 as it is: whatever speaks it goes past the proxy.
    #[arg(long)]
    ipv4_only: bool,
}

impl Rules {
    fn exclusions(&self) -> Exclusions {
        Exclusions {
            uids: self.proxy_uids.clone(),
            inbound_ports: self.inbound_ports.clone(),
            outbound_ports: self.outbound_ports.clone(),
            outbound: self.outbound.clone(),
        }
    }
}

/// Why the rules are not as they were asked to be.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A program did not do it.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Does it, and answers what to print. `config` is the proxy's; a removal needs none.
///
/// # Errors
/// [`RedirectError`].
pub fn run(verb: &Verb, config: Option<&Config>) -> Result<String, RedirectError> {
    let (Verb::Print(rules) | Verb::Apply(rules), Some(config)) = (verb, config) else {
        return Ok(tables::remove()?);
    };
    let plan = Plan::new(config, rules.exclusions())?;
    if matches!(verb, Verb::Apply(_)) {
        return Ok(tables::apply(&plan, rules.ipv4_only)?);
    }
    let mut text = format!(
        "# iptables-restore --noflush\n{}",
        plan.text(Family::V4, &Found::default())
    );
    if !rules.ipv4_only {
        let six = plan.text(Family::V6, &Found::default());
        text.push_str("# ip6tables-restore --noflush\n");
        text.push_str(&six);
    }
    Ok(text)
}
