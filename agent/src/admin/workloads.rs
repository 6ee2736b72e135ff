//! `/v1/workloads`: who uses which identity, who is connected, and how its SVID stands.

use std::collections::BTreeMap;

use serde::Serialize;
use signet_certs::lifetime::until;
use signet_certs::{ServiceAccountId, SpiffeId, UnixTime};
use signet_runtime::clock::rfc3339;

use super::view::FailureView;
use crate::attest::{Subject, Wanted};
use crate::sds::streams::StreamInfo;
use crate::svids::{Shown, Whose};

/// Who it is. The order is the order of the page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Who {
    /// Everybody admitted to the agent's own identity.
    Own,
    /// A pod of this node.
    Pod {
        namespace: String,
        pod: String,
        pod_uid: String,
    },
    /// A process that is connected.
    Process {
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
        uid: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        executable: Option<String>,
    },
    /// Nobody in particular: the identity is kept, and no process of it is connected.
    Identity,
}

/// One workload under one identity.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    #[serde(flatten)]
    who: Who,
    account: Option<String>,
    spiffe_id: Option<String>,
    state: &'static str,
    clients: BTreeMap<&'static str, usize>,
    received_at: Option<String>,
    age_seconds: Option<u64>,
    not_after: Option<String>,
    renews_at: Option<String>,
    renewals: u64,
    last_failure: Option<FailureView>,
}

type Clients = BTreeMap<&'static str, usize>;

/// The page.
pub(super) fn rows(wanted: &Wanted, streams: &[StreamInfo], shown: &[Shown], now: UnixTime) -> Vec<Row> {
    let mut seats: BTreeMap<(Who, Whose), Clients> = BTreeMap::new();
    for (id, by) in &wanted.ids {
        for pod in &by.pods {
            let who = Who::Pod {
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                pod_uid: pod.uid.clone(),
            };
            seats.entry((who, Whose::Of(id.clone()))).or_default();
        }
    }
    for stream in streams {
        for seat in seats_of(stream) {
            let clients = seats.entry(seat).or_default();
            *clients.entry(stream.kind.as_str()).or_default() += 1;
        }
    }
    for place in shown {
        if !seats.keys().any(|(_, whose)| *whose == place.whose) {
            let who = match place.whose {
                Whose::Own => Who::Own,
                Whose::Of(_) => Who::Identity,
            };
            seats.entry((who, place.whose.clone())).or_default();
        }
    }
    seats
        .into_iter()
        .map(|((who, whose), clients)| {
            let place = shown.iter().find(|place| place.whose == whose);
            let lingers = matches!(&whose, Whose::Of(id) if !wanted.ids.contains_key(id));
            row(who, (&whose, lingers), clients, place, now)
        })
        .collect()
}

/// Who a stream belongs to, once for each of its identities.
fn seats_of(stream: &StreamInfo) -> Vec<(Who, Whose)> {
    let Some(workload) = &stream.attested else {
        return Vec::new();
    };
    let who = match &workload.subject {
        Subject::Own => return vec![(Who::Own, Whose::Own)],
        Subject::Pod {
            namespace, name, uid, ..
        } => Who::Pod {
            namespace: namespace.clone(),
            pod: name.clone(),
            pod_uid: uid.clone(),
        },
        Subject::Process { uid, executable } => Who::Process {
            pid: stream.pid,
            uid: *uid,
            executable: executable.as_ref().map(|path| path.display().to_string()),
        },
    };
    let ids = workload.identities.iter();
    ids.map(|entitled| (who.clone(), Whose::Of(entitled.id.clone())))
        .collect()
}

fn row(
    who: Who,
    (whose, lingers): (&Whose, bool),
    clients: Clients,
    place: Option<&Shown>,
    now: UnixTime,
) -> Row {
    let id: Option<&SpiffeId> = match whose {
        Whose::Own => place.and_then(|place| place.id.as_ref()),
        Whose::Of(id) => Some(id),
    };
    let account = id.and_then(|id| ServiceAccountId::try_from(id).ok());
    let verified = place.and_then(|place| place.verified.as_ref());
    let status = place.map(|place| &place.status);
    Row {
        who,
        account: account.map(|account| account.to_string()),
        spiffe_id: id.map(ToString::to_string),
        state: match (lingers, verified) {
            (true, _) => "lingering",
            (false, Some(_)) => "served",
            (false, None) => "waiting",
        },
        clients,
        received_at: verified.map(|v| rfc3339(v.received())),
        age_seconds: verified.map(|v| until(now, v.received()).as_secs()),
        not_after: verified.map(|v| rfc3339(v.svid().chain().not_after())),
        renews_at: status.and_then(|status| status.renews_at).map(rfc3339),
        renewals: status.map_or(0, |status| status.renewals),
        last_failure: status.and_then(|status| status.last_failure.as_ref().map(Into::into)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::attest::{Entitlement, PodRef, WantedBy, Workload};
    use crate::sds::streams::StreamKind;

    fn id(account: &str) -> SpiffeId {
        format!("spiffe://cluster.local/ns/shop/sa/{account}")
            .parse()
            .unwrap()
    }

    fn stream(kind: StreamKind, subject: Subject, identities: &[&str]) -> StreamInfo {
        let identities = identities.iter().map(|account| Entitlement {
            id: id(account),
            hint: None,
        });
        StreamInfo {
            kind,
            node: String::new(),
            uid: 7,
            pid: Some(42),
            workload: None,
            names: Vec::new(),
            version: None,
            acked: None,
            last_nack: None,
            attested: Some(Arc::new(Workload {
                identities: identities.collect(),
                subject,
            })),
        }
    }

    fn kept(account: &str) -> Shown {
        Shown {
            whose: Whose::Of(id(account)),
            id: Some(id(account)),
            verified: None,
            status: Arc::default(),
        }
    }

    fn page(wanted: &Wanted, streams: &[StreamInfo], shown: &[Shown]) -> serde_json::Value {
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        serde_json::to_value(rows(wanted, streams, shown, now)).unwrap()
    }

    #[test]
    fn every_pod_has_a_row_with_its_clients_by_kind_and_what_only_lingers_one_too() {
        let pod = |name: &str| PodRef {
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
        };
        let pods = vec![pod("cart-1"), pod("cart-2")];
        let wanted = Wanted {
            ids: [(id("cart"), WantedBy { pods })].into(),
            synced: true,
        };
        let of_pod = |kind| {
            let subject = Subject::Pod {
                namespace: "shop".into(),
                name: "cart-1".into(),
                uid: "uid-cart-1".into(),
                account: "cart".into(),
            };
            stream(kind, subject, &["cart"])
        };
        let streams = [
            of_pod(StreamKind::Sotw),
            of_pod(StreamKind::Sotw),
            of_pod(StreamKind::X509Svid),
        ];
        let page = page(&wanted, &streams, &[kept("cart"), kept("gone")]);
        assert_eq!(page.as_array().unwrap().len(), 3);
        assert_eq!(page[0]["pod"], "cart-1");
        assert_eq!(page[0]["kind"], "pod");
        assert_eq!(page[0]["account"], "shop/cart");
        assert_eq!(page[0]["state"], "waiting");
        assert_eq!(page[0]["clients"], serde_json::json!({"sotw": 2, "x509_svid": 1}));
        assert_eq!(page[1]["pod"], "cart-2");
        assert_eq!(page[1]["clients"], serde_json::json!({}));
        assert_eq!(
            (&page[2]["kind"], &page[2]["state"]),
            (&"identity".into(), &"lingering".into())
        );
    }

    #[test]
    fn a_process_with_two_identities_has_two_rows_and_our_own_one() {
        let wanted = Wanted {
            ids: [(id("a"), WantedBy::default()), (id("b"), WantedBy::default())].into(),
            synced: true,
        };
        let subject = Subject::Process {
            uid: 7,
            executable: Some("/bin/envoy".into()),
        };
        let streams = [stream(StreamKind::Delta, subject, &["a", "b"])];
        let page_of_rules = page(&wanted, &streams, &[kept("a"), kept("b")]);
        assert_eq!(page_of_rules.as_array().unwrap().len(), 2);
        assert_eq!(page_of_rules[1]["executable"], "/bin/envoy");
        assert_eq!(page_of_rules[1]["pid"], 42);
        let own = Shown {
            whose: Whose::Own,
            id: None,
            verified: None,
            status: Arc::default(),
        };
        let page = page(
            &Wanted::default(),
            &[stream(StreamKind::Sotw, Subject::Own, &[])],
            &[own],
        );
        assert_eq!(page.as_array().unwrap().len(), 1);
        assert_eq!(
            (&page[0]["kind"], &page[0]["spiffe_id"]),
            (&"own".into(), &serde_json::Value::Null)
        );
    }
}
