//! The in-memory cluster with the workloads of a test.

use std::path::PathBuf;

use serde_json::{Value, json};
use signet_devcluster::{DevCluster, ObjectRef, Options, PodSpec, TokenSpec};

use crate::dir::Dir;

/// The audience of our CA.
pub const AUDIENCE: &str = "signet-ca";

/// A cluster that ends with the test.
#[derive(Debug)]
pub struct Cluster {
    /// The cluster itself.
    pub api: DevCluster,
    dir: Dir,
}

impl Cluster {
    /// Starts one on the current runtime.
    #[must_use]
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    /// As [`Cluster::start`], with options.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn with(options: Options) -> Self {
        crate::init();
        let api = DevCluster::start(options).expect("cluster");
        let dir = Dir::new();
        api.write_kubeconfig(dir.join("kubeconfig")).expect("kubeconfig");
        Self { api, dir }
    }

    /// The admin's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// A running pod `{account}-0` of this account; whatever is missing for it is made.
    ///
    /// # Panics
    /// When the cluster refuses.
    pub fn workload(&self, namespace: &str, account: &str) {
        if self.get("namespaces", "", namespace).is_none() {
            self.api.create_namespace(namespace).expect("namespace");
        }
        if self.get("serviceaccounts", namespace, account).is_none() {
            self.api
                .create_service_account(namespace, account)
                .expect("service account");
        }
        let pod = format!("{account}-0");
        if self.get("pods", namespace, &pod).is_none() {
            let spec = PodSpec::new(namespace, pod)
                .service_account(account)
                .node("node-1");
            self.api.create_pod(spec).expect("pod");
        }
    }

    /// An hour's token of this account's pod for our CA; the workload is made if missing.
    #[must_use]
    pub fn token(&self, namespace: &str, account: &str) -> String {
        self.workload(namespace, account);
        self.mint(
            &TokenSpec::new(namespace, account)
                .audience(AUDIENCE)
                .pod(format!("{account}-0")),
        )
    }

    /// A token as described.
    ///
    /// # Panics
    /// When the cluster refuses.
    #[must_use]
    pub fn mint(&self, spec: &TokenSpec) -> String {
        self.api.mint_token(spec).expect("token")
    }

    /// An object of the core group as stored.
    #[must_use]
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.api.get(&ObjectRef::core(resource, namespace, name))
    }

    /// The roots published in a namespace, if any.
    #[must_use]
    pub fn published(&self, namespace: &str) -> Option<String> {
        let map = self.get("configmaps", namespace, "signet-ca-root-cert")?;
        Some(map["data"]["root-cert.pem"].as_str()?.to_owned())
    }

    /// Creates or replaces a ConfigMap with this data and these annotations.
    ///
    /// # Panics
    /// When the cluster refuses.
    pub fn put_configmap(
        &self,
        namespace: &str,
        name: &str,
        data: &Value,
        annotations: &Value,
        labels: &Value,
    ) {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": {"namespace": namespace, "name": name, "annotations": annotations, "labels": labels},
        });
        self.api.put(map).expect("configmap");
    }
}
