//! Which destinations are configured: nothing else is ever dialled because somebody asked.

use std::net::SocketAddr;

use crate::accept::Bound;
use crate::config::{Config, Reach};
use crate::connection::Direction;
use crate::outbound::{Address, Way};

/// A configured destination.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// Where in the configuration, as in `outbound[0]`.
    pub(super) by: String,
    /// Who is dialled, and how.
    pub(super) way: Way,
}

/// What the configuration says of a destination.
#[derive(Clone, Debug)]
pub(super) enum Lookup {
    /// It is there.
    Listed(Listed),
    /// It is not.
    Unlisted,
    /// Its name leads nowhere, and no listener names it.
    Unresolved(String),
}

/// Looks `to` up: the upstream of an outbound listener, the address of such a listener, or an address among the
/// destinations of redirected traffic. A name that no listener has is resolved, as the workload would have done it.
pub(super) async fn find(config: &Config, bound: &[Bound], to: &Address) -> Lookup {
    if let Some(listed) = of_listeners(config, bound, to) {
        return Lookup::Listed(listed);
    }
    let (name, port) = match to {
        Address::Socket(address) => {
            return of_destinations(config, *address).map_or(Lookup::Unlisted, Lookup::Listed);
        }
        Address::Name(name, port) => (name, *port),
    };
    let looked_up = tokio::net::lookup_host((&**name, port));
    match tokio::time::timeout(super::patience(config), looked_up).await {
        Ok(Ok(mut found)) => {
            let listed = found.find_map(|address| of_destinations(config, address));
            listed.map_or(Lookup::Unlisted, Lookup::Listed)
        }
        Ok(Err(error)) => Lookup::Unresolved(format!("look up {to}: {error}")),
        Err(_) => Lookup::Unresolved(format!("look up {to}: no answer in time")),
    }
}

fn of_listeners(config: &Config, bound: &[Bound], to: &Address) -> Option<Listed> {
    let own = bound
        .iter()
        .filter(|one| one.direction == Direction::Outbound && !one.captures);
    // They were bound in the order in which they are written.
    let mut all = config.outbound.iter().zip(own).enumerate();
    let (at, (listener, _)) = all.find(|(_, (listener, bound))| {
        listener.upstream == *to || matches!(to, Address::Socket(address) if *address == bound.address)
    })?;
    Some(Listed {
        by: format!("outbound[{at}]"),
        way: Way::from(listener),
    })
}

fn of_destinations(config: &Config, address: SocketAddr) -> Option<Listed> {
    let (known, _) = &config.destinations;
    let at = known.iter().position(|known| known.holds(address))?;
    Some(Listed {
        by: format!("destinations[{at}]"),
        way: Way::to(config, address)?,
    })
}

/// The word of `default_outbound`: what becomes of a destination that is not listed. Nobody can have it dialled by asking,
/// even where it would be served in plaintext.
pub(super) fn default_outbound(config: &Config) -> &'static str {
    match config.destinations.1 {
        Reach::Refuse => "refuse",
        Reach::Plaintext => "plaintext",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = r#"
            policies: {directory: /p, namespace: shop}
            outbound:
              - {listen: "127.0.0.1:9000", upstream: "orders.shop:8443", mtls: {expected: ["spiffe://cluster.local/ns/shop/sa/orders"]}}
              - {listen: "127.0.0.1:9001", upstream: "10.0.0.1:80", plaintext: true}
            destinations:
              - {cidr: 10.1.0.0/16, port: 8080, plaintext: true}
              - {host: 127.0.0.1, port: 8081, plaintext: true}
        "#;
        Config::from_text(text).unwrap()
    }

    fn bound() -> Vec<Bound> {
        ["127.0.0.1:40000", "127.0.0.1:40001"]
            .map(|address| Bound {
                direction: Direction::Outbound,
                captures: false,
                address: address.parse().unwrap(),
                upstream: None,
            })
            .into()
    }

    async fn listed(to: &str) -> Option<(String, String)> {
        let to: Address = to.parse().unwrap();
        match find(&config(), &bound(), &to).await {
            Lookup::Listed(listed) => Some((listed.by, listed.way.upstream.address.to_string())),
            Lookup::Unlisted | Lookup::Unresolved(_) => None,
        }
    }

    #[tokio::test]
    async fn only_what_the_configuration_names_is_found() {
        let found = |by: &str, to: &str| Some((by.to_owned(), to.to_owned()));
        assert_eq!(
            listed("orders.shop:8443").await,
            found("outbound[0]", "orders.shop:8443")
        );
        assert_eq!(
            listed("127.0.0.1:40000").await,
            found("outbound[0]", "orders.shop:8443"),
            "by the address that the workload dials"
        );
        assert_eq!(listed("10.0.0.1:80").await, found("outbound[1]", "10.0.0.1:80"));
        assert_eq!(
            listed("10.1.2.3:8080").await,
            found("destinations[0]", "10.1.2.3:8080")
        );
        assert_eq!(
            listed("localhost:8081").await,
            found("destinations[1]", "127.0.0.1:8081")
        );
        for other in ["10.1.2.3:8081", "10.0.0.1:81", "127.0.0.1:9000", "localhost:8082"] {
            assert_eq!(listed(other).await, None, "{other}");
        }
    }
}
