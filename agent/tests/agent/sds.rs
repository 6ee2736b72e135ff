//! A real client over the workload socket.

use std::time::Duration;

use prost::Message as _;
use signet_agent::sds::PATIENCE;
use signet_proto::sds::{Content, numbered, read};
use signet_proto::wire::envoy::config::core::v3::data_source::Specifier;
use signet_proto::wire::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret};
use signet_proto::wire::envoy::service::discovery::v3::DiscoveryRequest;
use signet_proto::wire::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use tonic::Code;

use crate::fake_ca::{FakeCa, Mood, WORKLOAD};
use crate::harness::{Agent, Delta, Sotw};

const HOUR: Duration = Duration::from_secs(3_600);

fn secret(any: &prost_types::Any) -> Secret {
    assert_eq!(any.type_url, signet_proto::sds::SECRET_TYPE_URL);
    Secret::decode(any.value.as_slice()).unwrap()
}

fn bytes(source: Option<&signet_proto::wire::envoy::config::core::v3::DataSource>) -> Vec<u8> {
    match source.and_then(|s| s.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => bytes.to_vec(),
        _ => panic!("no inline bytes"),
    }
}

async fn ready() -> (FakeCa, Agent) {
    let ca = FakeCa::start(Mood::issue(HOUR)).await;
    let agent = Agent::start(&ca, "");
    agent.svid(|_| true).await;
    (ca, agent)
}

#[tokio::test]
async fn key_and_chain_come_as_one_resource_under_the_name_asked_for() {
    let (_ca, agent) = ready().await;
    let channel = agent.channel().await;
    for name in ["default", WORKLOAD] {
        let mut sotw = Sotw::ask(&channel, &[name]).await;
        let response = sotw.next().await.unwrap();
        let secret = secret(&response.resources[0]);
        assert_eq!(secret.name, name);
        let Some(secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain,
            private_key,
        })) = secret.r#type
        else {
            panic!("no key pair")
        };
        let key = signet_certs::SigningKey::from_pem(&bytes(private_key.as_ref())).unwrap();
        let chain = signet_certs::SvidChain::from_pem(&bytes(certificate_chain.as_ref())).unwrap();
        signet_certs::X509Svid::new(chain, std::sync::Arc::new(key)).unwrap();
    }
    agent.stop().await;
}

#[tokio::test]
async fn roots_come_under_all_three_of_their_names() {
    let (ca, agent) = ready().await;
    let channel = agent.channel().await;
    for name in ["ROOTCA", "spiffe://cluster.local", "ALL"] {
        let mut sotw = Sotw::ask(&channel, &[name]).await;
        let secret = secret(&sotw.next().await.unwrap().resources[0]);
        assert_eq!(secret.name, name);
        let Some(secret::Type::ValidationContext(context)) = secret.r#type else {
            panic!("no roots")
        };
        match name {
            "ALL" => assert_eq!(
                context.custom_validator_config.unwrap().name,
                "envoy.tls.cert_validator.spiffe"
            ),
            _ => assert_eq!(bytes(context.trusted_ca.as_ref()), ca.root_pem().into_bytes()),
        }
    }
    agent.stop().await;
}

#[tokio::test]
async fn names_that_cannot_be_had_close_the_stream_at_once_with_a_sentence() {
    let (_ca, agent) = ready().await;
    let channel = agent.channel().await;
    for (name, code, start) in [
        ("bogus", Code::NotFound, "no secret is called \"bogus\""),
        (
            "spiffe://elsewhere",
            Code::NotFound,
            "no secret is called \"spiffe://elsewhere\"",
        ),
        (
            "spiffe://cluster.local/ns/shop/sa/other",
            Code::PermissionDenied,
            "this workload may not have spiffe://cluster.local/ns/shop/sa/other; it has \
             spiffe://cluster.local/ns/shop/sa/cart",
        ),
    ] {
        let status = Sotw::ask(&channel, &[name]).await.next().await.unwrap_err();
        assert_eq!(status.code(), code, "{name}");
        assert!(status.message().starts_with(start), "{}", status.message());
    }
    let mut delta = Delta::ask(&channel, &["bogus", "ROOTCA"], &[]).await;
    let response = delta.next().await.unwrap();
    assert_eq!(response.removed_resources, ["bogus"]);
    assert_eq!(response.resources[0].name, "ROOTCA");
    agent.stop().await;
}

#[tokio::test]
async fn a_secret_on_its_way_is_held_and_sent_when_it_is_there() {
    let ca = FakeCa::start(Mood::Refuse(tonic::Status::unavailable("starting"))).await;
    let agent = Agent::start(&ca, "");
    let channel = agent.channel().await;
    let mut sotw = Sotw::ask(&channel, &[WORKLOAD]).await;
    ca.set(Mood::issue(HOUR));
    assert_eq!(secret(&sotw.next().await.unwrap().resources[0]).name, WORKLOAD);
    agent.stop().await;
}

#[tokio::test]
async fn a_secret_that_does_not_come_closes_the_stream_with_the_cause() {
    let ca = FakeCa::start(Mood::Refuse(tonic::Status::unauthenticated(
        "token for another audience",
    )))
    .await;
    let agent = Agent::start(&ca, "");
    let channel = agent.channel().await;
    let began = tokio::time::Instant::now();
    let mut sotw = Sotw::ask(&channel, &["default"]).await;
    let mut delta = Delta::ask(&channel, &["default"], &[]).await;
    for status in [sotw.next().await.unwrap_err(), delta.next().await.unwrap_err()] {
        assert_eq!(status.code(), Code::Unavailable);
        let text = status.message();
        assert!(
            text.starts_with("default: not ready: the CA at 127.0.0.1:"),
            "{text}"
        );
        assert!(text.contains("token for another audience"), "{text}");
        let held = began.elapsed();
        assert!(held >= PATIENCE, "held for {held:?}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn renewals_are_pushed_and_a_rejected_version_is_not_sent_twice() {
    let ca = FakeCa::start(Mood::issue(Duration::from_secs(4))).await;
    let agent = Agent::start(&ca, "");
    agent.svid(|_| true).await;
    let channel = agent.channel().await;
    let mut sotw = Sotw::ask(&channel, &["default"]).await;
    let first = sotw.next().await.unwrap();
    sotw.answer(&first, &["default"], Some("KEY_VALUES_MISMATCH"))
        .await;
    let second = sotw.next().await.unwrap();
    assert_ne!(second.version_info, first.version_info);
    sotw.ack(&second, &["default"]).await;
    let third = sotw.next().await.unwrap();
    assert_ne!(third.version_info, second.version_info);
    agent.stop().await;
}

#[tokio::test]
async fn a_reconnecting_delta_client_gets_only_what_it_lacks() {
    let (_ca, agent) = ready().await;
    let channel = agent.channel().await;
    let mut delta = Delta::ask(&channel, &["default", "ROOTCA"], &[]).await;
    let all = delta.next().await.unwrap();
    assert_eq!(all.resources.len(), 2);
    delta.ack(&all).await;
    drop(delta);
    let held = &all.resources[0];
    let mut delta = Delta::ask(
        &channel,
        &["default", "ROOTCA"],
        &[(held.name.as_str(), held.version.as_str())],
    )
    .await;
    let rest = delta.next().await.unwrap();
    assert_eq!(rest.resources.len(), 1);
    assert_ne!(rest.resources[0].name, held.name);
    agent.stop().await;
}

#[tokio::test]
async fn bundles_come_with_their_sequence_numbers_and_keys_without() {
    let (_ca, agent) = ready().await;
    let channel = agent.channel().await;
    let mut delta = Delta::ask(&channel, &["default", "ROOTCA", "ALL"], &[]).await;
    let all = delta.next().await.unwrap().resources;
    assert_eq!(all.len(), 3);
    for resource in all {
        let any = resource.resource.as_ref().unwrap();
        let Ok((_, Content::Bundles(bundles))) = read(any) else {
            assert_eq!(resource.metadata.is_some(), resource.name == "ROOTCA");
            continue;
        };
        let numbered = numbered(&bundles, resource.metadata.as_ref());
        let sequences: Vec<u64> = numbered.iter().map(|bundle| bundle.sequence()).collect();
        assert_eq!(sequences, [1]);
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_first_message_as_large_as_envoys_is_read_and_a_huge_one_is_not() {
    let (_ca, agent) = ready().await;
    let channel = agent.channel().await;
    let request = |bytes: usize| DiscoveryRequest {
        node: Some(signet_proto::wire::envoy::config::core::v3::Node {
            id: "web".into(),
            cluster: "x".repeat(bytes),
        }),
        resource_names: vec!["ROOTCA".into()],
        ..Default::default()
    };
    let mut sotw = Sotw::open(&channel, request(200 * 1024)).await.unwrap();
    assert_eq!(sotw.next().await.unwrap().resources.len(), 1);
    let status = match Sotw::open(&channel, request(256 * 1024)).await {
        Ok(mut stream) => stream.next().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "a request may have at most 262144 bytes");
    agent.stop().await;
}

#[tokio::test]
async fn fetch_secrets_is_unimplemented() {
    let (_ca, agent) = ready().await;
    let mut client = SecretDiscoveryServiceClient::new(agent.channel().await);
    let status = client
        .fetch_secrets(DiscoveryRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    agent.stop().await;
}

#[tokio::test]
async fn a_renewal_reaches_hundreds_of_streams() {
    let ca = FakeCa::start(Mood::issue(Duration::from_secs(10))).await;
    let agent = Agent::start(&ca, "");
    agent.svid(|_| true).await;
    let channel = agent.channel().await;
    let mut streams = Vec::new();
    for _ in 0..300 {
        let mut sotw = Sotw::ask(&channel, &["default"]).await;
        let first = sotw.next().await.unwrap();
        sotw.ack(&first, &["default"]).await;
        streams.push((sotw, first.version_info));
    }
    let (code, body) = agent.post("/v1/svids/rotate").await;
    assert_eq!(code, 200, "{body}");
    for (sotw, before) in &mut streams {
        assert_ne!(sotw.next().await.unwrap().version_info, *before);
    }
    agent.stop().await;
}
