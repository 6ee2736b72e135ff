//! `PeerAuthentication`: parsed whole or not at all.

use std::collections::BTreeMap;

use crate::cursor::{Cursor, Faults, Object};
use crate::fault::{BadValue, Conflict, Excerpt, Shape};
use crate::model::meta::Meta;
use crate::model::selector::Attachment;

pub(crate) const SPEC: &[&str] = &["selector", "mtls", "portLevelMtls"];

/// What a listener asks of its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Mutual TLS only.
    Strict,
    /// Mutual TLS, and what is none, without an identity.
    Permissive,
    /// No TLS of ours.
    Disable,
}

impl Mode {
    /// Its name in a document.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
            Self::Disable => "DISABLE",
        }
    }
}

/// Which peers must have a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// What Kubernetes knows of it.
    pub meta: Meta,
    /// What it applies to; never targets.
    pub attachment: Attachment,
    /// The mode, or nothing to inherit it.
    pub mode: Option<Mode>,
    /// Modes of single workload ports; nothing to inherit the workload's.
    pub ports: BTreeMap<u16, Option<Mode>>,
}

/// Reads a `spec`, which may be absent.
pub(crate) fn read(meta: Meta, spec: Option<&Cursor<'_>>, faults: &mut Faults) -> Option<PeerAuthentication> {
    let Some(spec) = spec else {
        return Some(PeerAuthentication {
            meta,
            attachment: Attachment::Everything,
            mode: None,
            ports: BTreeMap::new(),
        });
    };
    let spec = spec.object(SPEC, faults)?;
    let attachment = Attachment::read(&spec, None, faults);
    let mode = match spec.get("mtls") {
        Some(at) => mode(&at, faults),
        None => Some(None),
    };
    let ports = ports(&spec, attachment.as_ref(), faults);
    Some(PeerAuthentication {
        meta,
        attachment: attachment?,
        mode: mode?,
        ports: ports?,
    })
}

#[expect(
    clippy::option_option,
    reason = "outside: could it be read; inside: is a mode set"
)]
fn mode(at: &Cursor<'_>, faults: &mut Faults) -> Option<Option<Mode>> {
    let Some(mode) = at.object(&["mode"], faults)?.get("mode") else {
        return Some(None);
    };
    mode.parse(faults, |word| match word {
        "STRICT" => Ok(Some(Mode::Strict)),
        "PERMISSIVE" => Ok(Some(Mode::Permissive)),
        "DISABLE" => Ok(Some(Mode::Disable)),
        "UNSET" => Ok(None),
        _ => Err(BadValue::Mode(Excerpt::of(word))),
    })
}

fn ports(
    spec: &Object<'_>,
    attachment: Option<&Attachment>,
    faults: &mut Faults,
) -> Option<BTreeMap<u16, Option<Mode>>> {
    let Some(at) = spec.get("portLevelMtls") else {
        return Some(BTreeMap::new());
    };
    let entries = at.entries(faults)?;
    if entries.is_empty() {
        at.fault(faults, Shape::Empty);
        return None;
    }
    if matches!(attachment, Some(Attachment::Everything)) {
        at.fault(faults, Conflict::PortsWithoutSelector);
        return None;
    }
    let count = entries.len();
    let mut ports = BTreeMap::new();
    for (number, at) in entries {
        let port = super::authorization::port(number).ok().filter(|port| *port > 0);
        match (port, mode(&at, faults)) {
            (Some(port), Some(mode)) => {
                ports.insert(port, mode);
            }
            (Some(_), None) => {}
            (None, _) => at.fault(faults, BadValue::Port(Excerpt::of(number))),
        }
    }
    if ports.len() != count && faults.is_empty() {
        at.fault(faults, Conflict::Twice);
    }
    (ports.len() == count).then_some(ports)
}
