//! The table of kinds the server knows. A new kind is a new row; nothing else names kinds one by one.

/// One stored kind of object.
#[derive(Debug)]
pub(crate) struct Kind {
    /// API group, empty for the core group.
    pub(crate) group: &'static str,
    /// Versions served, the preferred one first. All show the same stored object.
    pub(crate) versions: &'static [&'static str],
    /// The name in paths.
    pub(crate) plural: &'static str,
    /// The kind in objects.
    pub(crate) kind: &'static str,
    /// What `kubectl` accepts as an abbreviation.
    pub(crate) short: &'static [&'static str],
    /// Whether its objects live in a namespace.
    pub(crate) namespaced: bool,
    /// How its objects behave where Kubernetes' kinds differ.
    pub(crate) traits: Traits,
    /// Field selectors beyond `metadata.name` and `metadata.namespace`.
    pub(crate) fields: &'static [&'static str],
}

/// Behaviour in which Kubernetes' kinds differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traits {
    /// Has a `status` subresource.
    pub(crate) status: bool,
    /// An update without a resource version overwrites.
    pub(crate) unconditional_update: bool,
    /// `metadata.generation` counts changes of `spec`.
    pub(crate) generation: bool,
}

const PLAIN: Traits = Traits {
    status: false,
    unconditional_update: true,
    generation: false,
};
const WITH_STATUS: Traits = Traits {
    status: true,
    ..PLAIN
};
const VERSIONED: Traits = Traits {
    unconditional_update: false,
    ..PLAIN
};
/// What a CustomResourceDefinition gives its objects.
const CUSTOM: Traits = Traits {
    status: true,
    unconditional_update: false,
    generation: true,
};

const fn core(plural: &'static str, kind: &'static str, short: &'static [&'static str]) -> Kind {
    Kind {
        group: "",
        versions: &["v1"],
        plural,
        kind,
        short,
        namespaced: true,
        traits: PLAIN,
        fields: &[],
    }
}

const fn istio(plural: &'static str, kind: &'static str, short: &'static [&'static str]) -> Kind {
    let group = "security.istio.io";
    let versions = &["v1", "v1beta1"];
    Kind {
        group,
        versions,
        traits: CUSTOM,
        ..core(plural, kind, short)
    }
}

/// Fields events can be selected by.
const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "reason",
    "type",
];

/// Every stored kind.
pub(crate) static KINDS: &[Kind] = &[
    Kind {
        namespaced: false,
        traits: WITH_STATUS,
        fields: &["status.phase"],
        ..core("namespaces", "Namespace", &["ns"])
    },
    Kind {
        namespaced: false,
        traits: WITH_STATUS,
        ..core("nodes", "Node", &["no"])
    },
    Kind {
        traits: WITH_STATUS,
        fields: &["spec.nodeName", "spec.serviceAccountName", "status.phase"],
        ..core("pods", "Pod", &["po"])
    },
    core("serviceaccounts", "ServiceAccount", &["sa"]),
    Kind {
        traits: WITH_STATUS,
        ..core("services", "Service", &["svc"])
    },
    Kind {
        fields: &["type"],
        ..core("secrets", "Secret", &[])
    },
    core("configmaps", "ConfigMap", &["cm"]),
    Kind {
        fields: EVENT_FIELDS,
        ..core("events", "Event", &["ev"])
    },
    Kind {
        group: "events.k8s.io",
        ..core("events", "Event", &["ev"])
    },
    Kind {
        group: "coordination.k8s.io",
        traits: VERSIONED,
        ..core("leases", "Lease", &[])
    },
    istio("peerauthentications", "PeerAuthentication", &["pa"]),
    istio("authorizationpolicies", "AuthorizationPolicy", &["ap"]),
    istio("requestauthentications", "RequestAuthentication", &["ra"]),
];

/// A kind that is answered and never stored: (group, version, plural, kind). It has only `create`.
pub(crate) type Review = (&'static str, &'static str, &'static str, &'static str);

/// Whose a token is.
pub(crate) const TOKEN_REVIEW: Review = ("authentication.k8s.io", "v1", "tokenreviews", "TokenReview");
/// Who the caller is (`kubectl auth whoami`).
pub(crate) const SELF_REVIEW: Review = (
    "authentication.k8s.io",
    "v1",
    "selfsubjectreviews",
    "SelfSubjectReview",
);
/// What the caller may do (`kubectl auth can-i`).
pub(crate) const ACCESS_REVIEW: Review = (
    "authorization.k8s.io",
    "v1",
    "selfsubjectaccessreviews",
    "SelfSubjectAccessReview",
);

/// Every kind that is answered and never stored.
pub(crate) static REVIEWS: &[Review] = &[TOKEN_REVIEW, SELF_REVIEW, ACCESS_REVIEW];

impl Kind {
    /// `leases.coordination.k8s.io`, or `pods` in the core group: how refusals name a resource.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `apiVersion` of this kind in one of its versions.
    pub(crate) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        }
    }

    /// The version objects are stored and preferred in.
    pub(crate) fn preferred_version(&self) -> &'static str {
        self.versions.first().copied().unwrap_or("v1")
    }

    /// The served version of that name.
    pub(crate) fn served(&self, version: &str) -> Option<&'static str> {
        self.versions.iter().find(|served| **served == version).copied()
    }
}

/// The stored kind behind a path.
pub(crate) fn by_plural(group: &str, plural: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|kind| kind.group == group && kind.plural == plural)
}

/// The stored kind an object with this `apiVersion` and `kind` belongs to.
pub(crate) fn by_type(api_version: &str, name: &str) -> Option<&'static Kind> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    KINDS
        .iter()
        .find(|kind| kind.group == group && kind.kind == name && kind.served(version).is_some())
}
