//! What the proxy parses before anybody is authenticated, and what its agent sends.

use prost::Message as _;
use prost_types::Any;
use signet_proto::wire::envoy::extensions::transport_sockets::tls::v3::Secret;
use signet_proxy::first_bytes::{Verdict, look};

/// The first bytes of a connection. A verdict stays, whatever follows; until there is one, no more bytes are asked for
/// than there are to come; and what is told of a hello is in it.
pub fn client_hello(data: &[u8]) {
    let last = look(data);
    if let Verdict::Hello(hello) = &last {
        for name in hello.alpn.iter().flatten() {
            assert!(!name.is_empty() && data.len() > name.len());
        }
        assert!(hello.sni.as_ref().is_none_or(|name| name.is_ascii()));
    }
    let mut end = 0;
    while end < data.len() {
        let Some(part) = data.get(..end) else { return };
        match look(part) {
            Verdict::Undecided => end += 1,
            Verdict::Partial(needed) => {
                assert!(needed > end, "no more is asked for");
                // What is short of it tells nothing new.
                if let Some(less) = data.get(..needed - 1) {
                    assert!(matches!(look(less), Verdict::Partial(_)));
                }
                end = needed;
            }
            told => {
                assert_eq!(told, last, "after {end} bytes");
                return;
            }
        }
    }
}

/// How a private key begins and ends.
const KEY: &str = "PRIVATE KEY-----";

/// A secret as the agent sends it: read whole or refused whole, with a sentence.
pub fn sds_secret(data: &[u8]) {
    let resource = Any {
        type_url: signet_proto::sds::SECRET_TYPE_URL.to_owned(),
        value: data.to_vec(),
    };
    if let Err(refused) = signet_proto::sds::read(&resource) {
        let said = refused.to_string();
        // The name of a resource is no secret, whatever it looks like; what is in it is never told.
        let name = Secret::decode(data).map(|secret| secret.name).unwrap_or_default();
        assert!(!said.is_empty() && (name.contains(KEY) || !said.contains(KEY)));
    }
}
