//! Pods as the API server tells of them, read for six fields and no more: a whole pod is ten thousand
//! bytes, of which the node rule needs two hundred.

use kube::core::params::{ListParams, WatchParams};
use kube::core::request::Request;
use serde::Deserialize;
use signet_policy::PodFacts;

use crate::pod_index::LivePod;

/// Pods that count: on a node, and neither Succeeded nor Failed.
const LIVE: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";
/// Pods per page of a listing, as kubectl asks for them.
const PAGE: u32 = 500;
/// The API server ends a watch after this many seconds; below the five minutes for which a silent
/// watch is believed.
pub(crate) const WATCH_SECONDS: u32 = 240;

/// Most characters of the API server's words that are kept; a proxy before it may answer with a page.
const MOST_WORDS: usize = 256;

/// One pod, cut down.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pod {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
    service_account_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
}

/// A page of a listing.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    /// The pods.
    #[serde(default)]
    pub(crate) items: Vec<Pod>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PageMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

impl Pod {
    pub(crate) fn uid(&self) -> &str {
        &self.metadata.uid
    }

    pub(crate) fn version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// Whether it is the pod of this name.
    pub(crate) fn is(&self, namespace: &str, name: &str) -> bool {
        self.metadata.namespace == namespace && self.metadata.name == name
    }

    fn ended(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// What the index keeps of it, if it counts. The selector has asked for no others; it is not
    /// relied upon.
    pub(crate) fn live(&self) -> Option<LivePod<'_>> {
        let complete = [
            &self.metadata.uid,
            &self.metadata.namespace,
            &self.spec.node_name,
            &self.spec.service_account_name,
        ];
        let counts = !self.ended() && complete.iter().all(|text| !text.is_empty());
        counts.then_some(LivePod {
            namespace: &self.metadata.namespace,
            account: &self.spec.service_account_name,
            node: &self.spec.node_name,
        })
    }

    /// What the node rule is told of it.
    pub(crate) fn into_facts(self) -> PodFacts {
        PodFacts {
            ended: self.ended(),
            uid: self.metadata.uid,
            account: self.spec.service_account_name,
            node: Some(self.spec.node_name).filter(|node| !node.is_empty()),
        }
    }
}

impl Page {
    /// The version a watch goes on from.
    pub(crate) fn version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// What to ask for the next page with, if there is one.
    pub(crate) fn next(&self) -> Option<&str> {
        Some(self.metadata.next.as_str()).filter(|next| !next.is_empty())
    }
}

/// A request ready to be sent.
type Ready = Result<http::Request<Vec<u8>>, kube::core::request::Error>;

/// The page of all live pods that `next` leads to; the first one without.
pub(crate) fn page_request(next: Option<&str>) -> Ready {
    let mut params = ListParams::default().fields(LIVE).limit(PAGE);
    if let Some(next) = next {
        params = params.continue_token(next);
    }
    Request::new("/api/v1/pods").list(&params)
}

/// A watch of all live pods from `version` on.
pub(crate) fn watch_request(version: &str) -> Ready {
    let params = WatchParams::default().fields(LIVE).timeout(WATCH_SECONDS);
    Request::new("/api/v1/pods").watch(&params, version)
}

/// The pod of this name, in any phase. A list, so that no right to get pods is needed.
pub(crate) fn named_request(namespace: &str, name: &str) -> Ready {
    let params = ListParams::default()
        .fields(&format!("metadata.name={name}"))
        .limit(1);
    in_namespace(namespace).list(&params)
}

/// One live pod of this account on this node.
pub(crate) fn running_request(node: &str, namespace: &str, account: &str) -> Ready {
    let fields = format!("spec.nodeName={node},spec.serviceAccountName={account},{LIVE}");
    let params = ListParams::default().fields(&fields).limit(1);
    in_namespace(namespace).list(&params)
}

fn in_namespace(namespace: &str) -> Request {
    Request::new(format!("/api/v1/namespaces/{namespace}/pods"))
}

/// Whether a name is of the alphabet Kubernetes gives pods and nodes, and so may stand in a selector.
pub(crate) fn selectable(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    !name.is_empty() && name.len() <= 253 && name.bytes().all(legal)
}

/// What went wrong, in the API server's own words where it has some.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            let said: String = status.message.chars().take(MOST_WORDS).collect();
            format!("{} {said}", status.code)
        }
        kube::Error::HyperError(_) | kube::Error::Service(_) => "the API server cannot be reached".into(),
        kube::Error::Auth(_) => "the CA's own credentials for the API server cannot be read".into(),
        kube::Error::SerdeError(_) => "the API server's answer is not about pods".into(),
        _ => "the API server's answer cannot be used".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(phase: &str, node: Option<&str>) -> Pod {
        let pod = json!({
            "kind": "Pod",
            "metadata": {"name": "cart-0", "namespace": "shop", "uid": "u1", "labels": {"a": "b"}},
            "spec": {"nodeName": node.unwrap_or_default(), "serviceAccountName": "cart", "containers": []},
            "status": {"phase": phase, "podIP": "10.0.0.1"},
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_pod_counts_while_it_is_on_a_node_and_has_not_ended() {
        for phase in ["Pending", "Running", "Unknown", ""] {
            let live = pod(phase, Some("n1"));
            let live = live.live().unwrap();
            assert_eq!((live.namespace, live.account, live.node), ("shop", "cart", "n1"));
        }
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(pod(phase, Some("n1")).live(), None);
            assert!(pod(phase, Some("n1")).into_facts().ended);
        }
        assert_eq!(pod("Pending", None).live(), None);
        assert_eq!(pod("Pending", None).into_facts().node, None);
        assert_eq!(Pod::default().live(), None);
    }

    #[test]
    fn lookups_name_what_they_ask_for_and_nothing_else() {
        let running = running_request("n1", "shop", "cart").unwrap();
        let path = running.uri().to_string();
        assert!(path.starts_with("/api/v1/namespaces/shop/pods?"), "{path}");
        for part in ["spec.nodeName%3Dn1", "spec.serviceAccountName%3Dcart", "limit=1"] {
            assert!(path.contains(part), "{part} is missing in {path}");
        }
        let names = ["a,b=c", "a b", "A", "", "a/../b"];
        assert!(names.iter().all(|name| !selectable(name)));
        assert!(selectable("ip-10-0-0-1.ec2.internal"));
    }
}
