//! Which objects concern a workload, and on which level.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::{Attachment, TargetKind, TargetRef};
use crate::principal::LocalDomains;

/// The class of waypoints, as policies of the root namespace name it.
const WAYPOINT_CLASS: &str = "istio-waypoint";

/// What the whole mesh agrees on.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Our trust domain and its aliases.
    pub domains: LocalDomains,
    /// The namespace whose policies reach every namespace.
    pub root_namespace: String,
    /// Providers that CUSTOM policies may name.
    pub providers: BTreeMap<String, ProviderKind>,
}

/// How a provider is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// Envoy's `ext_authz` gRPC service, for requests and for connections.
    Grpc,
    /// HTTP, for requests only.
    Http,
}

/// Whose policies are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How it is reached.
    pub role: Role,
}

/// How traffic reaches a workload, which decides what policies attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Through a proxy of its own.
    Sidecar,
    /// It is a gateway of the Gateway API, of this name.
    Gateway(String),
    /// It is a waypoint of this name, answering for these objects.
    Waypoint(String, Vec<Service>),
}

/// A `Service` or `ServiceEntry` behind a waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// [`TargetKind::Service`] or [`TargetKind::ServiceEntry`].
    pub kind: TargetKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// How specific an object is; later beats earlier where only one can count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Of the root namespace, for everything.
    Mesh,
    /// Of the workload's namespace, for everything.
    Namespace,
    /// For what carries labels, or is named.
    Workload,
}

/// Why an object does not concern a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfScope {
    /// It lies in another namespace, which is not the root namespace.
    OtherNamespace,
    /// The workload has not all of its labels.
    OtherLabels,
    /// It attaches to named objects, of which the workload is none.
    OtherTarget,
    /// A waypoint heeds only policies that name what it answers for.
    WaypointNeedsTarget,
    /// Selectors of the root namespace do not count for PeerAuthentication.
    RootSelector,
}

impl fmt::Display for OutOfScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherNamespace => "is in another namespace",
            Self::OtherLabels => "selects other labels",
            Self::OtherTarget => "has targetRefs, and the workload is none of them",
            Self::WaypointNeedsTarget => "has no targetRefs, without which waypoints heed no policy",
            Self::RootSelector => "has a selector in the root namespace, which does not count for this kind",
        })
    }
}

/// The level on which an object of `namespace` concerns the workload. Nothing for the namespace means that it
/// is unknown, and reaches all of them.
///
/// # Errors
/// [`OutOfScope`] if it does not.
pub fn level(
    namespace: Option<&str>,
    attachment: &Attachment,
    workload: &Workload,
    root: &str,
) -> Result<Level, OutOfScope> {
    match attachment {
        Attachment::Targets(targets) => {
            let root = namespace.is_none_or(|namespace| namespace == root);
            let hit = targets
                .iter()
                .any(|target| is_target(target, namespace, workload, root));
            if hit {
                Ok(Level::Workload)
            } else {
                Err(OutOfScope::OtherTarget)
            }
        }
        _ if matches!(workload.role, Role::Waypoint(..)) => Err(OutOfScope::WaypointNeedsTarget),
        _ => by_selector(namespace, attachment, workload, root),
    }
}

fn by_selector(
    namespace: Option<&str>,
    attachment: &Attachment,
    workload: &Workload,
    root: &str,
) -> Result<Level, OutOfScope> {
    let everywhere = namespace.is_none_or(|namespace| namespace == root);
    if !everywhere && namespace != Some(workload.namespace.as_str()) {
        return Err(OutOfScope::OtherNamespace);
    }
    match attachment {
        Attachment::Everything if everywhere => Ok(Level::Mesh),
        Attachment::Everything => Ok(Level::Namespace),
        Attachment::Labels(labels) => {
            let mut labels = labels.iter();
            if labels.all(|(name, value)| workload.labels.get(name) == Some(value)) {
                Ok(Level::Workload)
            } else {
                Err(OutOfScope::OtherLabels)
            }
        }
        Attachment::Targets(_) => Err(OutOfScope::OtherTarget),
    }
}

/// The level on which a PeerAuthentication concerns the workload, however it is reached.
///
/// # Errors
/// [`OutOfScope`] if it does not.
pub fn peer_level(
    namespace: Option<&str>,
    attachment: &Attachment,
    workload: &Workload,
    root: &str,
) -> Result<Level, OutOfScope> {
    if matches!(attachment, Attachment::Labels(_)) && namespace == Some(root) {
        return Err(OutOfScope::RootSelector);
    }
    by_selector(namespace, attachment, workload, root)
}

fn is_target(target: &TargetRef, namespace: Option<&str>, workload: &Workload, root: bool) -> bool {
    let own = namespace.is_none_or(|namespace| namespace == workload.namespace);
    match (&workload.role, target.kind) {
        (Role::Gateway(name) | Role::Waypoint(name, _), TargetKind::Gateway) => own && target.name == *name,
        (Role::Waypoint(..), TargetKind::GatewayClass) => root && target.name == WAYPOINT_CLASS,
        (Role::Waypoint(_, services), kind) => services.iter().any(|service| {
            service.kind == kind
                && service.name == target.name
                && namespace.is_none_or(|namespace| namespace == service.namespace)
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(role: Role) -> Workload {
        Workload {
            namespace: "shop".to_owned(),
            labels: BTreeMap::from([
                ("app".to_owned(), "cart".to_owned()),
                ("tier".to_owned(), "x".to_owned()),
            ]),
            role,
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> Attachment {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Attachment::Labels(pairs.iter().map(pair).collect())
    }

    fn target(kind: TargetKind, name: &str) -> Attachment {
        Attachment::Targets(vec![TargetRef {
            kind,
            name: name.to_owned(),
        }])
    }

    #[test]
    fn namespace_and_labels_decide_for_a_sidecar() {
        let all = Attachment::Everything;
        for (namespace, attachment, expected) in [
            ("root", all.clone(), Ok(Level::Mesh)),
            ("shop", all.clone(), Ok(Level::Namespace)),
            ("bank", all, Err(OutOfScope::OtherNamespace)),
            ("root", labels(&[("app", "cart")]), Ok(Level::Workload)),
            (
                "shop",
                labels(&[("app", "cart"), ("tier", "x")]),
                Ok(Level::Workload),
            ),
            (
                "shop",
                labels(&[("app", "cart"), ("tier", "y")]),
                Err(OutOfScope::OtherLabels),
            ),
            ("shop", labels(&[("none", "")]), Err(OutOfScope::OtherLabels)),
            (
                "bank",
                labels(&[("app", "cart")]),
                Err(OutOfScope::OtherNamespace),
            ),
            (
                "shop",
                target(TargetKind::Service, "cart"),
                Err(OutOfScope::OtherTarget),
            ),
            (
                "shop",
                target(TargetKind::Gateway, "cart"),
                Err(OutOfScope::OtherTarget),
            ),
        ] {
            let found = level(Some(namespace), &attachment, &workload(Role::Sidecar), "root");
            assert_eq!(found, expected, "{namespace} {attachment:?}");
        }
    }

    #[test]
    fn mutual_tls_is_demanded_of_waypoints_as_of_all_others() {
        let waypoint = workload(Role::Waypoint("wp".to_owned(), Vec::new()));
        let found =
            |namespace, attachment: &Attachment| peer_level(Some(namespace), attachment, &waypoint, "root");
        assert_eq!(found("root", &Attachment::Everything), Ok(Level::Mesh));
        assert_eq!(found("shop", &labels(&[("app", "cart")])), Ok(Level::Workload));
        assert_eq!(
            found("root", &labels(&[("app", "cart")])),
            Err(OutOfScope::RootSelector)
        );
    }

    #[test]
    fn an_unknown_namespace_reaches_every_workload() {
        let found = level(None, &Attachment::Everything, &workload(Role::Sidecar), "root");
        assert_eq!(found, Ok(Level::Mesh));
    }

    #[test]
    fn a_gateway_heeds_its_name_and_selectors_too() {
        let gateway = workload(Role::Gateway("front".to_owned()));
        let named = |namespace, name| {
            level(
                Some(namespace),
                &target(TargetKind::Gateway, name),
                &gateway,
                "root",
            )
        };
        assert_eq!(named("shop", "front"), Ok(Level::Workload));
        assert_eq!(named("shop", "back"), Err(OutOfScope::OtherTarget));
        assert_eq!(named("root", "front"), Err(OutOfScope::OtherTarget));
        assert_eq!(
            level(Some("shop"), &labels(&[("app", "cart")]), &gateway, "root"),
            Ok(Level::Workload)
        );
    }

    #[test]
    fn a_waypoint_heeds_only_what_names_it_its_class_or_its_services() {
        let service = |kind, name: &str| Service {
            kind,
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        };
        let services = vec![
            service(TargetKind::Service, "cart"),
            service(TargetKind::ServiceEntry, "ext"),
        ];
        let waypoint = workload(Role::Waypoint("wp".to_owned(), services));
        let found =
            |namespace, attachment: &Attachment| level(Some(namespace), attachment, &waypoint, "root");
        for (namespace, kind, name, hit) in [
            ("shop", TargetKind::Service, "cart", true),
            ("shop", TargetKind::ServiceEntry, "ext", true),
            ("shop", TargetKind::ServiceEntry, "cart", false),
            ("bank", TargetKind::Service, "cart", false),
            ("shop", TargetKind::Gateway, "wp", true),
            ("bank", TargetKind::Gateway, "wp", false),
            ("root", TargetKind::GatewayClass, "istio-waypoint", true),
            ("shop", TargetKind::GatewayClass, "istio-waypoint", false),
            ("root", TargetKind::GatewayClass, "istio", false),
        ] {
            assert_eq!(
                found(namespace, &target(kind, name)).is_ok(),
                hit,
                "{namespace} {kind:?} {name}"
            );
        }
        for attachment in [Attachment::Everything, labels(&[("app", "cart")])] {
            assert_eq!(found("shop", &attachment), Err(OutOfScope::WaypointNeedsTarget));
        }
    }
}
