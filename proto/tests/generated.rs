//! The generated code is checked in and made by one recipe: this test. It needs no `protoc`.
//! `SIGNET_REGENERATE=1 cargo test -p signet-proto --test generated` writes it anew.

use std::fs;
use std::path::Path;

const PROTOS: &[&str] = &[
    "istio_ca.proto",
    "signet_ca.proto",
    "signet_policy.proto",
    "workload.proto",
    "envoy/service/secret/v3/sds.proto",
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/extensions/transport_sockets/tls/v3/secret.proto",
];

/// What the agent's socket serves, for gRPC reflection.
const ON_THE_SOCKET: &[&str] = &[
    "workload.proto",
    "signet_policy.proto",
    "envoy/service/secret/v3/sds.proto",
];

#[test]
fn generated_code_is_what_the_protos_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(PROTOS, [root.join("proto")]).expect("the protos compile");
    let out = tempfile::tempdir().expect("a temporary directory");
    tonic_prost_build::configure()
        .bytes(".")
        // These may hold a private key, so their Debug is written by hand (I3).
        .skip_debug([
            ".envoy.config.core.v3.DataSource",
            ".envoy.service.discovery.v3.DiscoveryResponse",
            ".envoy.service.discovery.v3.DeltaDiscoveryResponse",
            ".envoy.service.discovery.v3.Resource",
            ".signet.ca.v1.MintJwtSvidResponse",
            ".X509SVID",
            ".JWTSVID",
            ".WITSVID",
            ".ValidateJWTSVIDRequest",
            // Headers of requests hold tokens and passwords.
            ".envoy.service.auth.v3.AttributeContext.HttpRequest",
            ".envoy.config.core.v3.HeaderValue",
        ])
        // Maps in one order, so that the same content gives the same bytes.
        .btree_map(".X509SVIDResponse")
        .btree_map(".X509BundlesResponse")
        .btree_map(".JWTBundlesResponse")
        .btree_map(".envoy.service.auth.v3")
        .btree_map(".signet.policy.v1")
        .include_file("mod.rs")
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("code is generated");
    let described = protox::Compiler::new([root.join("proto")])
        .expect("a compiler")
        .include_imports(true)
        .open_files(ON_THE_SOCKET)
        .expect("the protos compile")
        .encode_file_descriptor_set();
    fs::write(out.path().join("socket.descriptors"), described).expect("written");
    let checked_in = root.join("src/gen");
    #[expect(clippy::disallowed_methods, reason = "the one switch of this recipe")]
    let regenerate = std::env::var("SIGNET_REGENERATE").is_ok();
    for entry in fs::read_dir(out.path()).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        let fresh = fs::read(&path).expect("bytes");
        if regenerate {
            fs::create_dir_all(&checked_in).expect("a directory");
            fs::write(checked_in.join(name), &fresh).expect("written");
        }
        let kept = fs::read(checked_in.join(name)).unwrap_or_default();
        assert!(
            fresh == kept,
            "{} differs from its proto; run the recipe at the top of this file",
            name.display()
        );
    }
}
