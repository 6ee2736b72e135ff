//! What a request path names. Pure: a path in, a [`Route`] out; whether a named resource exists is asked later.

use crate::query::percent_decode;

/// What a path names.
#[derive(Debug, PartialEq)]
pub(crate) enum Route {
    /// `/healthz`, `/livez`, `/readyz` and what is below them.
    Health,
    /// `/version`.
    Version,
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/<group>`.
    Group(String),
    /// `/api/v1` or `/apis/<group>/<version>`.
    Resources { group: String, version: String },
    /// A collection, an object or a subresource.
    Resource(ResourcePath),
    /// `/openid/v1/jwks`.
    Jwks,
    /// `/.well-known/openid-configuration`.
    OpenId,
    /// `/openapi/v2`.
    Schemas,
    /// Anything else.
    Unknown,
}

/// The parts of a resource path, as they stand there.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) resource: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

impl Route {
    /// Reads a path.
    pub(crate) fn parse(path: &str) -> Route {
        let segments: Vec<String> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(percent_decode)
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["healthz" | "livez" | "readyz", ..] => Route::Health,
            ["version"] => Route::Version,
            ["openid", "v1", "jwks"] => Route::Jwks,
            [".well-known", "openid-configuration"] => Route::OpenId,
            ["openapi", "v2"] => Route::Schemas,
            ["api"] => Route::CoreVersions,
            ["apis"] => Route::Groups,
            ["apis", group] => Route::Group((*group).to_owned()),
            ["api", version, rest @ ..] => resources("", version, rest),
            ["apis", group, version, rest @ ..] => resources(group, version, rest),
            _ => Route::Unknown,
        }
    }
}

fn resources(group: &str, version: &str, rest: &[&str]) -> Route {
    let (group, version) = (group.to_owned(), version.to_owned());
    let (namespace, rest) = match rest {
        [] => return Route::Resources { group, version },
        // Of a namespace itself only these two exist below it; any other word there is a collection inside it.
        ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, inside @ ..] if !inside.is_empty() => {
            (Some((*namespace).to_owned()), inside)
        }
        _ => (None, rest),
    };
    let (resource, name, subresource) = match rest {
        [resource] => (resource, None, None),
        [resource, name] => (resource, Some(name), None),
        [resource, name, subresource] => (resource, Some(name), Some(subresource)),
        _ => return Route::Unknown,
    };
    let owned = |part: &&str| (*part).to_owned();
    Route::Resource(ResourcePath {
        group,
        version,
        namespace,
        resource: owned(resource),
        name: name.map(owned),
        subresource: subresource.map(owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> ResourcePath {
        let Route::Resource(path) = Route::parse(path) else {
            panic!("{path} is a resource")
        };
        path
    }

    #[test]
    fn namespaces_are_objects_and_containers() {
        let object = resource("/api/v1/namespaces/billing");
        assert_eq!(
            (object.namespace, object.name.as_deref()),
            (None, Some("billing"))
        );
        let status = resource("/api/v1/namespaces/billing/status");
        assert_eq!(
            (status.resource.as_str(), status.subresource.as_deref()),
            ("namespaces", Some("status"))
        );
        let pods = resource("/api/v1/namespaces/billing/pods");
        assert_eq!(
            (pods.namespace.as_deref(), pods.resource.as_str()),
            (Some("billing"), "pods")
        );
    }

    #[test]
    fn subresources_and_groups_are_told_apart() {
        let token = resource("/api/v1/namespaces/a/serviceaccounts/b/token");
        assert_eq!(token.subresource.as_deref(), Some("token"));
        let leases = resource("/apis/coordination.k8s.io/v1/leases");
        assert_eq!(
            (leases.group.as_str(), leases.version.as_str()),
            ("coordination.k8s.io", "v1")
        );
        assert_eq!(Route::parse("/apis/a.b/v1").clone_group(), Some(("a.b", "v1")));
        assert_eq!(Route::parse("/api/v1/a/b/c/d"), Route::Unknown);
        assert_eq!(Route::parse("/readyz/ping"), Route::Health);
    }

    impl Route {
        fn clone_group(&self) -> Option<(&str, &str)> {
            match self {
                Route::Resources { group, version } => Some((group, version)),
                _ => None,
            }
        }
    }
}
