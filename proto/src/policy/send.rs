//! The sending half: objects as they travel.

use std::collections::BTreeMap;

use bytes::Bytes;
use signet_policy::fault::Fault;
use signet_policy::model::remains::Remains;
use signet_policy::model::salvage::{Effect, Faulty};
use signet_policy::model::{Attachment, ObjectKey, TargetKind, TargetRef};

use super::{MAX_FAULTS, MAX_TEXT_BYTES};
use crate::wire::signet::policy::v1 as wire;

/// An object in its last good version; `faults` are those of a newer one.
#[must_use]
pub fn sound_object(
    key: &ObjectKey,
    uid: &str,
    origin: &str,
    json: Bytes,
    faults: &[Fault],
) -> wire::SoundObject {
    wire::SoundObject {
        name: Some(wire::ObjectName {
            kind: key.kind.as_str().to_owned(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: uid.to_owned(),
        }),
        origin: cut(origin),
        json,
        faults: faults.iter().take(MAX_FAULTS).map(fault_message).collect(),
    }
}

/// An object without a good version.
#[must_use]
pub fn faulty_object(faulty: &Faulty, uid: &str, origin: &str, line: u64) -> wire::FaultyObject {
    let name = faulty.key.as_ref().map(|key| key.name.clone());
    wire::FaultyObject {
        name: Some(wire::ObjectName {
            kind: faulty
                .kind
                .map(|kind| kind.as_str().to_owned())
                .unwrap_or_default(),
            namespace: faulty.namespace.clone().unwrap_or_default(),
            name: name.unwrap_or_default(),
            uid: uid.to_owned(),
        }),
        origin: cut(origin),
        line,
        attachment: Some(attachment_message(&faulty.attachment)),
        certain: faulty.certain,
        effect: effect_message(faulty.effect).into(),
        faults: faulty.faults.iter().take(MAX_FAULTS).map(fault_message).collect(),
        remains: (faulty.remains != Remains::default()).then(|| remains_message(&faulty.remains)),
    }
}

fn remains_message(remains: &Remains) -> wire::Remains {
    let header = |(name, prefix): &(String, String)| wire::TokenHeader {
        name: name.clone(),
        prefix: prefix.clone(),
    };
    wire::Remains {
        headers: remains.headers.iter().map(header).collect(),
        params: remains.params.iter().cloned().collect(),
        cookies: remains.cookies.iter().cloned().collect(),
        outputs: remains.outputs.iter().cloned().collect(),
    }
}

fn attachment_message(attachment: &Attachment) -> wire::Attachment {
    match attachment {
        Attachment::Everything => wire::Attachment::default(),
        Attachment::Labels(labels) => wire::Attachment {
            labels: labels.clone(),
            targets: Vec::new(),
        },
        Attachment::Targets(targets) => wire::Attachment {
            labels: BTreeMap::new(),
            targets: targets.iter().map(target_message).collect(),
        },
    }
}

fn target_message(target: &TargetRef) -> wire::Target {
    let kind = match target.kind {
        TargetKind::Gateway => wire::TargetKind::Gateway,
        TargetKind::GatewayClass => wire::TargetKind::GatewayClass,
        TargetKind::Service => wire::TargetKind::Service,
        TargetKind::ServiceEntry => wire::TargetKind::ServiceEntry,
    };
    wire::Target {
        kind: kind.into(),
        name: target.name.clone(),
    }
}

fn effect_message(effect: Effect) -> wire::Effect {
    match effect {
        Effect::AllowNothing => wire::Effect::AllowNothing,
        Effect::DenyAll => wire::Effect::DenyAll,
        Effect::Strict => wire::Effect::Strict,
        Effect::RefuseTokens => wire::Effect::RefuseTokens,
        Effect::Nothing => wire::Effect::Nothing,
    }
}

fn fault_message(fault: &Fault) -> wire::Fault {
    wire::Fault {
        path: cut(&fault.path),
        line: fault.line.unwrap_or_default(),
        problem: cut(&fault.problem.to_string()),
        hint: cut(&fault.problem.hint()),
    }
}

/// At most what the other end reads. Excerpts are bounded already; paths follow the document.
fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_TEXT_BYTES);
    text.get(..end).unwrap_or_default().to_owned()
}
