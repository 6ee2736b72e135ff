//! What is spoken on a workload's ports, by the words of its services and its pod. Pure.
//!
//! A service's `appProtocol` counts, then its port's name, as Istio reads them; a port of which no service says anything
//! is read by its name in the pod. A port that one of them calls HTTP is HTTP, whatever others say, the pod included:
//! else whoever may write a service could turn off what is judged of requests alone.

use std::collections::{BTreeMap, btree_map};

use signet_policy::Spoken;
use signet_proto::policy::Ports;
use signet_proto::policy::ports::Port;

use super::services::{Service, Space, Target};

/// A named TCP port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPort {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u16,
}

/// What is spoken on the ports of a pod with these labels and named ports, as far as it is said.
#[must_use]
pub fn ports(services: Option<&Space>, labels: &BTreeMap<String, String>, pod: &[PodPort]) -> Ports {
    let mut ports = Ports::new();
    let selects = |service: &Service| {
        let mut selector = service.selector.iter();
        selector.all(|(key, value)| labels.get(key) == Some(value))
    };
    for (name, service) in services.into_iter().flatten() {
        if !selects(service) {
            continue;
        }
        for port in &service.ports {
            let number = match &port.target {
                Target::Number(number) => Some(*number),
                // The first of that name is the one that Kubernetes routes to.
                Target::Name(name) => pod.iter().find(|port| port.name == *name).map(|port| port.number),
            };
            let said = Spoken::said(port.app_protocol.as_deref(), Some(&port.name));
            if let Some((number, spoken)) = number.zip(said) {
                let word = match &port.app_protocol {
                    Some(text) => format!("appProtocol {text}"),
                    None => format!("port {}", port.name),
                };
                say(&mut ports, number, spoken, format!("Service {name}, {word}"));
            }
        }
    }
    for port in pod {
        let Some(spoken) = Spoken::said(None, Some(&port.name)) else {
            continue;
        };
        // Beside services the pod's own word counts where they would make its HTTP something else.
        let known = ports.get(&port.number).map(|known| known.spoken);
        if known.is_none_or(|known| known == Spoken::Tcp && spoken != Spoken::Tcp) {
            let origin = format!("the pod's port {}", port.name);
            say(&mut ports, port.number, spoken, origin);
        }
    }
    ports
}

fn say(ports: &mut Ports, number: u16, spoken: Spoken, origin: String) {
    let known = match ports.entry(number) {
        btree_map::Entry::Vacant(free) => {
            free.insert(Port {
                spoken,
                origin,
                disputed: false,
            });
            return;
        }
        btree_map::Entry::Occupied(known) => known.into_mut(),
    };
    let (counts, disagree) = known.spoken.beside(spoken);
    if disagree && !known.disputed {
        known.origin = format!("{}; but {origin}", known.origin);
    }
    (known.spoken, known.disputed) = (counts, known.disputed || disagree);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::policy::services::{Event, Services, told};

    fn services(all: &[(&str, Value)]) -> Arc<Space> {
        let told = |(name, ports): &(&str, Value)| {
            let object = json!({
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"selector": {"app": "web"}, "ports": ports},
            });
            told(serde_json::from_value(object).unwrap()).unwrap()
        };
        let mut services = Services::default();
        services.apply(Event::Listed(all.iter().map(told).collect()), 100);
        Arc::clone(services.space("shop").unwrap())
    }

    fn labels(app: &str) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("app".to_owned(), app.to_owned()),
            ("more".to_owned(), "x".to_owned()),
        ])
    }

    fn spoken(ports: &Ports) -> Vec<(u16, &'static str, bool)> {
        let one = |(number, port): (&u16, &Port)| (*number, port.spoken.as_str(), port.disputed);
        ports.iter().map(one).collect()
    }

    #[test]
    fn only_services_that_select_the_pod_speak_and_named_targets_are_ports_of_the_pod() {
        let all = services(&[(
            "web",
            json!([
                {"port": 80, "name": "http", "targetPort": "main"},
                {"port": 81, "name": "http-b", "targetPort": "nowhere"},
                {"port": 82, "name": "grpc"},
                {"port": 83, "name": "tcp-b", "targetPort": 7071},
            ]),
        )]);
        let pod = [
            ("main", 8080),
            ("main", 9090),
            ("http-own", 7070),
            ("tcp-x", 82),
            ("metrics", 15000),
            ("http-raw", 7071),
        ]
        .map(|(name, number)| PodPort {
            name: name.to_owned(),
            number,
        });
        let found = ports(Some(&all), &labels("web"), &pod);
        assert_eq!(
            spoken(&found),
            [
                (82, "http2", false),
                (7070, "http", false),
                (7071, "http", true),
                (8080, "http", false)
            ]
        );
        assert_eq!(found[&8080].origin, "Service web, port http");
        assert_eq!(
            found[&7071].origin,
            "Service web, port tcp-b; but the pod's port http-raw"
        );
        let other = ports(Some(&all), &labels("cart"), &pod);
        assert_eq!(
            spoken(&other),
            [(82, "tcp", false), (7070, "http", false), (7071, "http", false)]
        );
        assert_eq!(spoken(&ports(None, &labels("web"), &[])), []);
    }

    #[test]
    fn no_service_beside_can_take_http_from_a_port_and_the_dispute_shows() {
        let all = services(&[
            (
                "a",
                json!([{"port": 80, "name": "http"}, {"port": 81, "name": "grpc"}, {"port": 83, "name": "http"}]),
            ),
            (
                "b",
                json!([{"port": 80, "name": "tcp"}, {"port": 81, "name": "http"}, {"port": 83, "name": "web"}]),
            ),
            ("c", json!([{"port": 80, "name": "grpc"}])),
        ]);
        let found = ports(Some(&all), &labels("web"), &[]);
        assert_eq!(
            spoken(&found),
            [(80, "http", true), (81, "http", false), (83, "http", false)]
        );
        assert_eq!(found[&80].origin, "Service a, port http; but Service b, port tcp");
    }
}
