//! The files of `deploy/`: no field is lost or misspelt, and they fit together and to the programs.

use std::collections::BTreeSet;
use std::process::Command;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
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
    ] {
        let dir = Dir::new();
        let file = dir.write(key, config_map(folder, map)["data"][key].as_str().unwrap());
        let checked = Command::new(program(binary))
            .arg("check-config")
            .arg("--config")
            .arg(file)
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
    assert_eq!(
        cluster["rules"][4]["resourceNames"],
        json!([printed["roots_configmap"]])
    );
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

#[test]
fn every_pod_keeps_the_restricted_profile() {
    for folder in FOLDERS {
        let pod = deployment(folder).object["spec"]["template"]["spec"].clone();
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{folder}");
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault",
            "{folder}"
        );
        let of = |key: &str| pod[key].as_array().cloned().unwrap_or_default();
        for container in of("initContainers").into_iter().chain(of("containers")) {
            let (name, security) = (&container["name"], &container["securityContext"]);
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{name}");
            assert!(
                container["resources"]["limits"]["memory"].is_string(),
                "{name} has a memory limit"
            );
            assert!(
                container["resources"]["requests"]["cpu"].is_string(),
                "{name} asks for processor time"
            );
        }
        assert!(
            of("volumes").iter().all(|volume| volume["hostPath"].is_null()),
            "{folder}"
        );
    }
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
