//! Two rustls peers in memory, configured by us: who gets in, who does not and why.

use std::sync::Arc;
use std::time::Duration;

use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;
use signet_certs::tls::{
    BundleSource, IdentitySource, Terms, dns_client_config, peer_id, recording_client_config, refusal,
    server_config, spiffe_client_config,
};
use signet_certs::verify::{Expected, Place, VerifyError};
use signet_certs::{Authority, BundleSet, LeafProfile, SpiffeId, UnixTime, X509Svid, issue};

use crate::issuing::{authorities, bundle, key, profile};
use crate::support::{at, domain, id, now};

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone)]
struct Fixed(UnixTime);

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

struct Bundles(Arc<BundleSet>);

impl BundleSource for Bundles {
    fn bundles(&self) -> Arc<BundleSet> {
        Arc::clone(&self.0)
    }
}

struct Identity(Option<X509Svid>);

impl IdentitySource for Identity {
    fn identity(&self) -> Option<Arc<rustls::sign::CertifiedKey>> {
        self.0.as_ref().map(X509Svid::certified_key)
    }
}

/// One end of a connection: whose SVID it shows, whom it believes, and what time it thinks it is.
#[derive(Clone)]
struct End {
    svid: Option<X509Svid>,
    bundles: Arc<BundleSet>,
    time: UnixTime,
}

impl End {
    fn new(id: &str, authority: &Authority, root: &Authority) -> Self {
        let key = key();
        let dns = vec!["ca.example".to_owned()];
        let profile = LeafProfile {
            id: id.parse().unwrap(),
            dns,
            ..profile(HOUR)
        };
        let chain = issue(&profile, key.public_key(), authority, now()).unwrap();
        let bundles = Arc::new(BundleSet::of(Arc::new(bundle(root))));
        Self {
            svid: Some(X509Svid::new(chain, key).unwrap()),
            bundles,
            time: now(),
        }
    }

    fn chain(&self) -> Vec<rustls_pki_types::CertificateDer<'static>> {
        self.svid.as_ref().unwrap().chain().to_der()
    }

    fn key(&self) -> rustls_pki_types::PrivateKeyDer<'static> {
        let der = self.svid.as_ref().unwrap().key().expose_pkcs8_der().unwrap();
        rustls_pki_types::PrivatePkcs8KeyDer::from(der.to_vec()).into()
    }

    fn server(&self, required: bool) -> ServerConfig {
        let identity = Arc::new(Identity(self.svid.clone()));
        let bundles = Arc::new(Bundles(self.bundles.clone()));
        server_config(identity, bundles, required, &[b"h2"], Arc::new(Fixed(self.time))).unwrap()
    }

    fn client(&self, expected: Expected) -> ClientConfig {
        let identity: Option<Arc<dyn IdentitySource>> = Some(Arc::new(Identity(self.svid.clone())));
        let bundles = Arc::new(Bundles(self.bundles.clone()));
        spiffe_client_config(identity, bundles, expected, &[b"h2"], Arc::new(Fixed(self.time))).unwrap()
    }
}

#[derive(Debug)]
struct Met {
    client: ClientConnection,
    server: ServerConnection,
}

#[derive(Debug)]
enum Refused {
    ByClient(rustls::Error),
    ByServer(rustls::Error),
}

/// Carries bytes until both are done, or one refuses.
fn meet(client: ClientConfig, server: ServerConfig) -> Result<Met, Refused> {
    let name = ServerName::try_from("ca.example").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(Refused::ByServer)?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(Refused::ByClient)?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Met { client, server })
}

/// A peer that speaks TLS 1.2 only and believes `end`'s root, configured without signet.
fn old_client(end: &End) -> ClientConfig {
    let provider = signet_certs::tls::provider();
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(Fixed(end.time)))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(store(end))
        .with_client_auth_cert(end.chain(), end.key())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

fn old_server(end: &End) -> ServerConfig {
    let provider = signet_certs::tls::provider();
    let roots = Arc::new(store(end));
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .unwrap();
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Fixed(end.time)))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(end.chain(), end.key())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

fn store(end: &End) -> rustls::RootCertStore {
    let mut store = rustls::RootCertStore::empty();
    for root in end.bundles.get(&domain()).unwrap().roots() {
        store.add(root.certificate().der().clone()).unwrap();
    }
    store
}

/// Why the one who judged refused.
fn why(refused: &Refused) -> Option<&VerifyError> {
    match refused {
        Refused::ByClient(error) | Refused::ByServer(error) => refusal(error),
    }
}

fn pair() -> (End, End) {
    let (root, issuing) = authorities(now());
    (
        End::new("spiffe://cluster.local/ns/shop/sa/cart", &issuing, &root),
        End::new("spiffe://cluster.local/ns/shop/sa/till", &issuing, &root),
    )
}

#[test]
fn two_svids_meet_and_each_knows_the_other() {
    let (client, server) = pair();
    let till: SpiffeId = "spiffe://cluster.local/ns/shop/sa/till".parse().unwrap();
    for expected in [
        Expected::Any,
        Expected::Id(till.clone()),
        Expected::Domain(domain()),
    ] {
        let met = meet(client.client(expected), server.server(true)).unwrap();
        assert_eq!(met.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(peer_id(met.client.peer_certificates()), Some(till.clone()));
        assert_eq!(peer_id(met.server.peer_certificates()), Some(id()));
        assert_eq!(met.client.alpn_protocol(), Some(b"h2".as_slice()));
        assert_eq!(
            met.client.negotiated_cipher_suite().map(|s| s.suite()),
            Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256)
        );
    }
}

#[test]
fn peers_of_tls_1_2_are_met_as_well() {
    let (client, server) = pair();
    let met = meet(old_client(&client), server.server(true)).unwrap();
    assert_eq!(met.server.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert_eq!(peer_id(met.server.peer_certificates()), Some(id()));
    let met = meet(client.client(Expected::Any), old_server(&server)).unwrap();
    assert_eq!(met.client.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    let till: SpiffeId = "spiffe://cluster.local/ns/shop/sa/till".parse().unwrap();
    assert_eq!(peer_id(met.client.peer_certificates()), Some(till));
}

#[test]
fn refusals_carry_their_reason_in_both_directions_and_versions() {
    let (client, server) = pair();
    let (stranger, _) = pair();
    let foreign = {
        let (root, issuing) = authorities(now());
        End::new("spiffe://other.example/ns/shop/sa/cart", &issuing, &root)
    };
    let unknown_domain = VerifyError::UnknownTrustDomain("other.example".parse().unwrap());
    let unknown_issuer = VerifyError::UnknownIssuer(domain());
    // The server judges the client.
    for (end, reason) in [(&stranger, &unknown_issuer), (&foreign, &unknown_domain)] {
        let mut end = end.clone();
        end.bundles = server.bundles.clone();
        for config in [end.client(Expected::Any), old_client(&end)] {
            let refused = meet(config, server.server(true)).unwrap_err();
            assert!(matches!(refused, Refused::ByServer(_)));
            assert_eq!(why(&refused), Some(reason), "{refused:?}");
        }
    }
    // The client judges the server.
    for (end, reason) in [(&stranger, &unknown_issuer), (&foreign, &unknown_domain)] {
        let mut end = end.clone();
        end.bundles = client.bundles.clone();
        for config in [end.server(true), old_server(&end)] {
            let refused = meet(client.client(Expected::Any), config).unwrap_err();
            assert!(matches!(refused, Refused::ByClient(_)));
            assert_eq!(why(&refused), Some(reason), "{refused:?}");
        }
    }
}

#[test]
fn a_recording_client_believes_no_more_and_tells_what_it_was_shown() {
    let (client, server) = pair();
    let (stranger, _) = pair();
    let recording = |expected: Expected| {
        let identity = Arc::new(Identity(client.svid.clone()));
        let bundles = Arc::new(Bundles(client.bundles.clone()));
        let terms = Terms {
            alpn: &[b"h2"],
            tls12: false,
            time: Arc::new(Fixed(client.time)),
        };
        recording_client_config(identity, bundles, expected, terms).unwrap()
    };
    let (config, presented) = recording(Expected::Any);
    assert!(presented.chain().is_empty());
    meet(config, server.server(true)).unwrap();
    assert_eq!(presented.chain(), server.chain());
    // Refused for its root, and for its name.
    let bank = Expected::Id("spiffe://cluster.local/ns/shop/sa/bank".parse().unwrap());
    for (end, expected) in [(&stranger, Expected::Any), (&server, bank)] {
        let (config, presented) = recording(expected);
        let refused = meet(config, end.server(true)).unwrap_err();
        assert!(matches!(refused, Refused::ByClient(_)), "{refused:?}");
        assert!(why(&refused).is_some(), "{refused:?}");
        assert_eq!(presented.chain(), end.chain());
    }
}

#[test]
fn a_server_of_another_name_is_refused_naming_both() {
    let (client, server) = pair();
    let expected = Expected::Id("spiffe://cluster.local/ns/shop/sa/bank".parse().unwrap());
    let refused = meet(client.client(expected), server.server(true)).unwrap_err();
    assert_eq!(
        why(&refused).unwrap().to_string(),
        "peer is spiffe://cluster.local/ns/shop/sa/till, expected spiffe://cluster.local/ns/shop/sa/bank"
    );
}

#[test]
fn time_is_what_the_configuration_says_it_is() {
    let (client, mut server) = pair();
    server.time = at(3601);
    let refused = meet(client.client(Expected::Any), server.server(true)).unwrap_err();
    assert_eq!(
        why(&refused),
        Some(&VerifyError::Expired {
            place: Place::Leaf,
            ago_seconds: 1
        })
    );
    server.time = at(-121);
    let refused = meet(client.client(Expected::Any), server.server(true)).unwrap_err();
    assert_eq!(
        why(&refused),
        Some(&VerifyError::NotYetValid {
            place: Place::Leaf,
            in_seconds: 1
        })
    );
}

#[test]
fn a_client_without_an_svid_gets_in_only_where_none_is_required() {
    let (mut client, server) = pair();
    client.svid = None;
    let met = meet(client.client(Expected::Any), server.server(false)).unwrap();
    assert_eq!(peer_id(met.server.peer_certificates()), None);
    let refused = meet(client.client(Expected::Any), server.server(true)).unwrap_err();
    assert!(
        matches!(refused, Refused::ByServer(rustls::Error::NoCertificatesPresented)),
        "{refused:?}"
    );
    // Given, but bad, is worse than none.
    let (stranger, _) = pair();
    let stranger = End {
        bundles: server.bundles.clone(),
        ..stranger
    };
    let refused = meet(stranger.client(Expected::Any), server.server(false)).unwrap_err();
    assert_eq!(why(&refused), Some(&VerifyError::UnknownIssuer(domain())));
}

#[test]
fn nothing_is_resumed() {
    let (client, server) = pair();
    let config = server.server(true);
    assert_eq!(config.send_tls13_tickets, 0);
    assert!(!config.session_storage.can_cache());
    let (client_config, server_config) = (client.client(Expected::Any), config);
    for _ in 0..3 {
        let met = meet(client_config.clone(), server_config.clone()).unwrap();
        assert_eq!(met.client.tls13_tickets_received(), 0);
        assert_eq!(met.client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
    let old = old_client(&client);
    for _ in 0..3 {
        let met = meet(old.clone(), server_config.clone()).unwrap();
        assert_eq!(met.client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
    let old = old_server(&server);
    for _ in 0..3 {
        let met = meet(client_config.clone(), old.clone()).unwrap();
        assert_eq!(met.client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[test]
fn a_bundle_that_changes_is_in_force_at_the_next_handshake() {
    struct Changing(std::sync::Mutex<Arc<BundleSet>>);
    impl BundleSource for Changing {
        fn bundles(&self) -> Arc<BundleSet> {
            self.0.lock().unwrap().clone()
        }
    }
    let (client, server) = pair();
    let source = Arc::new(Changing(std::sync::Mutex::new(server.bundles.clone())));
    let identity = Arc::new(Identity(server.svid.clone()));
    let config = server_config(identity, source.clone(), true, &[], Arc::new(Fixed(now()))).unwrap();
    let mut ours = client.client(Expected::Any);
    ours.alpn_protocols.clear();
    assert!(meet(ours.clone(), config.clone()).is_ok());
    *source.0.lock().unwrap() = Arc::new(BundleSet::default());
    let refused = meet(ours, config).unwrap_err();
    assert_eq!(why(&refused), Some(&VerifyError::UnknownTrustDomain(domain())));
}

#[test]
fn the_ca_is_dialled_by_its_dns_name() {
    let (client, server) = pair();
    let trust = client.bundles.get(&domain()).unwrap();
    let dial = || dns_client_config(trust, &[b"h2"], Arc::new(Fixed(now()))).unwrap();
    let met = meet(dial(), server.server(false)).unwrap();
    assert_eq!(met.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert!(matches!(
        meet(dial(), server.server(true)),
        Err(Refused::ByServer(_))
    ));
    let (stranger, _) = pair();
    let refused = meet(dial(), stranger.server(false)).unwrap_err();
    assert!(
        matches!(refused, Refused::ByClient(rustls::Error::InvalidCertificate(_))),
        "{refused:?}"
    );
    let mut connection =
        ClientConnection::new(Arc::new(dial()), ServerName::try_from("other.example").unwrap()).unwrap();
    assert!(connection.wants_write());
    let mut accepting = ServerConnection::new(Arc::new(server.server(false))).unwrap();
    let mut wire = Vec::new();
    connection.write_tls(&mut wire).unwrap();
    accepting.read_tls(&mut wire.as_slice()).unwrap();
    accepting.process_new_packets().unwrap();
    let mut wire = Vec::new();
    accepting.write_tls(&mut wire).unwrap();
    connection.read_tls(&mut wire.as_slice()).unwrap();
    assert!(
        connection.process_new_packets().is_err(),
        "another name is another server"
    );
}
