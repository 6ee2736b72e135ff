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
        ("workers: 0", "workers: must be between 1 and 64"),
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
        ("trust_domain_aliases: [\"A\"]", "trust_domain_aliases: \"A\""),
    ] {
        let found = faults(&format!("{LEAST}{text}\n"));
        assert!(found.contains(said), "{text}: {found}");
    }
}

#[test]
fn blocks_hold_their_addresses_and_mapped_ones() {
    let block = |text: &str| text.parse::<listeners::Block>().unwrap();
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
