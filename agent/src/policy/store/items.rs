//! What stands for an object in the view: what it asks for, or what it counts as.

use std::sync::Arc;

use signet_policy::KeyAddress;
use signet_policy::document::{Content, Reading};
use signet_policy::fault::{Fault, Problem};
use signet_policy::model::salvage::{Effect, Faulty};
use signet_policy::model::{Attachment, Kind, Object, ObjectKey};
use signet_proto::policy::faulty_object;

use crate::policy::issuers::Issuer;
use crate::policy::object::ORIGIN;
use crate::policy::space::{Item, Message};

/// The key sets that its rules ask for.
pub(super) fn issuers(object: &Object) -> Vec<Issuer> {
    let Object::Request(authentication) = object else {
        return Vec::new();
    };
    let rules = authentication.rules.iter();
    let asked = rules.filter_map(|rule| {
        let (address, patience) = (KeyAddress::of(rule)?, rule.timeout);
        Some(Issuer { address, patience })
    });
    asked.collect()
}

pub(super) fn faulty_item(faulty: &Faulty, uid: &str, origin: &str, line: u64) -> Item {
    let message = faulty_object(faulty, uid, origin, line);
    Item::new(
        (faulty.kind, faulty.namespace.clone()),
        faulty.attachment.clone(),
        origin,
        Message::Faulty(message, faulty.effect.as_str()),
    )
}

pub(super) fn no_room(key: &ObjectKey) -> Reading {
    Reading {
        origin: ORIGIN.into(),
        line: 0,
        content: Content::Faulty(Arc::new(strictest(key))),
    }
}

/// An object that was not even looked at.
pub(super) fn strictest(key: &ObjectKey) -> Faulty {
    let fault = Fault {
        path: String::new(),
        line: None,
        problem: Problem::Told {
            problem: "the agent has no room for this policy".to_owned(),
            hint: "remove policies that are not needed".to_owned(),
        },
    };
    Faulty {
        key: Some(key.clone()),
        kind: Some(key.kind),
        namespace: Some(key.namespace.clone()),
        attachment: Attachment::Everything,
        certain: false,
        effect: match key.kind {
            Kind::AuthorizationPolicy => Effect::DenyAll,
            Kind::PeerAuthentication => Effect::Strict,
            Kind::RequestAuthentication => Effect::RefuseTokens,
        },
        faults: vec![fault],
    }
}
