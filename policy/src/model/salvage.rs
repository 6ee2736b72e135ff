//! What a faulty object still says: enough to give it the strictest reading, and no more.

use crate::cursor::{Cursor, Faults};
use crate::document::{Content, DOCUMENT};
use crate::fault::Fault;
use crate::model::meta::{self, Kind, kubernetes_name};
use crate::model::remains::{MAX_REMAINS_BYTES, Remains};
use crate::model::selector::Attachment;
use crate::model::{ObjectKey, authorization, peer, request};
use crate::node::{Node, Tree};

/// An object that could not be read, and what it counts as while it has no good version.
#[derive(Clone, Debug, PartialEq)]
pub struct Faulty {
    /// Its name, if that could be read.
    pub key: Option<ObjectKey>,
    /// Its kind, if that could be read.
    pub kind: Option<Kind>,
    /// Its namespace; without one it reaches the whole mesh.
    pub namespace: Option<String>,
    /// What it applies to there: everything, unless that could be read.
    pub attachment: Attachment,
    /// Whether `attachment` is what the object says, rather than a guess on the safe side.
    pub certain: bool,
    /// What it does there.
    pub effect: Effect,
    /// What it still says of requests; empty unless its effect is that tokens are refused.
    pub remains: Remains,
    /// What is wrong with it. Never empty.
    pub faults: Vec<Fault>,
}

/// What a faulty object does to what it applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is an ALLOW that matches nothing.
    AllowNothing,
    /// It is a DENY that matches everything: it is one, it asks a provider, or its action is unreadable.
    DenyAll,
    /// Mutual TLS is demanded on every port.
    Strict,
    /// Every token is refused, and headers that it names are ours alone.
    RefuseTokens,
    /// Nothing: it is an AUDIT or a dry run, which never decides.
    Nothing,
}

impl Effect {
    /// A stable word for status and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowNothing => "allows_nothing",
            Self::DenyAll => "denies_all",
            Self::Strict => "strict",
            Self::RefuseTokens => "refuses_tokens",
            Self::Nothing => "nothing",
        }
    }
}

impl Faulty {
    /// A document of which nothing could be read.
    pub(crate) fn unreadable(faults: Vec<Fault>) -> Self {
        Self {
            key: None,
            kind: None,
            namespace: None,
            attachment: Attachment::Everything,
            certain: false,
            effect: Effect::DenyAll,
            remains: Remains::default(),
            faults,
        }
    }

    /// An object of which several versions were given at once, so that none can be chosen: it is the
    /// strictest, and guards what any of them names.
    pub(crate) fn ambiguous(key: &ObjectKey, versions: &[Content], faults: Vec<Fault>) -> Self {
        let mut effect = match key.kind {
            Kind::AuthorizationPolicy => Effect::DenyAll,
            Kind::PeerAuthentication => Effect::Strict,
            Kind::RequestAuthentication => Effect::RefuseTokens,
        };
        let mut remains = Remains::default();
        for version in versions {
            match version {
                Content::Sound(object) => remains.join(Remains::of_object(object)),
                Content::Faulty(faulty) => {
                    remains.join(faulty.remains.clone());
                    if faulty.effect == Effect::DenyAll {
                        effect = Effect::DenyAll;
                    }
                }
                Content::Foreign(_) => {}
            }
        }
        Self {
            key: Some(key.clone()),
            kind: Some(key.kind),
            namespace: Some(key.namespace.clone()),
            effect,
            ..Self::unreadable(faults)
        }
        .with(remains)
    }

    /// What `node`, in which `faults` were found, still says.
    pub(crate) fn of(node: &Node, default_namespace: Option<&str>, faults: Vec<Fault>) -> Self {
        let kind = node.field("kind").and_then(Node::text).and_then(Kind::named);
        let meta = node.field("metadata");
        let named = |field| {
            let text = meta.and_then(|meta| meta.field(field)).and_then(Node::text);
            text.and_then(|text| kubernetes_name(text).ok())
        };
        let (name, namespace) = (named("name"), namespace(meta, default_namespace));
        let key = match (kind, &namespace, name) {
            (Some(kind), Some(namespace), Some(name)) => Some(ObjectKey {
                kind,
                namespace: namespace.clone(),
                name,
            }),
            _ => None,
        };
        let attachment = attachment(node, kind, namespace.as_deref());
        Self {
            key,
            kind,
            certain: attachment.is_some() && namespace.is_some(),
            attachment: attachment.unwrap_or(Attachment::Everything),
            namespace,
            effect: effect(node, kind),
            remains: Remains::default(),
            faults,
        }
        .with(Remains::of(node))
    }

    /// What it says of requests counts where tokens are refused. More than can be looked for in every request refuses
    /// every request.
    fn with(self, remains: Remains) -> Self {
        match self.effect {
            Effect::RefuseTokens if remains.bytes() <= MAX_REMAINS_BYTES => Self { remains, ..self },
            Effect::RefuseTokens => Self {
                effect: Effect::DenyAll,
                ..self
            },
            _ => self,
        }
    }
}

/// The namespace, if it is beyond doubt: an unknown field of `metadata` may be a misspelt one.
fn namespace(meta: Option<&Node>, default: Option<&str>) -> Option<String> {
    let meta = meta?;
    match meta.field("namespace") {
        Some(node) => kubernetes_name(node.text()?).ok(),
        None if has_only(meta, meta::FIELDS) => default.map(str::to_owned),
        None => None,
    }
}

fn spec_fields(kind: Option<Kind>) -> &'static [&'static str] {
    match kind {
        Some(Kind::PeerAuthentication) => peer::SPEC,
        Some(Kind::RequestAuthentication) => request::SPEC,
        Some(Kind::AuthorizationPolicy) | None => authorization::SPEC,
    }
}

/// What it applies to, if that is beyond doubt: an unknown field may be a misspelt selector, unless there is
/// one.
fn attachment(node: &Node, kind: Option<Kind>, namespace: Option<&str>) -> Option<Attachment> {
    let Some(spec) = node.field("spec") else {
        return has_only(node, DOCUMENT).then_some(Attachment::Everything);
    };
    let fields = Cursor::root(spec).object(spec_fields(kind), &mut Faults::default())?;
    let mut faults = Faults::default();
    let read = Attachment::read(&fields, namespace, &mut faults).filter(|_| faults.is_empty())?;
    let said = ["selector", "targetRef", "targetRefs"];
    let said = said.iter().any(|name| fields.get(name).is_some());
    (said || has_only(spec, spec_fields(kind))).then_some(read)
}

/// Whether this is an object without unknown fields.
fn has_only(node: &Node, known: &'static [&'static str]) -> bool {
    let mut faults = Faults::default();
    Cursor::root(node).object(known, &mut faults).is_some() && faults.is_empty()
}

fn effect(node: &Node, kind: Option<Kind>) -> Effect {
    match kind {
        Some(Kind::PeerAuthentication) => Effect::Strict,
        Some(Kind::RequestAuthentication) => Effect::RefuseTokens,
        None => Effect::DenyAll,
        Some(Kind::AuthorizationPolicy) if is_dry_run(node) => Effect::Nothing,
        Some(Kind::AuthorizationPolicy) => match node.field("spec") {
            None if has_only(node, DOCUMENT) => Effect::AllowNothing,
            None => Effect::DenyAll,
            Some(spec) => action_effect(spec),
        },
    }
}

fn is_dry_run(node: &Node) -> bool {
    let annotations = node.field("metadata").and_then(|meta| meta.field("annotations"));
    annotations.is_some_and(|node| {
        let mut faults = Faults::default();
        meta::dry_run(&Cursor::root(node), &mut faults) == Some(true)
    })
}

/// ALLOW and AUDIT must be beyond doubt: written, or absent where no other field could be a misspelt action.
fn action_effect(spec: &Node) -> Effect {
    let Some(fields) = Cursor::root(spec).object(authorization::SPEC, &mut Faults::default()) else {
        return match spec.value {
            Tree::Null => Effect::AllowNothing,
            _ => Effect::DenyAll,
        };
    };
    let doubtful = fields.get("provider").is_some() || !has_only(spec, authorization::SPEC);
    match fields
        .get("action")
        .map(|at| at.node().text().unwrap_or_default())
    {
        None if !doubtful => Effect::AllowNothing,
        Some("ALLOW") => Effect::AllowNothing,
        Some("AUDIT") => Effect::Nothing,
        _ => Effect::DenyAll,
    }
}
