use super::*;

const LEAST: &str = "policies: {directory: /etc/signet/policies, namespace: backend, labels: {app: b}}\n";

fn faults(text: &str) -> String {
    Config::from_text(text).unwrap_err().to_string()
}

#[test]
fn the_least_configuration_says_where_policies_come_from() {
    let config = Config::from_text(LEAST).unwrap();
    assert_eq!(config.destinations.1, Reach::Refuse);
    assert_eq!(config.local.namespace.as_deref(), Some("backend"));
    assert_eq!(config.local.app.as_deref(), Some("b"));
    assert!(!config.tls12);
    assert!(faults("").contains("policies: "), "{}", faults(""));
    assert!(faults("policies: agnet").contains("\"agnet\" is not agent"));
}

#[test]
fn what_the_agent_does_is_not_configured_beside_it() {
    for key in [
        "blocked_cidrs: [10.0.0.0/8]",
        "ca_file: /c",
        "issuers: [{issuer: a, jwks_file: /a}]",
    ] {
        let found = faults(&format!("policies: agent\njwt: {{{key}}}\n"));
        assert!(
            found.contains("jwt: has no effect with policies: agent"),
            "{found}"
        );
    }
    assert!(Config::from_text("policies: agent\njwt: {}\n").is_ok());
}

#[test]
fn a_port_without_a_protocol_is_what_others_say_of_it() {
    for (said, auto) in [
        ("", true),
        (", protocol: auto", true),
        (", protocol: tcp", false),
        (", protocol: http", false),
    ] {
        let text = format!("{LEAST}inbound: [{{listen: '127.0.0.1:0', upstream: '127.0.0.1:80'{said}}}]\n");
        assert_eq!(Config::from_text(&text).unwrap().inbound[0].auto, auto, "{said}");
    }
}

#[test]
fn what_is_printed_can_be_read_again() {
    let text = format!(
        "{LEAST}inbound:\n- {{listen: 127.0.0.1:0, upstream: 127.0.0.1:8080, protocol: http, tls: terminate}}\n\
         outbound:\n- {{listen: 127.0.0.1:0, upstream: \"b.example:80\", mtls: {{expected: [\"spiffe://a/ns/b/sa/c\"]}}}}\n"
    );
    let config = Config::from_text(&text).unwrap();
    let again = Config::from_text(&config.print().unwrap()).unwrap();
    assert_eq!(config.inbound, again.inbound);
    assert_eq!(config.outbound, again.outbound);
    assert_eq!(config.limits, again.limits);
}

#[test]
fn every_fault_is_told_with_its_place() {
    for (text, said) in [
        ("admin_listen: 0.0.0.0:15000", "is not on loopback"),
        (
            "admin_socket: admin.sock",
            "admin_socket: must be an absolute path",
        ),
        (
            "admin_socket: /run/signet/workload/admin.sock",
            "must not be in the directory of agent_socket",
        ),
        ("workers: 0", "workers: must be between 1 and 64"),
        (
            "jwt: {issuers: [{issuer: a, jwks_file: /a}, {issuer: a, jwks_file: /b}]}",
            "jwt.issuers[1].issuer: \"a\" stands twice",
        ),
        (
            "default_outbound: allow",
            "\"allow\" is none of refuse, plaintext",
        ),
        (
            "limits: {handshake: 1ms}",
            "limits.handshake: must be between 100ms and 5m",
        ),
        (
            "limits: {first_bytes: 20s}",
            "must not be longer than limits.handshake",
        ),
        (
            "limits: {connections: 0}",
            "limits.connections: must be at least 1",
        ),
        (
            "inbound: [{listen: 127.0.0.1:0, upstream: 127.0.0.1:80, protocol: htpt}]",
            "inbound[0].protocol: \"htpt\" is none of",
        ),
        (
            "outbound: [{listen: 127.0.0.1:0, upstream: \"b:80\"}]",
            "outbound[0]: write either mtls",
        ),
        (
            "outbound: [{listen: 127.0.0.1:0, upstream: \"b:80\", mtls: {expected: []}}]",
            "must name 1 to 64 SPIFFE IDs",
        ),
        (
            "outbound: [{listen: 127.0.0.1:0, upstream: \"b:80\", plaintext: true, mtls: {expected: [\"spiffe://a/b\"]}}]",
            "outbound[0]: write either mtls",
        ),
        (
            "destinations: [{cidr: 10.0.0.0/33, plaintext: true}]",
            "destinations[0].cidr: \"10.0.0.0/33\"",
        ),
        (
            "outbound: [{listen: 0.0.0.0:9000, upstream: \"b:80\", plaintext: true}]",
            "outbound[0].listen: 0.0.0.0:9000 can be reached from other machines",
        ),
        (
            "outbound: [{listen: \"[::]:9000\", upstream: \"b:80\", plaintext: true, allow_remote_clients: false}]",
            "or write allow_remote_clients: true",
        ),
        (
            "limits: {unsettled_connections: 0}",
            "limits.unsettled_connections: must be at least 1",
        ),
        (
            "limits: {outbound_connections: 0}",
            "limits.outbound_connections: must be at least 1",
        ),
        (
            "limits: {http: {upstream_requests: 4, upstream_requests_per_source: 5}}",
            "limits.http.upstream_requests_per_source: must be between 1 and 4",
        ),
        ("trust_domain_aliases: [\"A\"]", "trust_domain_aliases: \"A\""),
    ] {
        let found = faults(&format!("{LEAST}{text}\n"));
        assert!(found.contains(said), "{text}: {found}");
    }
}

#[test]
fn an_outbound_listener_serves_other_machines_only_where_it_is_said() {
    for (listen, said) in [
        ("127.0.0.1:1", ""),
        ("127.8.0.1:1", ""),
        ("[::1]:1", ""),
        ("[::ffff:127.0.0.1]:1", ""),
        ("10.0.0.1:1", ", allow_remote_clients: true"),
        ("0.0.0.0:1", ", allow_remote_clients: true"),
    ] {
        let text =
            format!("{LEAST}outbound: [{{listen: '{listen}', upstream: 'b:80', plaintext: true{said}}}]\n");
        let config = Config::from_text(&text).unwrap_or_else(|faults| panic!("{listen}: {faults}"));
        assert_eq!(config.outbound[0].listen, listen.parse().unwrap());
    }
}

#[test]
fn one_address_has_a_quarter_of_the_connections_and_half_of_the_requests_unless_it_is_said() {
    let limits = |text: &str| Config::from_text(&format!("{LEAST}{text}")).unwrap().limits;
    let found = limits("");
    assert_eq!((found.connections, found.connections_per_source), (20_000, 5_000));
    assert_eq!(
        (found.unsettled_connections, found.outbound_connections),
        (15_000, 20_000)
    );
    assert_eq!(
        (
            found.http.upstream_requests,
            found.http.upstream_requests_per_source
        ),
        (1024, 512)
    );
    let found = limits("limits: {connections: 3, http: {upstream_requests: 1}}");
    assert_eq!(
        (
            found.connections_per_source,
            found.http.upstream_requests_per_source
        ),
        (1, 1)
    );
    let found = limits("limits: {connections: 3, connections_per_source: 3}");
    assert_eq!(found.connections_per_source, 3);
}

#[test]
fn blocks_hold_their_addresses_and_mapped_ones() {
    let block = |text: &str| text.parse::<Block>().unwrap();
    let holds = |text: &str, address: &str| block(text).contains(address.parse().unwrap());
    assert!(holds("10.0.0.0/8", "10.1.2.3"));
    assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
    assert!(!holds("10.0.0.0/8", "11.0.0.1"));
    assert!(!holds("::/0", "10.0.0.1"));
    assert!(holds("0.0.0.0/0", "10.0.0.1"));
    assert!(holds("fd00::/8", "fd12::1"));
    assert!(holds("127.0.0.1", "127.0.0.1"));
    assert!(!holds("127.0.0.1", "127.0.0.2"));
}
