//! A checked configuration, as a file that says the same.

use std::time::Duration;

use signet_runtime::config::HumanDuration;
use signet_runtime::logs::LogFormat;

use super::{Config, Raw, StateAt};

impl Config {
    /// The configuration in force as YAML, defaults included. It holds no secrets.
    #[must_use]
    pub fn print(&self) -> String {
        let human = |d: Duration| Some(HumanDuration(d));
        let (directory, secret) = match &self.state {
            StateAt::Directory(path) => (Some(path.clone()), None),
            StateAt::Secret { namespace, name } => (None, Some(format!("{namespace}/{name}"))),
        };
        let trust = self.trust.raw();
        let raw = Raw {
            trust_domain: Some(self.trust_domain.to_string()),
            service_account: Some(self.account.to_string()),
            listen: Some(self.endpoints.grpc.to_string()),
            metrics_listen: Some(self.endpoints.metrics.to_string()),
            admin_socket: Some(self.endpoints.admin.clone()),
            serving_names: Some(self.endpoints.names.clone()),
            audiences: Some(self.audiences.clone()),
            istio_compatibility: Some(self.publishing.configmaps.len() > 1),
            trusted_node_accounts: Some(self.node_accounts.iter().map(ToString::to_string).collect()),
            kubeconfig: self.kubeconfig.clone(),
            state_directory: directory,
            state_secret: secret,
            plugged_in_ca: self.plugged_in.clone(),
            svid_ttl: human(self.lifetimes.svid.default),
            max_svid_ttl: human(self.lifetimes.svid.max),
            min_svid_ttl: human(self.lifetimes.svid.min),
            issuing_life: human(self.lifetimes.issuing),
            root_life: human(self.lifetimes.root),
            bundle_refresh_hint: human(self.lifetimes.refresh_hint),
            roots_configmap: self.publishing.configmaps.first().cloned(),
            publish_roots: Some(self.publishing.enabled),
            extra_dns_names: Some(
                self.extra_dns
                    .iter()
                    .map(|(a, n)| (a.to_string(), n.clone()))
                    .collect(),
            ),
            review_timeout: human(self.limits.review_timeout),
            reviews_in_flight: Some(self.limits.reviews),
            requests_in_flight: Some(self.limits.requests),
            connections: Some(self.limits.connections),
            connections_per_address: Some(self.limits.connections_per_address),
            connection_age: human(self.limits.connection_age),
            log_format: Some(
                if self.logs.0 == LogFormat::Json {
                    "json"
                } else {
                    "text"
                }
                .into(),
            ),
            log_filter: Some(self.logs.1.clone()),
            drain: human(self.drain),
            jwt_svid: trust.jwt_svid,
            oidc_listen: trust.oidc_listen,
            bundle_endpoint: trust.bundle_endpoint,
            federation: trust.federation,
        };
        let mut value = serde_json::to_value(raw).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.retain(|_, v| !v.is_null());
        }
        signet_runtime::config::to_yaml(&value)
    }
}
