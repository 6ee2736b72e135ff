//! What stands for an object in the view: what it asks for, or what it counts as.

use std::sync::Arc;

use signet_policy::KeyAddress;
use signet_policy::document::{Content, Reading};
use signet_policy::fault::{Fault, Problem};
use signet_policy::model::remains::Remains;
use signet_policy::model::salvage::{Effect, Faulty};
use signet_policy::model::{Attachment, Kind, Object, ObjectKey};
use signet_proto::policy::faulty_object;

use super::room::Full;
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

pub(super) fn no_room(key: &ObjectKey, full: Full) -> Reading {
    Reading {
        origin: ORIGIN.into(),
        line: 0,
        content: Content::Faulty(Arc::new(strictest(key, full))),
    }
}

/// An object that was not even looked at.
pub(super) fn strictest(key: &ObjectKey, full: Full) -> Faulty {
    let (problem, hint) = full.told();
    let fault = Fault {
        path: String::new(),
        line: None,
        problem: Problem::Told { problem, hint },
    };
    Faulty {
        key: Some(key.clone()),
        kind: Some(key.kind),
        namespace: Some(key.namespace.clone()),
        attachment: Attachment::Everything,
        certain: false,
        effect: match key.kind {
            // Nobody knows which headers a RequestAuthentication would have guarded.
            Kind::AuthorizationPolicy | Kind::RequestAuthentication => Effect::DenyAll,
            Kind::PeerAuthentication => Effect::Strict,
        },
        remains: Remains::default(),
        faults: vec![fault],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_looked_at_lets_nothing_pass_that_it_might_have_guarded() {
        for (kind, expected) in [
            (Kind::AuthorizationPolicy, Effect::DenyAll),
            (Kind::PeerAuthentication, Effect::Strict),
            // It may have kept a client from setting headers, and nobody knows which.
            (Kind::RequestAuthentication, Effect::DenyAll),
        ] {
            let key = ObjectKey {
                kind,
                namespace: "shop".to_owned(),
                name: "p".to_owned(),
            };
            assert_eq!(strictest(&key, Full::Kind(1)).effect, expected);
        }
    }
}
