//! Defaults, faults and printing.

use super::*;
use signet_runtime::config::from_text;

fn faults(yaml: &str) -> Vec<String> {
    from_text::<Raw>(yaml)
        .and_then(Config::check)
        .map(|_| ())
        .unwrap_err()
        .faults
}

#[test]
fn an_empty_file_is_a_whole_configuration() {
    let config = Config::check(from_text("").unwrap()).unwrap();
    assert_eq!(config.ca.address(), "signet-ca.signet-system.svc:15012");
    assert_eq!(config.ca.server_name.to_str(), "signet-ca.signet-system.svc");
    assert_eq!(config.workload.mode, 0o660);
    let allowed_uids = vec![signet_runtime::socket::own_uid()];
    assert_eq!(config.attestor, attest::Settings::Own { allowed_uids });
    assert_eq!(config.jwt_svid_ttl, Duration::from_secs(300));
    assert_eq!(config.svid_ttl, Duration::from_secs(86_400));
    assert!(config.output.is_none());
}

#[test]
fn what_is_printed_is_read_back_as_the_same() {
    let yaml = "ca_address: '[::1]:15012'\noutput: {directory: /out, on_change: [reload, --now]}\n";
    let config = Config::check(from_text(yaml).unwrap()).unwrap();
    let printed = config.print().unwrap();
    let again = Config::check(from_text(&printed).unwrap()).unwrap();
    assert_eq!(again.print().unwrap(), printed);
    assert_eq!(again.output, config.output);
    assert_eq!(again.ca.host, "::1");
}

#[test]
fn every_fault_is_told_at_once_and_says_what_would_be_right() {
    let yaml = "trust_domain: Bad.Domain\nca_address: nowhere\nsocket_mode: rw\nsvid_ttl: 1s\n\
                metrics_listen: everywhere\nlog_format: xml\nadmin_socket: /run/signet/workload/a.sock\n\
                ca_deadline: 1h\noutput: {directory: out, on_change: []}\n";
    let faults = faults(yaml);
    for wanted in [
        "trust_domain: \"Bad.Domain\": trust domain may hold only a-z, 0-9, '.', '-' and '_', not 'B'",
        "ca_address: \"nowhere\" is not host:port, as in signet-ca.signet-system.svc:15012",
        "socket_mode: \"rw\" is not an octal mode that lets the owner read and write, as in \"0660\"",
        "svid_ttl: must be at least 10s",
        "log_format: \"xml\" is neither \"json\" nor \"text\"",
        "admin_socket: must not lie in /run/signet/workload, the directory of the workload socket, which is \
         mounted into pods",
        "ca_deadline: must be between 100ms and 5m",
        "output.directory: out must be an absolute path",
        "output.on_change: names no program; write it as [program, argument, …]",
    ] {
        assert!(faults.iter().any(|f| f == wanted), "{wanted}\nnot in {faults:#?}");
    }
    assert_eq!(faults.len(), 10, "{faults:#?}");
}

#[test]
fn a_hook_and_a_signal_exclude_each_other() {
    let both = "output: {directory: /o, on_change: [a], signal: {pid_file: /p, name: SIGHUP}}\n";
    assert_eq!(faults(both), ["output: has both on_change and signal; keep one"]);
    let strange = "output: {directory: /o, signal: {pid_file: /p, name: SIGKILL}}\n";
    assert_eq!(
        faults(strange),
        ["output.signal.name: \"SIGKILL\": is not one of SIGHUP, SIGUSR1, SIGUSR2"]
    );
}

#[test]
fn unknown_keys_are_refused_by_name() {
    assert!(faults("token_flie: /x\n")[0].contains("token_flie"));
}

#[test]
fn rules_of_the_unix_attestor_are_read_in_their_order() {
    let yaml = "attestor: unix\nworkloads:\n- {service_account: shop/cart, uid: 1001, hint: internal}\n\
                - {service_account: shop/web, executable: /usr/bin/envoy}\n";
    let config = Config::check(from_text(yaml).unwrap()).unwrap();
    let attest::Settings::Unix { host_proc, rules } = &config.attestor else {
        panic!("{:?}", config.attestor)
    };
    assert_eq!(host_proc, Path::new("/proc"));
    assert_eq!(rules[0].id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(
        (rules[0].uid, rules[0].hint.as_deref()),
        (Some(1001), Some("internal"))
    );
    assert_eq!(rules[1].executable.as_deref(), Some(Path::new("/usr/bin/envoy")));
    let printed = config.print().unwrap();
    let again = Config::check(from_text(&printed).unwrap()).unwrap();
    assert_eq!(again.print().unwrap(), printed);
    assert_eq!(again.attestor, config.attestor);
}

#[test]
fn faults_of_the_attestors_are_told_with_the_others() {
    let yaml = "attestor: unix\nsvid_ttl: 1s\nallowed_uids: [0]\nnode_name: n1\njwt_svid_ttl: 1s\n\
                output: {directory: /out}\nworkloads:\n- {service_account: cart, uid: 1}\n\
                - {service_account: shop/cart}\n- {service_account: shop/Web, executable: envoy, hint: ''}\n";
    let faults = faults(yaml);
    for wanted in [
        "svid_ttl: must be at least 10s",
        "jwt_svid_ttl: must be between 30s and 1d",
        "allowed_uids: has no effect with attestor: unix; it belongs to own",
        "node_name: has no effect with attestor: unix; it belongs to kubernetes",
        "output: is written of the agent's own SVID only; leave it out, or set attestor: own",
        "workloads[0]: service_account: \"cart\" is not namespace/name, as in shop/cart",
        "workloads[1]: asks for nothing, so every process would match; give uid, gid or executable",
        "workloads[2]: executable: envoy must be an absolute path",
        "workloads[2]: hint: must have 1 to 128 bytes and no control characters",
        "workloads[2]: service_account: service account \"Web\" is not a DNS subdomain (a-z, 0-9, '-', '.', at \
         most 253 bytes)",
    ] {
        assert!(faults.iter().any(|f| f == wanted), "{wanted}\nnot in {faults:#?}");
    }
    assert_eq!(faults.len(), 10, "{faults:#?}");
}

#[test]
fn the_kubernetes_attestor_needs_to_know_its_node_from_the_file_or_the_pod() {
    let yaml = "attestor: kubernetes\n";
    assert_eq!(
        faults(yaml),
        [
            "node_name: is not known; give the pod the environment variable NODE_NAME from spec.nodeName, or set the key"
        ]
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.yaml");
    let load = |yaml: &str| {
        std::fs::write(&path, yaml).unwrap();
        let downward = Downward {
            node_name: Some("n1".into()),
            pod_uid: Some("u1".into()),
        };
        Config::load(&path, downward).unwrap().attestor
    };
    let settings = |node_name: &str| attest::Settings::Kubernetes {
        host_proc: "/proc".into(),
        node_name: node_name.into(),
        pod_uid: Some("u1".into()),
        kubeconfig: None,
    };
    assert_eq!(load(yaml), settings("n1"));
    assert_eq!(load("attestor: kubernetes\nnode_name: n2\n"), settings("n2"));
    assert!(
        matches!(load(""), attest::Settings::Own { .. }),
        "elsewhere nobody asks"
    );
}

#[test]
fn an_attestor_that_does_not_exist_is_refused_by_name() {
    assert_eq!(
        faults("attestor: docker\n"),
        ["attestor: \"docker\" is not one of \"own\", \"unix\", \"kubernetes\""]
    );
}

#[test]
fn policies_come_from_one_source_for_an_attestor_that_knows_workloads() {
    let node = "attestor: kubernetes\nnode_name: n\n";
    let unix = "attestor: unix\nworkloads: [{service_account: a/b, uid: 1}]\n";
    let sound = |yaml: &str| Config::check(from_text(yaml).unwrap()).unwrap().policies;
    assert_eq!(sound(node), None);
    let settings = sound(&format!(
        "{node}kubeconfig: /k\npolicies: {{source: kubernetes}}\n"
    ))
    .unwrap();
    let kubeconfig = Some(PathBuf::from("/k"));
    assert_eq!(settings.source, crate::policy::Source::Kubernetes { kubeconfig });
    assert_eq!(settings.root_namespace, "istio-system");
    sound(&format!(
        "{unix}kubeconfig: /k\npolicies: {{source: kubernetes}}\n"
    ))
    .unwrap();
    sound(&format!(
        "{unix}policies: {{source: directory, directory: /p, trust_domain_aliases: [old]}}\n"
    ))
    .unwrap();
    for (yaml, wanted) in [
        (
            "policies: {source: directory, directory: /p}\n".to_owned(),
            "policies: need to know which workload",
        ),
        (
            format!("{unix}policies: {{source: kubernetes}}\n"),
            "policies.source: kubernetes with attestor: unix needs",
        ),
        (
            format!("{unix}kubeconfig: /k\n"),
            "kubeconfig: has no effect with attestor: unix",
        ),
        (
            format!("{unix}policies: {{source: directory}}\n"),
            "policies.directory: is missing",
        ),
        (
            format!("{unix}policies: {{source: directory, directory: p}}\n"),
            "policies.directory: p must be an absolute",
        ),
        (
            format!("{node}policies: {{source: kubernetes, directory: /p}}\n"),
            "policies.directory: has no effect",
        ),
        (
            format!("{node}policies: {{source: git}}\n"),
            "policies.source: \"git\" is neither",
        ),
        (
            format!("{node}policies: {{source: kubernetes, root_namespace: ''}}\n"),
            "policies.root_namespace: must have",
        ),
        (
            format!("{node}policies: {{source: kubernetes, trust_domain_aliases: [Bad]}}\n"),
            "policies.trust_domain_aliases: \"Bad\"",
        ),
        (
            format!("{node}policies: {{source: kubernetes, jwt: {{blocked_cidrs: [10.0.0.0/33]}}}}\n"),
            "policies.jwt.blocked_cidrs: \"10.0.0.0/33\"",
        ),
        (
            format!("{node}policies: {{source: kubernetes, jwt: {{ca_file: c}}}}\n"),
            "policies.jwt.ca_file: must be an absolute",
        ),
    ] {
        let found = faults(&yaml);
        assert!(
            found.len() == 1 && found[0].starts_with(wanted),
            "{wanted}\nnot {found:#?}"
        );
    }
    let two = "attestor: unix\nworkloads: [{service_account: a/b, uid: 1, labels: {x: a}}, {service_account: a/b, uid: 2}]\n";
    assert!(faults(two)[0].starts_with("workloads[1]: labels: another rule"));
}
