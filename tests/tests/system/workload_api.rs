//! The SPIFFE Workload API as a process meets it: what is demanded, what is refused and how, what
//! comes when. This test itself is the workload.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use signet_proto::wire::{
    JwtBundlesRequest, WitBundlesRequest, WitsvidRequest, X509BundlesRequest, X509svidRequest,
};
use signet_tests::agent::Agent;
use signet_tests::ca::Ca;
use signet_tests::cluster::Cluster;
use signet_tests::mesh::short_lived_ca;
use signet_tests::spiffe::{AGENT_ACCOUNT, node_agent, start_node_agent};
use signet_tests::wait::{SOON, until};
use signet_tests::workload::{client, jwt, next, secure, validate, with_metadata, x509, x509_stream};
use tonic::Code;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// The rule that gives this test an identity.
fn mine(account: &str) -> Value {
    let uid = rustix::process::getuid().as_raw();
    json!({"service_account": account, "uid": uid})
}

struct System {
    agent: Agent,
    ca: Ca,
    cluster: Cluster,
}

impl System {
    async fn start(rules: &[Value], ttl: &str) -> Self {
        let cluster = Cluster::start();
        let ca = short_lived_ca(&cluster)
            .set("trusted_node_accounts", vec![AGENT_ACCOUNT])
            .start()
            .await;
        let agent = start_node_agent(&cluster, &ca, rules, ttl).await;
        Self { agent, ca, cluster }
    }

    fn socket(&self) -> PathBuf {
        self.agent.socket()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_needs_the_security_metadata_and_nothing_else_may_be_in_its_place() {
    let system = System::start(&[mine("shop/cart")], "1h").await;
    let mut api = client(&system.socket());
    for values in [&[][..], &[""], &["True"], &["TRUE"], &["1"], &["true", "true"]] {
        let codes = [
            api.fetch_x509svid(with_metadata(X509svidRequest {}, values))
                .await
                .err(),
            api.fetch_x509_bundles(with_metadata(X509BundlesRequest {}, values))
                .await
                .err(),
            api.fetch_jwt_bundles(with_metadata(JwtBundlesRequest {}, values))
                .await
                .err(),
            api.fetch_jwtsvid(with_metadata(Default::default(), values))
                .await
                .err(),
            api.validate_jwtsvid(with_metadata(Default::default(), values))
                .await
                .err(),
            api.fetch_witsvid(with_metadata(WitsvidRequest::default(), values))
                .await
                .err(),
        ];
        for status in codes {
            let status = status.unwrap_or_else(|| panic!("{values:?} was let in"));
            assert_eq!(status.code(), Code::InvalidArgument, "{values:?}: {status}");
            assert!(status.message().contains("workload.spiffe.io"), "{status}");
        }
    }
    x509(&system.socket()).await.expect("with the metadata");
    // Envoy's service beside it asks for nothing of the kind.
    let mut sds = signet_tests::sds::Stream::open(&system.socket(), &["default"])
        .await
        .unwrap();
    sds.next().await.expect("a secret");
    let scrape = system.agent.scrape().await;
    let refused = scrape.value(
        "signet_agent_workload_api_refusals_total",
        &[("reason", "no_header")],
    );
    assert!(refused >= 36.0, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mandatory_fields_and_identities_are_checked_with_the_standards_codes() {
    let system = System::start(&[mine("shop/cart")], "1h").await;
    let socket = system.socket();
    let code = |status: Result<(), tonic::Status>| status.expect_err("a refusal").code();
    for (audience, id, expected) in [
        (&[][..], "", Code::InvalidArgument),
        (&[""], "", Code::InvalidArgument),
        (&["x"], "no id", Code::InvalidArgument),
        (&["x"], WEB, Code::PermissionDenied),
        (
            &["x"],
            "spiffe://elsewhere/ns/shop/sa/cart",
            Code::PermissionDenied,
        ),
    ] {
        let answer = jwt(&socket, audience, id).await.map(|_| ());
        assert_eq!(code(answer), expected, "{audience:?} {id:?}");
    }
    let many: Vec<String> = (0..17).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(
        code(jwt(&socket, &many, "").await.map(|_| ())),
        Code::InvalidArgument
    );

    let token = jwt(&socket, &["x"], CART).await.unwrap().svids[0].svid.clone();
    let valid = validate(&socket, "x", &token).await.unwrap();
    assert_eq!(valid.spiffe_id, CART);
    let claims = valid.claims.clone().unwrap().fields;
    assert!(
        ["sub", "aud", "exp"]
            .iter()
            .all(|name| claims.contains_key(*name))
    );
    for (audience, token) in [
        ("", token.as_str()),
        ("x", ""),
        ("X", &token),
        ("x", "a.b.c"),
        ("x", &token[1..]),
    ] {
        let answer = validate(&socket, audience, token).await.map(|_| ());
        assert_eq!(code(answer), Code::InvalidArgument, "{audience:?}");
    }
    // The optional profile, and a request that is too large to be read.
    let mut api = client(&socket);
    let wit = api
        .fetch_witsvid(secure(WitsvidRequest::default()))
        .await
        .map(|_| ());
    assert_eq!(code(wit), Code::Unimplemented);
    let wit = api
        .fetch_wit_bundles(secure(WitBundlesRequest {}))
        .await
        .map(|_| ());
    assert_eq!(code(wit), Code::Unimplemented);
    validate(&socket, "x", &"a".repeat(100_000))
        .await
        .expect_err("a refusal");
    let scrape = system.agent.scrape().await;
    for reason in [
        "audience",
        "not_yours",
        "invalid_token",
        "wit_profile",
        "too_large",
    ] {
        let refused = scrape.value("signet_agent_workload_api_refusals_total", &[("reason", reason)]);
        assert!(refused >= 1.0, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_identities_come_in_the_order_of_the_rules_with_their_hints_and_a_token_each() {
    let mut second = mine("shop/cart");
    second["hint"] = "internal".into();
    let system = System::start(&[mine("shop/web"), second], "10s").await;
    let socket = system.socket();
    let mut stream = x509_stream(&socket).await.unwrap();
    for _ in 0..3 {
        let message = next(&mut stream).await.unwrap();
        let svids: Vec<_> = message
            .svids
            .iter()
            .map(|s| (s.spiffe_id.as_str(), s.hint.as_str()))
            .collect();
        assert_eq!(svids, [(WEB, ""), (CART, "internal")]);
        assert!(message.crl.is_empty() && message.federated_bundles.is_empty());
    }
    let tokens = jwt(&socket, &["b", "a", "b"], "").await.unwrap();
    let ids: Vec<_> = tokens
        .svids
        .iter()
        .map(|s| (s.spiffe_id.as_str(), s.hint.as_str()))
        .collect();
    assert_eq!(ids, [(WEB, ""), (CART, "internal")]);
    let one = jwt(&socket, &["a", "b"], CART).await.unwrap();
    assert_eq!(one.svids.len(), 1);
    assert_eq!(
        one.svids[0].svid, tokens.svids[1].svid,
        "the same set of audiences, from the cache"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stream_gets_the_same_leaf_and_each_change_once() {
    let system = System::start(&[mine("shop/cart")], "10s").await;
    let socket = system.socket();
    let mut first = x509_stream(&socket).await.unwrap();
    let mut second = x509_stream(&socket).await.unwrap();
    let mut before = None;
    for _ in 0..3 {
        let (one, two) = (next(&mut first).await.unwrap(), next(&mut second).await.unwrap());
        assert_eq!(one, two);
        assert_ne!(Some(&one.svids[0].x509_svid), before.as_ref(), "the same twice");
        before = Some(one.svids[0].x509_svid.clone());
    }
    // A stream opened between two changes begins with what the others have.
    let third = x509(&socket).await.unwrap();
    assert_eq!(Some(&third.svids[0].x509_svid), before.as_ref());
    let mut bundles = client(&socket)
        .fetch_x509_bundles(secure(X509BundlesRequest {}))
        .await
        .unwrap()
        .into_inner();
    let message = next(&mut bundles).await.unwrap();
    assert_eq!(
        message.bundles.keys().collect::<Vec<_>>(),
        ["spiffe://cluster.local"]
    );
    assert_eq!(message.bundles["spiffe://cluster.local"], third.svids[0].bundle);
    // Two renewals later there is still nothing new about bundles.
    next(&mut first).await.unwrap();
    next(&mut first).await.unwrap();
    let more = tokio::time::timeout(Duration::from_millis(100), bundles.message()).await;
    assert!(more.is_err(), "a bundle that did not change was sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_a_rule_is_denied_in_the_words_that_sdks_look_for() {
    let nobody = json!({"service_account": "shop/cart", "uid": 4_000_000});
    let system = System::start(&[nobody], "1h").await;
    let socket = system.socket();
    let denied = [
        x509(&socket).await.map(|_| ()),
        jwt(&socket, &["x"], "").await.map(|_| ()),
        validate(&socket, "x", "a.b.c").await.map(|_| ()),
    ];
    for status in denied {
        let status = status.expect_err("a refusal");
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert!(status.message().contains("no identity issued"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_there_is_nothing_to_give_the_answer_is_unavailable_with_the_cause() {
    let cluster = Cluster::start();
    let mut ca = short_lived_ca(&cluster)
        .set("trusted_node_accounts", vec![AGENT_ACCOUNT])
        .start()
        .await;
    let setup = node_agent(&cluster, &ca, &[mine("shop/cart")]).await;
    ca.process.kill();
    let agent = setup.start_unready().await;
    for answer in [
        x509(&agent.socket()).await.map(|_| ()),
        jwt(&agent.socket(), &["x"], "").await.map(|_| ()),
    ] {
        let status = answer.expect_err("a refusal");
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("not ready"), "{status}");
    }
    // A stream that waits when the CA comes back gets its SVID.
    ca.start_again().await;
    until("an SVID", SOON, async || x509(&agent.socket()).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_token_survives_the_ca_and_a_stream_ends_well_when_the_agent_does() {
    let mut system = System::start(&[mine("shop/cart")], "1h").await;
    let socket = system.socket();
    let token = jwt(&socket, &["x"], "").await.unwrap().svids[0].svid.clone();
    system.ca.process.kill();
    assert_eq!(jwt(&socket, &["x"], "").await.unwrap().svids[0].svid, token);
    let other = jwt(&socket, &["y"], "")
        .await
        .expect_err("nobody is there to sign it");
    assert_eq!(other.code(), Code::Unavailable, "{other}");
    assert_eq!(validate(&socket, "x", &token).await.unwrap().spiffe_id, CART);

    let mut stream = x509_stream(&socket).await.unwrap();
    next(&mut stream).await.unwrap();
    system.agent.process.signal(signet_tests::process::Signal::TERM);
    let end = next(&mut stream).await.expect_err("the end");
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    assert!(end.message().contains("shutting down"), "{end}");
    drop(system.cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_workload_that_asks_too_often_is_told_to_come_back() {
    let system = System::start(&[mine("shop/cart")], "1h").await;
    let socket = system.socket();
    let mut api = client(&socket);
    let mut refused = None;
    for _ in 0..2_000 {
        let request = signet_proto::wire::JwtsvidRequest {
            audience: vec!["x".into()],
            spiffe_id: String::new(),
        };
        if let Err(status) = api.fetch_jwtsvid(secure(request)).await {
            refused = Some(status);
            break;
        }
    }
    let status = refused.expect("a limit");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let scrape = system.agent.scrape().await;
    let labels = [("reason", "too_often")];
    assert!(scrape.value("signet_agent_workload_api_refusals_total", &labels) >= 1.0);
    // Streams are not counted among them.
    x509(&socket).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_beside_one_workload_serves_its_identity_and_tokens_too() {
    let cluster = Cluster::start();
    let ca = Ca::start(&cluster).await;
    let agent = Agent::start(&cluster, &ca, "shop", "cart", "1h").await;
    let socket = agent.socket();
    let message = x509(&socket).await.unwrap();
    assert_eq!(message.svids[0].spiffe_id, CART);
    let tokens = jwt(&socket, &["x"], "").await.unwrap();
    assert_eq!(tokens.svids[0].spiffe_id, CART);
    let valid = validate(&socket, "x", &tokens.svids[0].svid).await.unwrap();
    assert_eq!(valid.spiffe_id, CART);
    let refused = jwt(&socket, &["x"], WEB).await.expect_err("another's");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// What a reflection tool asks first, without the security metadata, which it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn reflection_tells_the_standard_services_and_no_method_more() {
    let system = System::start(&[mine("shop/cart")], "1h").await;
    let mut tool = reflection::Tool::of(&system.socket());
    let mut services = tool.services().await;
    services.retain(|name| !name.starts_with("grpc.reflection."));
    services.sort();
    let sds = "envoy.service.secret.v3.SecretDiscoveryService";
    let policies = "signet.policy.v1.PolicyDiscovery";
    assert_eq!(services, ["SpiffeWorkloadAPI", sds, policies]);
    let methods = tool.methods("SpiffeWorkloadAPI").await;
    assert_eq!(
        methods,
        [
            "FetchX509SVID",
            "FetchX509Bundles",
            "FetchJWTSVID",
            "FetchJWTBundles",
            "ValidateJWTSVID",
            "FetchWITSVID",
            "FetchWITBundles",
        ]
    );
}

mod reflection {
    use std::path::Path;

    use prost::Message as _;
    use prost_types::FileDescriptorProto;
    use signet_runtime::grpc::{Timeouts, unix_channel};
    use tonic::transport::Channel;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    pub(super) struct Tool(ServerReflectionClient<Channel>);

    impl Tool {
        pub(super) fn of(socket: &Path) -> Self {
            Self(ServerReflectionClient::new(unix_channel(
                socket.to_owned(),
                Timeouts::default(),
            )))
        }

        async fn ask(&mut self, message: MessageRequest) -> MessageResponse {
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(message),
            };
            let answers = self.0.server_reflection_info(tokio_stream::once(request)).await;
            let answer = answers.unwrap().into_inner().message().await.unwrap();
            answer.unwrap().message_response.unwrap()
        }

        pub(super) async fn services(&mut self) -> Vec<String> {
            match self.ask(MessageRequest::ListServices(String::new())).await {
                MessageResponse::ListServicesResponse(list) => {
                    list.service.into_iter().map(|service| service.name).collect()
                }
                other => panic!("{other:?}"),
            }
        }

        pub(super) async fn methods(&mut self, service: &str) -> Vec<String> {
            let symbol = MessageRequest::FileContainingSymbol(service.into());
            let MessageResponse::FileDescriptorResponse(found) = self.ask(symbol).await else {
                panic!("no descriptor of {service}")
            };
            let file = FileDescriptorProto::decode(found.file_descriptor_proto[0].as_slice()).unwrap();
            let service = file.service.iter().find(|s| s.name() == service).unwrap();
            service.method.iter().map(|m| m.name().to_owned()).collect()
        }
    }
}
