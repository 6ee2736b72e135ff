//! What service accounts may do: a list of rules per account, as small as role-based access can be.

/// A service account by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Account {
    /// The account `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Account {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// `system:serviceaccount:<namespace>:<name>`, the name of the account as a user.
    pub fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

/// One thing an account may do. `*` stands for every verb, group or resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection` or `*`.
    pub verb: String,
    /// API group, empty for the core group.
    pub group: String,
    /// Plural name, with the subresource behind a slash where one is meant (`serviceaccounts/token`).
    pub resource: String,
    /// The one namespace this holds in; `None` means every namespace and the cluster scope.
    pub namespace: Option<String>,
}

/// Everything one account may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    rules: Vec<Rule>,
}

impl Grants {
    /// Nothing but what every account may: discovery and the questions about itself.
    pub fn none() -> Self {
        Grants::default()
    }

    /// Everything, as `cluster-admin`.
    pub fn allow_everything() -> Self {
        Grants::none().allow(["*"], "*", ["*"])
    }

    /// Adds `verbs` on `resources` of `group` in every namespace and at the cluster scope.
    #[must_use]
    pub fn allow<const V: usize, const R: usize>(
        self,
        verbs: [&str; V],
        group: &str,
        resources: [&str; R],
    ) -> Self {
        self.with(&verbs, group, &resources, None)
    }

    /// Adds `verbs` on `resources` of `group` in one namespace.
    #[must_use]
    pub fn allow_in<const V: usize, const R: usize>(
        self,
        namespace: &str,
        verbs: [&str; V],
        group: &str,
        resources: [&str; R],
    ) -> Self {
        self.with(&verbs, group, &resources, Some(namespace))
    }

    /// Adds one rule.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    fn with(mut self, verbs: &[&str], group: &str, resources: &[&str], namespace: Option<&str>) -> Self {
        for verb in verbs {
            for resource in resources {
                let (verb, resource) = ((*verb).to_owned(), (*resource).to_owned());
                let namespace = namespace.map(str::to_owned);
                self.rules.push(Rule {
                    verb,
                    group: group.to_owned(),
                    resource,
                    namespace,
                });
            }
        }
        self
    }

    /// Whether any rule allows the request.
    pub(crate) fn permit(&self, verb: &str, group: &str, resource: &str, namespace: Option<&str>) -> bool {
        let is = |pattern: &str, word: &str| pattern == "*" || pattern == word;
        self.rules.iter().any(|rule| {
            is(&rule.verb, verb)
                && is(&rule.group, group)
                && is(&rule.resource, resource)
                && rule
                    .namespace
                    .as_deref()
                    .is_none_or(|only| namespace == Some(only))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_hold_where_they_say() {
        let grants = Grants::none()
            .allow(["create"], "authentication.k8s.io", ["tokenreviews"])
            .allow_in("billing", ["get", "list"], "", ["pods"]);
        assert!(grants.permit("create", "authentication.k8s.io", "tokenreviews", None));
        assert!(grants.permit("list", "", "pods", Some("billing")));
        assert!(!grants.permit("list", "", "pods", None));
        assert!(!grants.permit("list", "", "pods", Some("shop")));
        assert!(!grants.permit("delete", "", "pods", Some("billing")));
        assert!(Grants::allow_everything().permit("delete", "", "nodes", None));
    }
}
