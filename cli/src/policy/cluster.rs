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

/// The group of the policies.
const GROUP: &str = "security.istio.io";
/// Its versions that say the same, the newest first.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// The policies: what their listings are called, and their kinds.
const POLICIES: [(&str, &str); 3] = [
    ("authorizationpolicies", "AuthorizationPolicy"),
    ("peerauthentications", "PeerAuthentication"),
    ("requestauthentications", "RequestAuthentication"),
];
/// What stands around them.
const AROUND: [(&str, &str); 3] = [
    ("namespaces", "Namespace"),
    ("pods", "Pod"),
    ("services", "Service"),
];

/// What a cluster holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) objects: Vec<Object>,
    /// Kinds of policies that it does not have.
    pub(super) missing: Vec<&'static str>,
}

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

#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
}

/// Every policy, namespace, pod and service. A kind that the cluster does not have is none of it; all three
/// kinds of policies missing is an answer of its own.
pub(super) async fn objects(kubeconfig: &Path) -> Result<Held, Fault> {
    let client = client(Some(kubeconfig)).await?;
    let mut held = Held::default();
    for (plural, kind) in POLICIES {
        if !held.policies(&client, plural, kind).await? {
            held.missing.push(kind);
        }
    }
    if held.missing.len() == POLICIES.len() {
        return Err(Fault::Unanswered(none(&groups(&client).await?)));
    }
    for (plural, kind) in AROUND {
        let path = format!("/api/v1/{plural}");
        let items = list(&client, &path).await?;
        held.take(&path, ("v1", kind), items.unwrap_or_default());
    }
    Ok(held)
}

impl Held {
    /// Whether the cluster has the kind in a version that is read.
    async fn policies(
        &mut self,
        client: &kube::Client,
        plural: &str,
        kind: &'static str,
    ) -> Result<bool, Fault> {
        for version in VERSIONS {
            let path = format!("/apis/{GROUP}/{version}/{plural}");
            if let Some(items) = list(client, &path).await? {
                self.take(&path, (&format!("{GROUP}/{version}"), kind), items);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take(&mut self, path: &str, (version, kind): (&str, &str), items: Vec<Value>) {
        self.objects.extend(items.into_iter().map(|mut value| {
            // Items of a listing need not repeat what the listing says.
            if let Value::Object(fields) = &mut value {
                fields.entry("apiVersion").or_insert_with(|| version.into());
                fields.entry("kind").or_insert_with(|| kind.into());
            }
            let origin = format!("cluster:{path}");
            Object { origin, value }
        }));
    }
}

/// What to do about a cluster without policies. CRDs of ours do not belong beside those of an Istio.
fn none(istio: &[String]) -> String {
    let said = format!("the cluster has none of the kinds of {GROUP} in v1 or v1beta1");
    match istio {
        [] => format!("{said}; apply deploy/crds first"),
        some => format!(
            "{said}, but it has {} of Istio: bring Istio's own CRDs up to date (those of its base chart); deploy/crds is \
             for clusters without Istio",
            some.join(", ")
        ),
    }
}

/// The groups of Istio that the cluster has.
async fn groups(client: &kube::Client) -> Result<Vec<String>, Fault> {
    let request = Request::get("/apis")
        .body(Vec::new())
        .map_err(Fault::unanswered)?;
    let all: Groups = ask("list /apis", client.request(request)).await?;
    let names = all.groups.into_iter().map(|group| group.name);
    Ok(names.filter(|name| name.ends_with(".istio.io")).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crds_of_ours_are_never_advised_beside_an_istio() {
        assert!(none(&[]).contains("apply deploy/crds"));
        let beside = none(&["networking.istio.io".to_owned()]);
        assert!(
            !beside.contains("apply deploy/crds") && beside.contains("networking.istio.io"),
            "{beside}"
        );
    }
}
