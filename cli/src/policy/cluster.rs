//! Policies and the objects around them from a cluster, through a kubeconfig.

use std::path::Path;

use http::Request;
use serde::Deserialize;
use serde_json::Value;

use crate::fault::Fault;
use crate::kubernetes::{ask, client};

/// Objects of one page of a listing.
const PAGE: usize = 500;
/// Most pages of one kind.
const MAX_PAGES: usize = 200;

/// How many of the kinds below are policies.
const POLICY_KINDS: usize = 3;

/// What is listed: path, version and kind, policies first.
const KINDS: [(&str, &str, &str); 6] = [
    (
        "/apis/security.istio.io/v1/authorizationpolicies",
        "security.istio.io/v1",
        "AuthorizationPolicy",
    ),
    (
        "/apis/security.istio.io/v1/peerauthentications",
        "security.istio.io/v1",
        "PeerAuthentication",
    ),
    (
        "/apis/security.istio.io/v1/requestauthentications",
        "security.istio.io/v1",
        "RequestAuthentication",
    ),
    ("/api/v1/namespaces", "v1", "Namespace"),
    ("/api/v1/pods", "v1", "Pod"),
    ("/api/v1/services", "v1", "Service"),
];

/// An object of a cluster.
#[derive(Debug)]
pub(super) struct Object {
    /// The listing that it came from.
    pub(super) origin: String,
    /// What it says.
    pub(super) value: Value,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    items: Vec<Value>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(rename = "continue")]
    more: Option<String>,
}

/// Every policy, namespace, pod and service. A kind that the cluster does not have is none of it; all three
/// kinds of policies missing is an answer of its own.
pub(super) async fn objects(kubeconfig: &Path) -> Result<Vec<Object>, Fault> {
    let client = client(Some(kubeconfig)).await?;
    let mut objects = Vec::new();
    let mut missing = 0;
    for (path, version, kind) in KINDS {
        match list(&client, path).await? {
            Some(items) => objects.extend(items.into_iter().map(|mut value| {
                // Items of a listing need not repeat what the listing says.
                if let Value::Object(fields) = &mut value {
                    fields.entry("apiVersion").or_insert_with(|| version.into());
                    fields.entry("kind").or_insert_with(|| kind.into());
                }
                let origin = format!("cluster:{path}");
                Object { origin, value }
            })),
            None if version != "v1" => missing += 1,
            None => {}
        }
    }
    if missing == POLICY_KINDS {
        return Err(Fault::unanswered(
            "the cluster has none of the kinds of security.istio.io; apply deploy/crds first",
        ));
    }
    Ok(objects)
}

/// All objects of a kind, page by page; nothing if the cluster does not have the kind.
async fn list(client: &kube::Client, path: &str) -> Result<Option<Vec<Value>>, Fault> {
    let mut items = Vec::new();
    let mut more = String::new();
    for _ in 0..MAX_PAGES {
        let uri = format!("{path}?limit={PAGE}{more}");
        let request = Request::get(uri).body(Vec::new()).map_err(Fault::unanswered)?;
        let page = async {
            match client.request::<Page>(request).await {
                Ok(page) => Ok(Some(page)),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                Err(error) => Err(error),
            }
        };
        let Some(page) = ask(&format!("list {path}"), page).await? else {
            return Ok(None);
        };
        items.extend(page.items);
        match page.metadata.more.filter(|token| !token.is_empty()) {
            Some(token) => more = format!("&continue={}", percent_encoded(&token)),
            None => return Ok(Some(items)),
        }
    }
    let most = PAGE * MAX_PAGES;
    Err(Fault::Unanswered(format!(
        "list {path}: more than {most} objects"
    )))
}

/// Every byte that is not plainly text of a query is encoded.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
