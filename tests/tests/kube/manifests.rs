//! The files of `deploy/`: no field is lost or misspelt, and they fit together and to the programs.

use std::collections::BTreeSet;
use std::process::Command;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::storage::v1::CSIDriver;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use signet_tests::dir::Dir;
use signet_tests::kube::manifests::{FOLDERS, Manifest, of, repository, text, yaml};
use signet_tests::peers;
use signet_tests::process::program;

fn through<T: Serialize + DeserializeOwned>(manifest: &Manifest) -> Value {
    let typed: T = serde_json::from_value(manifest.object.clone())
        .unwrap_or_else(|e| panic!("{}: {e}", manifest.file.display()));
    serde_json::to_value(typed).unwrap()
}

#[test]
fn every_manifest_comes_out_of_its_type_as_it_went_in() {
    for manifest in FOLDERS.into_iter().flat_map(of) {
        let (version, kind) = (manifest.object["apiVersion"].as_str().unwrap(), manifest.kind());
        let printed = match (version, kind) {
            ("v1", "Namespace") => through::<Namespace>(&manifest),
            ("v1", "ServiceAccount") => through::<ServiceAccount>(&manifest),
            ("v1", "ConfigMap") => through::<ConfigMap>(&manifest),
            ("v1", "Service") => through::<Service>(&manifest),
            ("apps/v1", "Deployment") => through::<Deployment>(&manifest),
            ("apps/v1", "DaemonSet") => through::<DaemonSet>(&manifest),
            ("storage.k8s.io/v1", "CSIDriver") => through::<CSIDriver>(&manifest),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => {
                through::<CustomResourceDefinition>(&manifest)
            }
            ("policy/v1", "PodDisruptionBudget") => through::<PodDisruptionBudget>(&manifest),
            ("networking.k8s.io/v1", "NetworkPolicy") => through::<NetworkPolicy>(&manifest),
            ("rbac.authorization.k8s.io/v1", "ClusterRole") => through::<ClusterRole>(&manifest),
            ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
                through::<ClusterRoleBinding>(&manifest)
            }
            ("rbac.authorization.k8s.io/v1", "Role") => through::<Role>(&manifest),
            ("rbac.authorization.k8s.io/v1", "RoleBinding") => through::<RoleBinding>(&manifest),
            other => panic!("{}: no type for {other:?}; add it here", manifest.file.display()),
        };
        assert_eq!(printed, manifest.object, "{}", manifest.file.display());
    }
}

#[test]
fn a_misspelt_field_would_be_noticed() {
    let mut manifest = deployment("deploy/ca");
    manifest.object["spec"]["template"]["spec"]["terminationGracePeriod"] = json!(30);
    assert_ne!(through::<Deployment>(&manifest), manifest.object);
}

#[test]
fn a_kustomization_lists_exactly_the_files_beside_it() {
    for folder in FOLDERS {
        let listed: BTreeSet<String> = of(folder)
            .iter()
            .map(|m| m.file.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        let there = std::fs::read_dir(repository().join(folder)).unwrap();
        let there = there.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let there: BTreeSet<String> = there.filter(|name| name != "kustomization.yaml").collect();
        assert_eq!(listed, there, "{folder}");
        let keys = yaml(&text(format!("{folder}/kustomization.yaml")));
        let keys: Vec<&String> = keys.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            ["apiVersion", "kind", "resources"],
            "{folder}: plain files only"
        );
    }
}

#[test]
fn the_deployed_configurations_pass_check_config() {
    for (folder, map, key, binary) in [
        ("deploy/ca", "signet-ca", "ca.yaml", "signet-ca"),
        (
            "deploy/agent-sidecar",
            "signet-agent",
            "agent.yaml",
            "signet-agent",
        ),
        ("deploy/agent-node", "signet-agent", "agent.yaml", "signet-agent"),
        (
            "deploy/proxy-sidecar",
            "signet-proxy",
            "proxy.yaml",
            "signet-proxy",
        ),
    ] {
        let dir = Dir::new();
        let file = dir.write(key, config_map(folder, map)["data"][key].as_str().unwrap());
        let checked = Command::new(program(binary))
            .arg("check-config")
            .arg("--config")
            .arg(file)
            .env("NODE_NAME", "as the downward API gives it")
            .output()
            .unwrap();
        assert!(
            checked.status.success(),
            "{folder}: {}",
            String::from_utf8_lossy(&checked.stderr)
        );
    }
}

#[test]
fn the_parts_of_the_ca_refer_to_each_other() {
    let all = of("deploy/ca");
    let deployment = deployment("deploy/ca").object;
    let config = yaml(
        config_map("deploy/ca", "signet-ca")["data"]["ca.yaml"]
            .as_str()
            .unwrap(),
    );
    let pod = &deployment["spec"]["template"];
    let labels = pod["metadata"]["labels"].as_object().unwrap();
    for (kind, place) in [
        ("Service", "/spec/selector"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "/spec/podSelector/matchLabels"),
        ("Deployment", "/spec/selector/matchLabels"),
    ] {
        let object = &all.iter().find(|m| m.kind() == kind).unwrap().object;
        let selector = object.pointer(place).and_then(Value::as_object).unwrap();
        assert!(
            selector.iter().all(|(key, value)| labels.get(key) == Some(value)),
            "{kind} selects the pods"
        );
    }
    let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    let drain: signet_runtime::config::HumanDuration = config["drain"].as_str().unwrap().parse().unwrap();
    assert!(
        grace > drain.0.as_secs() + 5,
        "the drain fits into the grace period"
    );
    let printed = printed("signet-ca", "state_secret: a/b\n");
    let role = &all.iter().find(|m| m.kind() == "Role").unwrap().object;
    let state = config["state_secret"].as_str().unwrap().split_once('/').unwrap();
    assert_eq!(role["metadata"]["namespace"], state.0);
    assert_eq!(role["rules"][1]["resourceNames"], json!([state.1]));
    let cluster = &all.iter().find(|m| m.kind() == "ClusterRole").unwrap().object;
    let named: Vec<&Value> = cluster["rules"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|rule| rule.get("resourceNames"))
        .collect();
    assert_eq!(named, [&json!([printed["roots_configmap"]])]);
    let service = all.iter().find(|m| m.kind() == "Service").unwrap();
    let container = &pod["spec"]["containers"][0];
    for (index, key) in ["listen", "metrics_listen"].into_iter().enumerate() {
        let port = printed[key].as_str().unwrap().rsplit_once(':').unwrap().1;
        assert_eq!(
            container["ports"][index]["containerPort"].to_string(),
            port,
            "{key}"
        );
        assert_eq!(
            service.object["spec"]["ports"][index]["port"].to_string(),
            port,
            "{key}"
        );
        assert_eq!(
            service.object["spec"]["ports"][index]["targetPort"],
            container["ports"][index]["name"]
        );
    }
}

/// The lines that the folder's own comment shows.
fn shown_for_federation() -> Value {
    let comment = text("deploy/ca-federation/kustomization.yaml");
    let lines = comment.lines().filter_map(|line| line.strip_prefix("#   "));
    yaml(&lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn the_ports_for_other_trust_domains_are_those_of_the_configuration_shown_beside_them() {
    let shown = shown_for_federation();
    let dir = Dir::new();
    let mut config = shown.clone();
    config["state_secret"] = json!("a/b");
    let file = dir.write("ca.yaml", config.to_string());
    let checked = Command::new(program("signet-ca"))
        .args(["check-config", "--config"])
        .arg(file)
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    let port = |address: &Value| address.as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let listened = [
        port(&shown["bundle_endpoint"]["listen"]),
        port(&shown["oidc_listen"]),
    ];
    let all = of("deploy/ca-federation");
    let object = |kind: &str| &all.iter().find(|m| m.kind() == kind).unwrap().object;
    let ports = |list: &Value, key: &str| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|port| port[key].to_string()).collect()
    };
    let (service, policy) = (object("Service"), object("NetworkPolicy"));
    assert_eq!(ports(&service["spec"]["ports"], "targetPort"), listened);
    let opened = policy["spec"]["ingress"].as_array().unwrap().iter();
    let opened: Vec<String> = opened.flat_map(|rule| ports(&rule["ports"], "port")).collect();
    assert_eq!(opened, listened);
    let pod = deployment("deploy/ca").object["spec"]["template"].clone();
    for selector in [
        &service["spec"]["selector"],
        &policy["spec"]["podSelector"]["matchLabels"],
    ] {
        let selector = selector.as_object().unwrap();
        assert!(
            selector
                .iter()
                .all(|(key, value)| pod["metadata"]["labels"][key] == *value)
        );
    }
    for manifest in &all {
        assert_eq!(manifest.object["metadata"]["namespace"], "signet-system");
    }
}

#[test]
fn the_sidecar_asks_for_what_the_agent_reads_by_default() {
    let printed = printed("signet-agent", "");
    let pod = deployment("deploy/agent-sidecar").object["spec"]["template"]["spec"].clone();
    let agent = &pod["initContainers"][0];
    let mount = |container: &Value, volume: &str| -> String {
        let mounts = container["volumeMounts"].as_array().unwrap();
        let found = mounts.iter().find(|mount| mount["name"] == volume);
        found.map_or_else(String::new, |mount| {
            mount["mountPath"].as_str().unwrap().to_owned()
        })
    };
    let volume = |name: &str| {
        pod["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|v| v["name"] == name)
            .unwrap()
            .clone()
    };
    let token = volume("token")["projected"]["sources"][0]["serviceAccountToken"].clone();
    assert_eq!(
        format!("{}/{}", mount(agent, "token"), token["path"].as_str().unwrap()),
        printed["token_file"]
    );
    let ca = self::printed("signet-ca", "state_secret: a/b\n");
    assert_eq!(ca["audiences"], json!([token["audience"]]));
    assert_eq!(volume("roots")["configMap"]["name"], ca["roots_configmap"]);
    assert_eq!(
        format!("{}/root-cert.pem", mount(agent, "roots")),
        printed["ca_root_file"]
    );
    assert_eq!(
        format!("{}/agent.sock", mount(agent, "workload-socket")),
        printed["socket"]
    );
    assert_eq!(
        format!("{}/admin/admin.sock", mount(agent, "run")),
        printed["admin_socket"]
    );
    let envoy = &pod["containers"][0];
    assert_eq!(mount(envoy, "workload-socket"), mount(agent, "workload-socket"));
    assert_eq!(mount(envoy, "run"), "", "the admin socket is the agent's alone");
    assert_eq!(pod["automountServiceAccountToken"], false);
    let config = yaml(
        config_map("deploy/agent-sidecar", "signet-agent")["data"]["agent.yaml"]
            .as_str()
            .unwrap(),
    );
    let uids = [agent, envoy].map(|container| container["securityContext"]["runAsUser"].clone());
    assert_eq!(config["allowed_uids"], json!(uids));
}

/// Containers that need what the restricted profile forbids, and what that is.
const UNRESTRICTED: [(&str, &str); 2] = [
    (
        "signet-node/signet-agent",
        "hostPID, one directory of the node, and its owner's uid",
    ),
    (
        "signet-node/spiffe-csi-driver",
        "mounting into other pods: a foreign program",
    ),
];

/// The one container of a pod that may change its network, and as root, since a capability is in effect for no other.
const REDIRECTS: &str = "signet-proxy-example/backend/signet-redirect";

#[test]
fn every_pod_keeps_the_restricted_profile_but_those_that_cannot() {
    let pods: Vec<Manifest> = FOLDERS.into_iter().flat_map(of).filter(is_pod).collect();
    for manifest in &pods {
        let named = &manifest.object["metadata"];
        let name = format!(
            "{}/{}",
            named["namespace"].as_str().unwrap(),
            named["name"].as_str().unwrap()
        );
        let pod = &manifest.object["spec"]["template"]["spec"];
        for container in containers(pod) {
            let resources = &container["resources"];
            assert!(
                resources["limits"]["memory"].is_string(),
                "{name} has a memory limit"
            );
            assert!(
                resources["requests"]["cpu"].is_string(),
                "{name} asks for processor time"
            );
            assert_eq!(
                container["securityContext"]["readOnlyRootFilesystem"], true,
                "{name}"
            );
        }
        if UNRESTRICTED.iter().any(|(unrestricted, _)| *unrestricted == name) {
            continue;
        }
        let not_root = |context: &Value| context["runAsNonRoot"] == true;
        let each_says = containers(pod).iter().all(|container| {
            let exempt = format!("{name}/{}", container["name"].as_str().unwrap()) == REDIRECTS;
            exempt || not_root(&container["securityContext"])
        });
        assert!(not_root(&pod["securityContext"]) || each_says, "{name}");
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault",
            "{name}"
        );
        for container in containers(pod) {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            let inner = format!("{name}/{}", container["name"].as_str().unwrap());
            let capabilities = if inner == REDIRECTS {
                json!({"drop": ["ALL"], "add": ["NET_ADMIN"]})
            } else {
                assert_ne!(security["runAsUser"], 0, "{inner}");
                json!({"drop": ["ALL"]})
            };
            assert_eq!(security["capabilities"], capabilities, "{inner}");
        }
        for host in ["hostPID", "hostNetwork", "hostIPC"] {
            assert!(pod[host].is_null(), "{name}: {host}");
        }
        assert!(
            volumes(pod).iter().all(|volume| volume["hostPath"].is_null()),
            "{name}"
        );
    }
    assert_eq!(pods.len(), 6, "the pods were found");
}

#[test]
fn the_node_agent_has_what_attestation_needs_and_nothing_else() {
    let all = of("deploy/agent-node");
    let set = all.iter().find(|m| m.kind() == "DaemonSet").unwrap();
    let pod = &set.object["spec"]["template"]["spec"];
    assert_eq!(pod["hostPID"], true);
    assert!(pod["hostNetwork"].is_null() && pod["hostIPC"].is_null());
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let [agent] = &containers(pod)[..] else {
        panic!("one container")
    };
    let security = &agent["securityContext"];
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert!(security["privileged"].is_null());
    // The one directory of the node is that of the workload socket, and the admin socket is not in it.
    let printed = printed_node();
    let paths: Vec<Value> = volumes(pod)
        .iter()
        .filter(|v| !v["hostPath"].is_null())
        .cloned()
        .collect();
    let [shared] = &paths[..] else {
        panic!("one directory of the node")
    };
    let directory = shared["hostPath"]["path"].as_str().unwrap();
    assert_eq!(mounted(agent, shared["name"].as_str().unwrap()), directory);
    assert_eq!(printed["socket"], format!("{directory}/agent.sock"));
    assert!(!printed["admin_socket"].as_str().unwrap().starts_with(directory));
    assert_eq!(printed["attestor"], "kubernetes");
    // Its token is the CA's alone, and its rights are to follow pods and policies.
    let named = |name: &str| volumes(pod).into_iter().find(|v| v["name"] == name).unwrap();
    let token = named("token")["projected"]["sources"][0]["serviceAccountToken"].clone();
    let ca = self::printed("signet-ca", "state_secret: a/b\n");
    assert_eq!(ca["audiences"], json!([token["audience"]]));
    assert_eq!(
        printed["token_file"],
        format!("{}/{}", mounted(agent, "token"), token["path"].as_str().unwrap())
    );
    assert_eq!(named("roots")["configMap"]["name"], ca["roots_configmap"]);
    assert_eq!(
        printed["ca_root_file"],
        format!("{}/root-cert.pem", mounted(agent, "roots"))
    );
    let role = all.iter().find(|m| m.kind() == "ClusterRole").unwrap();
    let policies = [
        "authorizationpolicies",
        "peerauthentications",
        "requestauthentications",
    ];
    let only = json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]},
        {"apiGroups": ["security.istio.io"], "resources": policies, "verbs": ["list", "watch"]},
    ]);
    assert_eq!(printed["policies"]["source"], "kubernetes");
    assert_eq!(role.object["rules"], only);
    // The pod's facts come from the downward API, under the names the program reads.
    let env: Vec<(&Value, &Value)> = agent["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (&e["name"], &e["valueFrom"]["fieldRef"]["fieldPath"]))
        .collect();
    assert_eq!(
        env,
        [
            (&json!("NODE_NAME"), &json!("spec.nodeName")),
            (&json!("POD_UID"), &json!("metadata.uid"))
        ]
    );
    // The CA's example names the very account.
    let account = format!(
        "{}/{}",
        set.object["metadata"]["namespace"].as_str().unwrap(),
        pod["serviceAccountName"].as_str().unwrap()
    );
    assert!(text("deploy/ca/config.yaml").contains(&format!("trusted_node_accounts: [{account}]")));
}

#[test]
fn the_csi_driver_hands_out_the_directory_of_the_workload_socket() {
    let all = of("deploy/csi-example");
    let pod = |kind: &str| {
        all.iter().find(|m| m.kind() == kind).unwrap().object["spec"]["template"]["spec"].clone()
    };
    let (driver, client) = (pod("DaemonSet"), pod("Deployment"));
    let socket = printed_node()["socket"].as_str().unwrap().to_owned();
    let directory = socket.rsplit_once('/').unwrap().0;
    let shared = volumes(&driver)
        .into_iter()
        .find(|v| v["name"] == "workload-socket")
        .unwrap();
    assert_eq!(shared["hostPath"]["path"], directory);
    let container = &containers(&driver)[0];
    let at = mounted(container, "workload-socket");
    assert!(container["args"].as_array().unwrap().contains(&json!(at)));
    let application = &containers(&client)[0];
    let variable = &application["env"][0];
    assert_eq!(variable["name"], "SPIFFE_ENDPOINT_SOCKET");
    assert_eq!(
        variable["value"],
        format!("unix://{}/agent.sock", mounted(application, "workload-api"))
    );
    let driver = all.iter().find(|m| m.kind() == "CSIDriver").unwrap();
    assert_eq!(
        volumes(&client)[0]["csi"]["driver"],
        driver.object["metadata"]["name"]
    );
}

#[test]
fn envoy_accepts_the_bootstrap_of_the_sidecar_example() {
    let Some(envoy) = peers::envoy() else { return };
    let dir = Dir::new();
    let map = config_map("deploy/agent-sidecar", "envoy");
    let file = dir.write("envoy.yaml", map["data"]["envoy.yaml"].as_str().unwrap());
    let mut command = Command::new(envoy);
    command
        .args(["--mode", "validate", "--log-level", "warn", "--config-path"])
        .arg(file);
    let checked = command.output().unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

#[test]
fn the_proxy_sidecar_is_what_its_redirect_rules_its_probes_and_its_image_say() {
    let folder = "deploy/proxy-sidecar";
    let map = config_map(folder, "signet-proxy");
    let written = map["data"]["proxy.yaml"].as_str().unwrap();
    let config = printed("signet-proxy", written);
    let pod = deployment(folder).object["spec"]["template"].clone();
    let all = containers(&pod["spec"]);
    let named = |name: &str| all.iter().find(|container| container["name"] == name).unwrap();
    let (redirect, proxy, app) = (named("signet-redirect"), named("signet-proxy"), named("backend"));
    // The rules come first and end; the proxy stays; the application is last.
    let order: Vec<&Value> = all.iter().map(|container| &container["name"]).collect();
    assert_eq!(order, ["signet-redirect", "signet-proxy", "backend"]);
    assert!(redirect["restartPolicy"].is_null());
    assert_eq!(proxy["restartPolicy"], "Always");
    // They are made from the very configuration that the proxy reads, and let its user go, and nobody else's.
    let dir = Dir::new();
    let file = dir.write("proxy.yaml", written);
    let args: Vec<String> = serde_json::from_value(redirect["args"].clone()).unwrap();
    assert_eq!(
        args[2],
        format!("--config={}/proxy.yaml", mounted(redirect, "proxy-config"))
    );
    let mut command = Command::new(program("signet-proxy"));
    command
        .args(["redirect", "print", "--config"])
        .arg(file)
        .args(&args[3..]);
    let rules = command.output().unwrap();
    assert!(
        rules.status.success(),
        "{}",
        String::from_utf8_lossy(&rules.stderr)
    );
    let rules = String::from_utf8(rules.stdout).unwrap();
    let user = &proxy["securityContext"]["runAsUser"];
    assert!(
        rules.contains(&format!("--uid-owner {user} -j RETURN")),
        "{rules}"
    );
    assert!(
        rules.matches("--uid-owner").count() == 2,
        "one user, in both families: {rules}"
    );
    assert!(
        all.iter()
            .filter(|one| one["securityContext"]["runAsUser"] == *user)
            .count()
            == 1
    );
    for (key, expected) in [("inbound", "15006"), ("outbound", "15001")] {
        assert!(config["capture"][key].as_str().unwrap().ends_with(expected));
        assert!(
            rules.contains(&format!("-j REDIRECT --to-ports {expected}")),
            "{rules}"
        );
    }
    // Nothing of the application's goes past the proxy, which refuses what is not listed.
    assert_eq!(config["default_outbound"], "refuse");
    let excluded: Vec<&String> = args
        .iter()
        .filter(|arg| arg.starts_with("--exclude-outbound"))
        .collect();
    assert!(excluded.is_empty(), "{excluded:?}");
    // Kubelet reaches directly what it asks; the application's own port is not among it.
    let port = |address: &Value| address.as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let (health, metrics) = (port(&config["probes"]["listen"]), port(&config["metrics_listen"]));
    let ports: Vec<String> = list(proxy, "ports")
        .iter()
        .map(|port| port["containerPort"].to_string())
        .collect();
    assert_eq!(ports, [&health[..], &metrics[..]]);
    for port in [&health, &metrics] {
        assert!(rules.contains(&format!("--dport {port} -j RETURN")), "{rules}");
    }
    assert_eq!(pod["metadata"]["annotations"]["prometheus.io/port"], metrics);
    let served = app["ports"][0]["containerPort"].to_string();
    assert!(!rules.contains(&format!("--dport {served} ")), "{rules}");
    let checks = list(&config["probes"], "checks");
    for probe in ["livenessProbe", "readinessProbe"] {
        let asked = &app[probe]["httpGet"];
        assert_eq!(asked["port"].to_string(), health, "{probe}");
        let check = checks
            .iter()
            .find(|check| check["path"] == asked["path"])
            .unwrap();
        assert_eq!(check["http"]["port"].to_string(), served, "{probe}");
        let timeout: signet_runtime::config::HumanDuration =
            check["timeout"].as_str().unwrap().parse().unwrap();
        assert!(
            timeout.0.as_secs() < app[probe]["timeoutSeconds"].as_u64().unwrap(),
            "{probe}"
        );
    }
    // The socket is where the proxy looks for it, and the drain fits into the pod's end.
    let socket = format!("{}/agent.sock", mounted(proxy, "workload-socket"));
    assert_eq!(config["agent_socket"], socket);
    let drain: signet_runtime::config::HumanDuration = config["drain"].as_str().unwrap().parse().unwrap();
    assert!(drain.0.as_secs() + 5 <= pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap());
}

/// What `limits` of a proxy allow, in KiB, as `docs/configuration.md` has it under *Memory*.
fn held_at_most(limits: &Value) -> u64 {
    let number = |key: &str| limits.pointer(key).and_then(Value::as_u64).unwrap();
    32 * 1024
        + 40 * (number("/connections") + number("/outbound_connections"))
        + 24 * number("/unsettled_connections")
        + number("/waiting_bytes") / 1024
        + 512 * number("/http/upstream_requests")
}

/// What a container of a folder's Deployment may have, in KiB.
fn memory_limit(folder: &str, name: &str) -> u64 {
    let pod = deployment(folder).object["spec"]["template"].clone();
    let all = containers(&pod["spec"]);
    let container = all.iter().find(|container| container["name"] == name).unwrap();
    let limit = container["resources"]["limits"]["memory"].as_str().unwrap();
    limit.strip_suffix("Mi").unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn the_memory_limit_of_the_proxy_sidecar_holds_what_its_bounds_allow() {
    let folder = "deploy/proxy-sidecar";
    let map = config_map(folder, "signet-proxy");
    let config = printed("signet-proxy", map["data"]["proxy.yaml"].as_str().unwrap());
    let (held, limit) = (
        held_at_most(&config["limits"]),
        memory_limit(folder, "signet-proxy"),
    );
    assert!(held <= limit, "{held} of {limit} KiB");
}

#[test]
fn the_memory_limit_of_the_ca_holds_what_its_bounds_allow() {
    let folder = "deploy/ca";
    let map = config_map(folder, "signet-ca");
    let config = printed("signet-ca", map["data"]["ca.yaml"].as_str().unwrap());
    let bound = |key: &str| config[key].as_u64().unwrap();
    // The rule of docs/configuration.md, "Memory of the CA", without pods.
    let held = 64 * 1024 + 48 * bound("connections") + 100 * (512 + bound("requests_in_flight"));
    let limit = memory_limit(folder, "signet-ca");
    assert!(held <= limit, "{held} of {limit} KiB");
}

fn is_pod(manifest: &Manifest) -> bool {
    ["Deployment", "DaemonSet"].contains(&manifest.kind())
}

fn list(pod: &Value, key: &str) -> Vec<Value> {
    pod[key].as_array().cloned().unwrap_or_default()
}

fn containers(pod: &Value) -> Vec<Value> {
    [list(pod, "initContainers"), list(pod, "containers")].concat()
}

fn volumes(pod: &Value) -> Vec<Value> {
    list(pod, "volumes")
}

/// Where a container sees a volume.
fn mounted(container: &Value, volume: &str) -> String {
    let mounts = list(container, "volumeMounts");
    let found = mounts.iter().find(|mount| mount["name"] == volume).unwrap();
    found["mountPath"].as_str().unwrap().to_owned()
}

/// What `print-config` says of the node agent's configuration as deployed.
fn printed_node() -> Value {
    let map = config_map("deploy/agent-node", "signet-agent");
    printed(
        "signet-agent",
        &format!("node_name: n1\n{}", map["data"]["agent.yaml"].as_str().unwrap()),
    )
}

fn deployment(folder: &str) -> Manifest {
    of(folder).into_iter().find(|m| m.kind() == "Deployment").unwrap()
}

pub(crate) fn config_map(folder: &str, name: &str) -> Value {
    let found = of(folder)
        .into_iter()
        .find(|m| m.kind() == "ConfigMap" && m.object["metadata"]["name"] == name);
    found
        .unwrap_or_else(|| panic!("{folder} has no ConfigMap {name}"))
        .object
}

/// What `print-config` of a program says about `config`.
pub(crate) fn printed(binary: &str, config: &str) -> Value {
    let dir = Dir::new();
    let file = dir.write("config.yaml", config);
    let done = Command::new(program(binary))
        .arg("print-config")
        .arg("--config")
        .arg(file)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    yaml(&String::from_utf8(done.stdout).unwrap())
}
