//! What the agent parses: discovery requests, state of the world and incremental, and its configuration.

use std::sync::Arc;

use prost::Message;
use signet_agent::config::Config;
use signet_agent::sds::delta::Delta;
use signet_agent::sds::sotw::Sotw;
use signet_agent::sds::{MAX_NAMES, Machine, Step};
use signet_agent::svids::Snapshot;
use signet_certs::{TrustBundle, TrustDomain};
use signet_runtime::config::from_text;

use crate::ROOT;

/// A stream of `StreamSecrets`: two bytes of length, then a request, again and again.
pub fn sds_sotw(data: &[u8]) {
    stream::<Sotw>(data);
}

/// A stream of `DeltaSecrets`, packed alike.
pub fn sds_delta(data: &[u8]) {
    stream::<Delta>(data);
}

/// Whatever is asked: names stay bounded, and a push that was not answered is not followed by another.
fn stream<M>(mut data: &[u8])
where
    M: Machine + Default,
    M::Request: Message + Default,
{
    let snapshot = snapshot();
    let mut machine = M::default();
    while let Some((head, rest)) = data.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*head)).min(rest.len());
        let (request, rest) = rest.split_at(len);
        data = rest;
        let Ok(request) = M::Request::decode(request) else {
            continue;
        };
        match machine.receive(request, &snapshot) {
            Step::Close(closing) => {
                assert!(!closing.text.is_empty() && closing.text.len() < 4096);
                return;
            }
            Step::Send(_) => {
                assert!(machine.book().awaits_answer());
                assert!(matches!(machine.refresh(&snapshot), Step::Wait));
            }
            Step::Wait => {}
        }
        assert!(machine.book().names().count() <= MAX_NAMES);
        machine.book().take_notices();
    }
}

/// A bundle, and no SVID yet: no key is needed to judge names.
fn snapshot() -> Snapshot {
    let domain: Option<TrustDomain> = "cluster.local".parse().ok();
    let bundle = domain.and_then(|domain| TrustBundle::from_pem(domain, ROOT.as_bytes(), 1).ok());
    let Some(bundle) = bundle else {
        panic!("the fixture is a bundle")
    };
    Snapshot::of_bundle(
        Arc::new(bundle),
        "spiffe://cluster.local/ns/shop/sa/cart".parse().ok(),
    )
}

/// The agent's configuration file. What is accepted prints as a configuration that is accepted, and alike.
pub fn agent_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(config) = from_text(text).and_then(Config::check) else {
        return;
    };
    let Ok(printed) = config.print() else { return };
    match from_text(&printed).and_then(Config::check) {
        Ok(again) => assert_eq!(again.print().as_deref(), Ok(printed.as_str())),
        Err(faults) => panic!("{printed}\nis refused: {faults}"),
    }
}
