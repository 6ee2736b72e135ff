//! The pods of a namespace, those with a proxy and those without.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use crate::args::PodArgs;
use crate::fault::Fault;
use crate::kubernetes::{ask, client};

/// Pods of one page of a listing.
const PAGE: u32 = 500;
/// Most pages of it.
const MAX_PAGES: usize = 200;

/// A pod with a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxied {
    /// Its name.
    pub(super) name: String,
    /// Why it need not be asked: it does not run.
    pub(super) absent: Option<String>,
}

/// The pods of `namespace` that have not ended: those with a proxy, and the names of the others.
pub(super) async fn of(namespace: &str, args: &PodArgs) -> Result<(Vec<Proxied>, Vec<String>), Fault> {
    let client = client(args.kubeconfig.as_deref()).await?;
    let api: Api<Pod> = Api::namespaced(client, namespace);
    let what = format!("list pods of {namespace}");
    let mut params = ListParams::default().limit(PAGE);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..MAX_PAGES {
        let page = ask(&what, api.list(&params)).await?;
        for pod in &page.items {
            match sorted(pod, &args.container) {
                Some(Ok(proxied)) => with.push(proxied),
                Some(Err(name)) => without.push(name),
                None => {}
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok((with, without)),
        }
    }
    Err(Fault::Unanswered(format!("{what}: more than {MAX_PAGES} pages")))
}

/// A pod with a proxy, or the name of one without; nothing for one that has ended.
fn sorted(pod: &Pod, container: &str) -> Option<Result<Proxied, String>> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let spec = pod.spec.as_ref();
    // A sidecar of Kubernetes' own kind is an init container that goes on.
    let containers = spec.into_iter().flat_map(|spec| {
        let inits = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(inits)
    });
    let mut names = containers.map(|one| one.name.as_str());
    Some(if names.any(|one| one == container) {
        let absent = (phase != Some("Running"))
            .then(|| format!("the pod does not run yet ({})", phase.unwrap_or("no phase")));
        Ok(Proxied { name, absent })
    } else {
        Err(name)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(phase: &str, containers: &[&str], inits: &[&str]) -> Pod {
        let named =
            |names: &[&str]| -> Vec<Value> { names.iter().map(|name| json!({"name": name})).collect() };
        let pod = json!({
            "metadata": {"name": "p"}, "status": {"phase": phase},
            "spec": {"containers": named(containers), "initContainers": named(inits)},
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn pods_are_told_apart_by_their_containers_and_those_that_ended_left_out() {
        let sorted = |pod: Pod| sorted(&pod, "signet-proxy");
        let running = |absent: Option<&str>| {
            let absent = absent.map(str::to_owned);
            let name = "p".to_owned();
            Some(Ok(Proxied { name, absent }))
        };
        assert_eq!(
            sorted(pod("Running", &["app", "signet-proxy"], &[])),
            running(None)
        );
        assert_eq!(sorted(pod("Running", &["app"], &["signet-proxy"])), running(None));
        assert_eq!(
            sorted(pod("Pending", &["signet-proxy"], &[])),
            running(Some("the pod does not run yet (Pending)"))
        );
        assert_eq!(sorted(pod("Running", &["app"], &[])), Some(Err("p".to_owned())));
        assert_eq!(sorted(pod("Succeeded", &["signet-proxy"], &[])), None);
    }
}
