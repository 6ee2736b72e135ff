//! What the agent parses: discovery requests, state of the world and incremental, and its configuration.

use std::sync::Arc;

use prost::Message;
use signet_agent::attest::cgroup::parse;
use signet_agent::authority::scan::Scanner;
use signet_agent::config::Config;
use signet_agent::sds::delta::Delta;
use signet_agent::sds::sotw::Sotw;
use signet_agent::sds::{MAX_NAMES, Machine, Step};
use signet_agent::svids::{Held, Seen, Trust};
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
    let seen = seen();
    let mut machine = M::default();
    while let Some((head, rest)) = data.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*head)).min(rest.len());
        let (request, rest) = rest.split_at(len);
        data = rest;
        let Ok(request) = M::Request::decode(request) else {
            continue;
        };
        match machine.receive(request, &seen) {
            Step::Close(closing) => {
                assert!(!closing.text.is_empty() && closing.text.len() < 4096);
                return;
            }
            Step::Send(_) => {
                assert!(machine.book().awaits_answer());
                assert!(matches!(machine.refresh(&seen), Step::Wait));
            }
            Step::Wait => {}
        }
        assert!(machine.book().names().count() <= MAX_NAMES);
        machine.book().take_notices();
    }
}

/// A bundle, and no SVID yet: no key is needed to judge names.
fn seen() -> Seen {
    let domain: Option<TrustDomain> = "cluster.local".parse().ok();
    let bundle = domain
        .clone()
        .and_then(|domain| TrustBundle::from_pem(domain, ROOT.as_bytes(), 1).ok());
    let id = "spiffe://cluster.local/ns/shop/sa/cart".parse().ok();
    let (Some(domain), Some(bundle), Some(id)) = (domain, bundle, id) else {
        panic!("the fixture is a bundle")
    };
    let held = Held {
        id,
        hint: None,
        verified: None,
        status: Arc::default(),
    };
    let trust = Trust::new(Arc::new(bundle), Vec::new());
    Seen::new(domain, vec![held], Arc::new(trust))
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

/// The cgroups of a process. A container that is found is there to be read, and a second one beside it
/// is never overlooked.
pub fn cgroup(data: &[u8]) {
    let Ok(Some(found)) = parse(data) else { return };
    let text = String::from_utf8_lossy(data);
    let pod = found.pod.to_string();
    assert!(text.contains(&pod) || text.contains(&pod.replace('-', "_")));
    assert!(text.contains(&found.id.to_string()));
    let other = "0::/kubepods/pod00000000-0000-4000-8000-00000000000a/";
    let forged = [
        data.strip_suffix(b"\n").unwrap_or(data),
        b"\n",
        other.as_bytes(),
        &[b'b'; 64],
    ]
    .concat();
    match parse(&forged) {
        // Only when it is the very container that was found.
        Ok(Some(again)) => assert_eq!(again, found),
        Ok(None) => panic!("a pod is lost"),
        Err(_) => {}
    }
}

/// The bytes of a client's connection: however they are cut, the same percent signs are overwritten, and
/// nothing else is.
pub fn http2_authority(data: &[u8]) {
    let mut whole = data.to_vec();
    Scanner::default().pass(&mut whole);
    let mut cut = data.to_vec();
    let mut scanner = Scanner::default();
    // Pieces of sizes that the bytes themselves choose, single ones among them.
    let mut rest = cut.as_mut_slice();
    while let Some(first) = rest.first() {
        let size = usize::from(*first % 7).clamp(1, rest.len());
        let (piece, later) = rest.split_at_mut(size);
        scanner.pass(piece);
        rest = later;
    }
    assert!(whole == cut, "a cut makes a difference");
    let changed = data.iter().zip(&whole).filter(|(before, after)| before != after);
    for change in changed {
        assert!(change == (&b'%', &b'-'), "{change:?}");
    }
}
