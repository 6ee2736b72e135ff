//! Writes the seeds of `policy_snapshot` anew: `cargo run -p signet-fuzz --example policy_snapshot_seeds`.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use prost::Message as _;
use signet_policy::document::Content;
use signet_policy::read_text_as_json;
use signet_proto::policy::{faulty_object, sound_object};
use signet_proto::wire::signet::policy::v1::{
    IssuerKeys, KeyAddress, Mesh, PolicySnapshot, Port, PortProtocol, key_address,
};

const POLICIES: &str = "\
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/api/*]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: bad, namespace: shop}
spec: {selector: {matchLabels: {app: cart}}, acton: DENY}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: bad, namespace: istio-system}
spec: {mtls: {mode: strict}}
";

fn main() -> Result<(), Box<dyn Error>> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/policy_snapshot");
    std::fs::create_dir_all(&home)?;
    let empty = PolicySnapshot {
        version: "0123456789abcdef".to_owned(),
        namespace: "shop".to_owned(),
        labels: BTreeMap::from([("app".to_owned(), "cart".to_owned())]),
        mesh: Some(Mesh {
            root_namespace: "istio-system".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: vec!["old".to_owned()],
        }),
        objects: Vec::new(),
        faulty: Vec::new(),
        keys: Vec::new(),
        ports: Vec::new(),
    };
    let mut full = empty.clone();
    full.keys.push(IssuerKeys {
        address: Some(KeyAddress {
            place: Some(key_address::Place::Issuer("https://login.example.com".to_owned())),
        }),
        jwks: br#"{"keys":[]}"#.to_vec().into(),
    });
    full.ports.push(Port {
        port: 8080,
        protocol: PortProtocol::Http2.into(),
        origin: "Service shop/cart".to_owned(),
        disputed: true,
    });
    for (reading, json) in read_text_as_json("seed", POLICIES) {
        match reading.content {
            Content::Faulty(faulty) => {
                full.faulty
                    .push(faulty_object(&faulty, "u", &reading.origin, reading.line));
            }
            Content::Sound(object) => {
                let json = json.unwrap_or_default().to_string().into();
                full.objects
                    .push(sound_object(&object.key(), "u", &reading.origin, json, &[]));
            }
            Content::Foreign(_) => {}
        }
    }
    let mut last_good = full.clone();
    if let (Some(object), Some(faulty)) = (last_good.objects.first_mut(), full.faulty.first()) {
        object.faults.clone_from(&faulty.faults);
    }
    for (name, snapshot) in [("empty", &empty), ("full", &full), ("last-good", &last_good)] {
        std::fs::write(home.join(name), snapshot.encode_to_vec())?;
    }
    Ok(())
}
