//! Mistakes in PeerAuthentication.

use std::cmp::Ordering;

use signet_policy::model::{Attachment, Object, ObjectKey, PeerAuthentication};

use super::Findings;
use super::finding::Code;

pub(super) fn look(findings: &mut Findings<'_>) {
    let evidence = findings.evidence;
    let peers: Vec<(ObjectKey, &PeerAuthentication)> = evidence
        .set
        .objects()
        .filter_map(|object| match &**object {
            Object::Peer(peer) => Some((object.key(), peer)),
            Object::Authorization(_) | Object::Request(_) => None,
        })
        .collect();
    for (key, peer) in &peers {
        let labels = matches!(peer.attachment, Attachment::Labels(_));
        if labels && key.namespace == evidence.mesh.root_namespace {
            findings.add(
                Code::RootSelector,
                (key, "spec.selector"),
                "a PeerAuthentication with a selector counts nowhere in the root namespace".to_owned(),
                "move it to the namespace of the workloads",
            );
        }
        let older = peers.iter().find(|(other_key, other)| {
            other_key.namespace == key.namespace
                && other.attachment == peer.attachment
                && counts_before((other_key, other), (key, peer))
        });
        if let Some((older, _)) = older {
            findings.add(
                Code::SecondPeer,
                (key, "metadata.name"),
                format!("{older} is for the same workloads and is the older one, or the first by name: this one counts for nothing, its ports included"),
                "make one object of both",
            );
        }
    }
    for object in evidence.set.objects() {
        if let Object::Peer(peer) = &**object {
            for port in peer.ports.keys() {
                super::around::service_port(
                    findings,
                    (&object.key(), "spec.portLevelMtls"),
                    (*port, &findings.subjects(object)),
                );
            }
        }
    }
}

/// As the engine orders two objects on one level.
fn counts_before(a: (&ObjectKey, &PeerAuthentication), b: (&ObjectKey, &PeerAuthentication)) -> bool {
    let age = a.1.meta.created.cmp(&b.1.meta.created);
    age.then_with(|| a.0.name.cmp(&b.0.name)) == Ordering::Less
}
