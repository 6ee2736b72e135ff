//! A pod with an application and a proxy before it, as `deploy/proxy-sidecar` lays it out.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use signet_tests::agent::{Agent, AgentSetup};
use signet_tests::ca::Ca;
use signet_tests::cluster::Cluster;
use signet_tests::pods::{APPLICATION, Net, Node, PROXY};
use signet_tests::process::Process;
use signet_tests::wait::{SOON, until};

/// An application over HTTP on port 8080 that tells what it was asked and by whom, and echoes on 7000 whatever TCP says.
/// `/healthz` is well unless the file `$1` is there.
const APP: &str = r#"
import http.server, os, socket, socketserver, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        well = self.path != "/healthz" or not os.path.exists(sys.argv[1])
        body = " ".join([self.path, self.headers.get("x-forwarded-client-cert", "-")]).encode()
        self.send_response(200 if well else 500)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1000):
            self.request.sendall(data)
def serve(server, handler, port):
    class Six(server):
        address_family, allow_reuse_address, daemon_threads = socket.AF_INET6, True, True
    made = Six(("::", port), handler)
    threading.Thread(target=made.serve_forever).start()
serve(socketserver.ThreadingTCPServer, Echo, 7000)
serve(http.server.ThreadingHTTPServer, Handler, 8080)
print("serving", flush=True)
"#;

/// Everything of one pod.
pub(super) struct Sidecar {
    // Ended first.
    pub(super) proxy: Process,
    pub(super) app: Option<Process>,
    _agent: Agent,
    pub(super) net: Net,
    name: String,
    folder: PathBuf,
    program: PathBuf,
}

/// What a pod is made of.
pub(super) struct Parts<'a> {
    pub(super) node: &'a Node,
    pub(super) cluster: &'a Cluster,
    pub(super) ca: &'a Ca,
    /// Number of the pod, name of its account and label in the namespace `shop`.
    pub(super) pod: (u8, &'static str),
    /// What its proxy's configuration has beside the usual.
    pub(super) config: Value,
    /// Policies, as YAML.
    pub(super) policies: &'a str,
    /// What the redirect rules have beside the usual.
    pub(super) redirect: &'a [&'a str],
}

impl Sidecar {
    /// Redirect rules first, the proxy, then the application; ready.
    pub(super) async fn start(parts: Parts<'_>) -> Self {
        let (number, name) = parts.pod;
        let net = parts.node.pod(number).await;
        let agent = AgentSetup::new(parts.cluster, parts.ca, "shop", name)
            .await
            .set("svid_ttl", "1h")
            .set(
                "socket",
                parts
                    .node
                    .dir()
                    .sub(format!("{name}/run"))
                    .join("agent.sock")
                    .to_str()
                    .unwrap(),
            )
            .set("socket_mode", "0666")
            .set("allowed_uids", json!([PROXY]))
            .start()
            .await;
        let folder = parts.node.dir().sub(name);
        let policies = parts.node.dir().sub(format!("{name}/policies"));
        std::fs::write(policies.join("all.yaml"), parts.policies).unwrap();
        let mut config = json!({
            "agent_socket": agent.socket(),
            "policies": {"directory": policies, "namespace": "shop", "labels": {"app": name}},
            "capture": {"inbound": "[::]:15006", "outbound": "[::]:15001", "http_ports": [8080]},
            "probes": {
                "listen": "[::]:15021",
                "checks": [
                    {"path": "/live", "http": {"port": 8080, "path": "/healthz"}},
                    {"path": "/echo", "tcp": {"port": 7000}},
                ],
            },
            "metrics_listen": "[::]:15090",
            "log_filter": "info,signet_proxy=debug",
        });
        let more = parts.config.as_object().cloned().unwrap_or_default();
        config.as_object_mut().unwrap().extend(more);
        std::fs::write(
            folder.join("proxy.yaml"),
            signet_runtime::config::to_yaml(&config),
        )
        .unwrap();
        let mut pod = Self {
            proxy: Process::spawn(name, &folder, &mut Command::new("true")),
            app: None,
            _agent: agent,
            net,
            name: name.to_owned(),
            folder,
            program: parts.node.proxy().to_owned(),
        };
        let rules = [&["apply"], parts.redirect].concat();
        let done = pod.redirect(0, &rules);
        assert_eq!(done, Ok("redirected: IPv4 and IPv6".to_owned()));
        pod.start_proxy().await;
        pod.start_app().await;
        pod
    }

    /// `signet-proxy redirect` in the pod as this user: what it says, or complains.
    pub(super) fn redirect(&self, user: u32, words: &[&str]) -> Result<String, String> {
        let config = format!("--config={}", self.folder.join("proxy.yaml").display());
        let all = [
            &[self.program.to_str().unwrap(), config.as_str(), "redirect"],
            words,
        ]
        .concat();
        let done = self.net.run(user, &all);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if done.status.success() {
            Ok(text(&done.stdout))
        } else {
            Err(text(&done.stderr))
        }
    }

    async fn start_proxy(&mut self) {
        let mut command = self.net.command(PROXY, &self.program);
        command
            .args(["run", "--config"])
            .arg(self.folder.join("proxy.yaml"));
        self.proxy = Process::spawn(&format!("{}-proxy", self.name), &self.folder, &mut command);
        until("the proxy to be ready", SOON, async || {
            assert!(self.proxy.ended().is_none(), "{}", self.proxy.tail());
            matches!(
                self.net.get(PROXY, "http://127.0.0.1:15090/healthz/ready"),
                Ok((200, _))
            )
        })
        .await;
    }

    pub(super) async fn start_app(&mut self) {
        let mut command = self.net.command(APPLICATION, "python3");
        command.args(["-c", APP]).arg(self.illness());
        let log = self.folder.join(format!("{}-app.out", self.name));
        let served = || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            said.matches("serving").count()
        };
        let before = served();
        let mut app = Process::spawn(&format!("{}-app", self.name), &self.folder, &mut command);
        until("the application to serve", SOON, async || {
            assert!(app.ended().is_none(), "{}", app.tail());
            served() > before
        })
        .await;
        self.app = Some(app);
    }

    fn illness(&self) -> PathBuf {
        self.folder.join("ill")
    }

    /// Whether its `/healthz` is well from now on.
    pub(super) fn well(&self, well: bool) {
        if well {
            std::fs::remove_file(self.illness()).unwrap();
        } else {
            std::fs::write(self.illness(), "").unwrap();
        }
    }

    /// Waits for an access record that fits.
    pub(super) async fn record(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        signet_tests::wait::until_some(what, SOON, async || {
            let log = self.proxy.stderr();
            let lines = log
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines
                .filter(|line| line["target"] == "access")
                .find(|line| fits(line))
        })
        .await
    }
}
