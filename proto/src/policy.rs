//! `signet.policy.v1`: what concerns one workload, on its way from the agent to the workload's proxy.
//!
//! An object in its last good version travels as JSON and is read again where it is enforced. An object without
//! one travels as what it counts as, so that both ends take it the same way. A snapshot is taken whole or not at
//! all (I4): a part that cannot be read may be the one that denies.

use std::sync::Arc;

use signet_certs::TrustDomain;
use signet_certs::id::IdError;
use signet_policy::document::{Content, Reading};
use signet_policy::fault::{Fault, Problem};
use signet_policy::model::remains::{MAX_REMAINS_BYTES, Remains};
use signet_policy::model::salvage::{Effect, Faulty};
use signet_policy::model::{Attachment, Kind, ObjectKey, TargetKind, TargetRef};
use signet_policy::{read_object, scope};

use crate::wire::signet::policy::v1 as wire;

pub mod keys;
pub mod ports;
mod send;

pub use keys::IssuerKeys;
pub use ports::Ports;
pub use send::{faulty_object, sound_object};

/// Largest snapshot sent and read. A thousand policies of usual size are a tenth of it.
pub const MAX_SNAPSHOT_BYTES: usize = 16 << 20;
/// Longest version; ours are hashes.
pub const MAX_VERSION_BYTES: usize = 128;
/// Most faults of one object that travel; an operator reads the first few.
const MAX_FAULTS: usize = 64;
/// Most labels of a workload. Kubernetes stores no more than 256 KiB of them.
const MAX_LABELS: usize = 4_096;
/// Most trust domain aliases.
const MAX_ALIASES: usize = 256;
/// Longest name or sentence of an object.
const MAX_TEXT_BYTES: usize = 8 * 1024;

/// What is in force for a workload, as the agent knows it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Of the content.
    pub version: String,
    /// The workload as it was attested.
    pub workload: scope::Workload,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// Other names of that trust domain.
    pub aliases: Vec<TrustDomain>,
    /// The namespace whose policies reach every namespace.
    pub root_namespace: String,
    /// The objects.
    pub objects: Vec<Received>,
    /// Key sets of token issuers, as far as they are known.
    pub keys: Vec<IssuerKeys>,
    /// What is spoken on the workload's ports, as far as that is known.
    pub ports: Ports,
}

/// An object of a snapshot.
#[derive(Clone, Debug)]
pub struct Received {
    /// What it says, or counts as.
    pub reading: Reading,
    /// Of the API server; empty without one.
    pub uid: String,
    /// What is wrong with a newer version of it, which is not in force.
    pub faults: Vec<Fault>,
}

/// Why a snapshot is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// No version, or one that is too long.
    #[error("version has {0} bytes, 1 to {MAX_VERSION_BYTES} are read")]
    Version(usize),
    /// The workload has no namespace.
    #[error("the workload has no namespace")]
    Namespace,
    /// The mesh has no root namespace.
    #[error("the mesh has no root namespace")]
    Mesh,
    /// No trust domain.
    #[error("trust domain: {0}")]
    TrustDomain(#[from] IdError),
    /// A list or text beyond its bound.
    #[error("{what} has {found} entries or bytes, at most {most} are read")]
    TooMany {
        /// What it is.
        what: &'static str,
        /// Its size.
        found: usize,
        /// What is allowed.
        most: usize,
    },
    /// Not JSON.
    #[error("object {0} is no JSON")]
    Json(usize),
    /// JSON that is none of the three kinds.
    #[error("object {0} is not of security.istio.io")]
    Foreign(usize),
    /// A kind, an effect or a target that is not known here.
    #[error("faulty object {object} has an unknown {what}; the agent may be newer than this proxy")]
    Unknown {
        /// Which of the faulty objects.
        object: usize,
        /// What is unknown.
        what: &'static str,
    },
    /// A faulty object without a fault.
    #[error("faulty object {0} has no fault")]
    NoFault(usize),
    /// A key set without an address.
    #[error("key set {0} has no address")]
    NoAddress(usize),
}

/// Reads a snapshot.
///
/// # Errors
/// A [`SnapshotError`]; then nothing of it is to be used.
pub fn parse(message: wire::PolicySnapshot) -> Result<Snapshot, SnapshotError> {
    let version = message.version;
    if version.is_empty() || version.len() > MAX_VERSION_BYTES {
        return Err(SnapshotError::Version(version.len()));
    }
    if message.namespace.is_empty() {
        return Err(SnapshotError::Namespace);
    }
    bounded("labels", message.labels.len(), MAX_LABELS)?;
    let mesh = message.mesh.filter(|mesh| !mesh.root_namespace.is_empty());
    let mesh = mesh.ok_or(SnapshotError::Mesh)?;
    bounded(
        "trust_domain_aliases",
        mesh.trust_domain_aliases.len(),
        MAX_ALIASES,
    )?;
    let aliases: Result<Vec<TrustDomain>, IdError> = mesh
        .trust_domain_aliases
        .iter()
        .map(|name| name.parse())
        .collect();
    let mut objects = Vec::with_capacity(message.objects.len() + message.faulty.len());
    for (place, object) in message.objects.into_iter().enumerate() {
        objects.push(sound(place, object)?);
    }
    for (place, object) in message.faulty.into_iter().enumerate() {
        objects.push(faulty(place, object)?);
    }
    let keys = keys::received(message.keys)?;
    let ports = ports::received(message.ports)?;
    Ok(Snapshot {
        version,
        workload: scope::Workload {
            namespace: message.namespace,
            labels: message.labels,
            role: scope::Role::Sidecar,
        },
        trust_domain: mesh.trust_domain.parse()?,
        aliases: aliases?,
        root_namespace: mesh.root_namespace,
        objects,
        keys,
        ports,
    })
}

fn bounded(what: &'static str, found: usize, most: usize) -> Result<(), SnapshotError> {
    if found <= most {
        return Ok(());
    }
    Err(SnapshotError::TooMany { what, found, most })
}

fn sound(place: usize, object: wire::SoundObject) -> Result<Received, SnapshotError> {
    let json: serde_json::Value =
        serde_json::from_slice(&object.json).map_err(|_| SnapshotError::Json(place))?;
    bounded("origin", object.origin.len(), MAX_TEXT_BYTES)?;
    let reading = read_object(&object.origin, &json);
    // The agent took it for one; to leave it out would be to ignore a rule.
    if let Content::Foreign(_) = reading.content {
        return Err(SnapshotError::Foreign(place));
    }
    Ok(Received {
        reading,
        uid: object.name.unwrap_or_default().uid,
        faults: faults(object.faults)?,
    })
}

fn faulty(place: usize, object: wire::FaultyObject) -> Result<Received, SnapshotError> {
    let unknown = |what| SnapshotError::Unknown { object: place, what };
    let effect = effect(object.effect()).ok_or_else(|| unknown("effect"))?;
    let name = object.name.unwrap_or_default();
    for text in [&name.kind, &name.namespace, &name.name, &name.uid, &object.origin] {
        bounded("a name", text.len(), MAX_TEXT_BYTES)?;
    }
    let kind = match name.kind.as_str() {
        "" => None,
        kind => Some(Kind::named(kind).ok_or_else(|| unknown("kind"))?),
    };
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    let namespace = said(name.namespace);
    let key = match (kind, &namespace, said(name.name)) {
        (Some(kind), Some(namespace), Some(name)) => Some(ObjectKey {
            kind,
            namespace: namespace.clone(),
            name,
        }),
        _ => None,
    };
    let attachment = attachment(object.attachment).ok_or_else(|| unknown("target"))?;
    let remains = remains(object.remains.unwrap_or_default())?;
    let faults = faults(object.faults)?;
    if faults.is_empty() {
        return Err(SnapshotError::NoFault(place));
    }
    Ok(Received {
        reading: Reading {
            origin: object.origin.into(),
            line: object.line,
            content: Content::Faulty(Arc::new(Faulty {
                key,
                kind,
                namespace,
                attachment,
                certain: object.certain,
                effect,
                remains,
                faults,
            })),
        },
        uid: name.uid,
        faults: Vec::new(),
    })
}

fn attachment(wire: Option<wire::Attachment>) -> Option<Attachment> {
    let wire::Attachment { labels, targets } = wire.unwrap_or_default();
    if !targets.is_empty() {
        let read = |target: wire::Target| {
            Some(TargetRef {
                kind: target_kind(target.kind())?,
                name: target.name,
            })
        };
        return targets
            .into_iter()
            .map(read)
            .collect::<Option<_>>()
            .map(Attachment::Targets);
    }
    if labels.is_empty() {
        return Some(Attachment::Everything);
    }
    Some(Attachment::Labels(labels))
}

/// Every request is looked through for each of these names, so they are bounded together.
fn remains(wire: wire::Remains) -> Result<Remains, SnapshotError> {
    let headers = wire.headers.into_iter();
    let remains = Remains {
        headers: headers.map(|header| (header.name, header.prefix)).collect(),
        params: wire.params.into_iter().collect(),
        cookies: wire.cookies.into_iter().collect(),
        outputs: wire.outputs.into_iter().collect(),
    };
    bounded("remains", remains.bytes(), MAX_REMAINS_BYTES)?;
    Ok(remains)
}

fn target_kind(wire: wire::TargetKind) -> Option<TargetKind> {
    Some(match wire {
        wire::TargetKind::Unspecified => return None,
        wire::TargetKind::Gateway => TargetKind::Gateway,
        wire::TargetKind::GatewayClass => TargetKind::GatewayClass,
        wire::TargetKind::Service => TargetKind::Service,
        wire::TargetKind::ServiceEntry => TargetKind::ServiceEntry,
    })
}

fn effect(wire: wire::Effect) -> Option<Effect> {
    Some(match wire {
        wire::Effect::Unspecified => return None,
        wire::Effect::AllowNothing => Effect::AllowNothing,
        wire::Effect::DenyAll => Effect::DenyAll,
        wire::Effect::Strict => Effect::Strict,
        wire::Effect::RefuseTokens => Effect::RefuseTokens,
        wire::Effect::Nothing => Effect::Nothing,
    })
}

fn faults(wire: Vec<wire::Fault>) -> Result<Vec<Fault>, SnapshotError> {
    bounded("faults", wire.len(), MAX_FAULTS)?;
    wire.into_iter()
        .map(|fault| {
            for text in [&fault.path, &fault.problem, &fault.hint] {
                bounded("a fault", text.len(), MAX_TEXT_BYTES)?;
            }
            Ok(Fault {
                path: fault.path,
                line: Some(fault.line).filter(|line| *line > 0),
                problem: Problem::Told {
                    problem: fault.problem,
                    hint: fault.hint,
                },
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
