use super::*;
use signet_runtime::config::from_text;

fn check(text: &str) -> Result<Config, String> {
    Config::check(from_text(text).map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}

#[test]
fn the_least_configuration_says_only_where_the_root_is_kept() {
    let config = check("state_directory: /var/lib/signet\n").unwrap();
    assert_eq!(config.lifetimes.svid.default, Duration::from_secs(86_400));
    assert_eq!(config.audiences, ["signet-ca"]);
    assert_eq!(check(&config.print()).unwrap().print(), config.print());
}

#[test]
fn every_fault_is_told_at_once() {
    let faults = check(
        "trust_domain: Cluster.Local\nlisten: nowhere\nsvid_ttl: 48h\nmax_svid_ttl: 24h\nreviews_in_flight: 0\n",
    )
    .unwrap_err();
    for part in [
        "5 faults",
        "trust_domain: \"Cluster.Local\": trust domain may hold only",
        "listen: \"nowhere\"",
        "svid_ttl: 2d is above max_svid_ttl, 1d",
        "reviews_in_flight: must be at least 1",
        "state_directory: say where the root is kept",
    ] {
        assert!(faults.contains(part), "{part} is missing in\n{faults}");
    }
}

#[test]
fn an_svid_may_not_outlive_half_of_its_issuer() {
    let text = "state_directory: /x\nissuing_life: 36h\n";
    assert!(
        check(text)
            .unwrap_err()
            .contains("max_svid_ttl: 1d is above half of issuing_life, 1d12h")
    );
}

#[test]
fn nobody_gets_a_serving_name_of_the_ca() {
    let text =
        "state_directory: /x\nextra_dns_names: {shop/cart: [signet-ca.signet-system.svc, cart.shop]}\n";
    let faults = check(text).unwrap_err();
    assert!(
        faults.contains("is a serving name of the CA itself; nobody else may have it"),
        "{faults}"
    );
}

#[test]
fn node_accounts_are_none_unless_named_and_each_must_be_one() {
    assert!(check("state_directory: /x\n").unwrap().node_accounts.is_empty());
    let config = check("state_directory: /x\ntrusted_node_accounts: [signet-system/signet-agent]\n").unwrap();
    assert_eq!(config.node_accounts.len(), 1);
    assert_eq!(
        check(&config.print()).unwrap().node_accounts,
        config.node_accounts
    );
    let text = "state_directory: /x\ntrusted_node_accounts: [a/b, a/b, '*/ztunnel', ztunnel, a/b/c]\n";
    let faults = check(text).unwrap_err();
    assert!(
        faults.contains("4 faults") && faults.contains("named twice"),
        "{faults}"
    );
}

#[test]
fn istio_compatibility_adds_its_audience_name_and_configmap_and_prints_stably() {
    let config = check("state_secret: a/b\nistio_compatibility: true\n").unwrap();
    assert_eq!(config.audiences, ["signet-ca", "istio-ca"]);
    assert!(
        config
            .endpoints
            .names
            .contains(&"istiod.istio-system.svc".to_owned())
    );
    assert_eq!(
        config.publishing.configmaps,
        ["signet-ca-root-cert", "istio-ca-root-cert"]
    );
    assert_eq!(check(&config.print()).unwrap().print(), config.print());
}
