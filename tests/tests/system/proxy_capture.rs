//! Redirected traffic: a network namespace as a pod has it, another one as its client, and iptables between them.

mod pods;
mod sidecar;

use std::process::Command;

use signet_tests::dir::Dir;
use signet_tests::peers;
use signet_tests::process::program;

const CONFIG: &str = "
agent_socket: /nonexistent/agent.sock
policies: {directory: POLICIES, namespace: shop}
admin_listen: 127.0.0.1:15000
metrics_listen: 127.0.0.1:15090
capture: {inbound: '0.0.0.0:15006', outbound: '0.0.0.0:15001'}
destinations: [{cidr: 10.9.9.0/24, port: 80, plaintext: true}]
";

/// Traffic to port 7000 is redirected inwards; traffic to 10.9.0.0/16 of an application that dials from 10.7.7.7 outwards,
/// since one user has to do for it and the proxy. `$1` is the proxy, `$2` its configuration, `$3` where its log goes.
const POD: &str = r#"
set -e
ip link set lo up
unshare -n sleep 60 & CLIENT=$!
until nsenter -t $CLIENT -n ip link show lo >/dev/null 2>&1 && \
    [ "$(readlink /proc/$CLIENT/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
ip link add v0 type veth peer name v1 netns $CLIENT
ip addr add 10.1.1.1/24 dev v0; ip link set v0 up
ip addr add 10.9.9.9/32 dev lo; ip addr add 10.9.8.8/32 dev lo; ip addr add 10.7.7.7/32 dev lo
in="nsenter -t $CLIENT -n"
$in ip link set lo up; $in ip addr add 10.1.1.2/24 dev v1; $in ip link set v1 up
$in ip route add default via 10.1.1.1
iptables -t nat -A PREROUTING -p tcp -d 10.1.1.1 --dport 7000 -j REDIRECT --to-ports 15006
iptables -t nat -A PREROUTING -p tcp -d 10.9.0.0/16 -j REDIRECT --to-ports 15001
iptables -t nat -A OUTPUT -p tcp -s 10.7.7.7 -d 10.9.0.0/16 -j REDIRECT --to-ports 15001
python3 -c '
import socket, threading
def serve(address, port, name):
    s = socket.create_server((address, port))
    def go():
        while True:
            c, _ = s.accept(); d = c.recv(100); c.sendall(name + b":" + d); c.close()
    threading.Thread(target=go).start()
serve("10.1.1.1", 7000, b"app"); serve("10.9.9.9", 80, b"far"); serve("10.9.8.8", 80, b"unlisted")
import sys; open(sys.argv[1], "w")
' "$3.served" & SERVERS=$!
"$1" run --config "$2" 2>"$3" & PROXY=$!
trap 'kill $SERVERS $PROXY $CLIENT 2>/dev/null' EXIT
until [ -e "$3.served" ]; do kill -0 $SERVERS; sleep 0.05; done
until grep -q "policies are in force" "$3"; do kill -0 $PROXY; sleep 0.05; done
cat >"$3.client" <<'PYTHON'
import socket, sys
for line in sys.argv[2:]:
    address, port = line.split()
    try:
        s = socket.create_connection((address, int(port)), 5, (sys.argv[1], 0)); s.settimeout(5); s.sendall(b"hi")
        print(address, port, s.recv(100).decode() or "nothing")
    # A close that meets bytes on their way is a reset, too.
    except (ConnectionResetError, BrokenPipeError):
        print(address, port, "nothing")
PYTHON
$in python3 "$3.client" 0.0.0.0 "10.1.1.1 7000" "10.9.9.9 80" "10.1.1.1 15006"
python3 "$3.client" 10.7.7.7 "10.9.9.9 80" "10.9.8.8 80"
"#;

#[test]
fn redirected_connections_reach_where_they_were_going_and_nowhere_else() {
    let able = "unshare -n true && iptables -t nat -L && command -v ip nsenter python3";
    let why = "network namespaces of one's own with iptables, ip, nsenter and python3";
    if !peers::can(&["unshare", "-rn", "sh", "-c", able], why) {
        return;
    }
    let dir = Dir::new();
    let policies = dir.sub("policies");
    std::fs::create_dir_all(&policies).unwrap();
    std::fs::write(policies.join("none.yaml"), "").unwrap();
    let config = CONFIG.replace("POLICIES", policies.to_str().unwrap());
    let config = dir.write("proxy.yaml", config);
    let log = dir.write("proxy.log", "");
    let done = Command::new("timeout")
        .args(["40", "unshare", "-rn", "bash", "-c", POD, "pod"])
        .arg(program("signet-proxy"))
        .arg(config)
        .arg(&log)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    // Another host is served what it may reach, and never as if it were the workload.
    let expected = "10.1.1.1 7000 app:hi\n10.9.9.9 80 nothing\n10.1.1.1 15006 nothing\n\
                    10.9.9.9 80 far:hi\n10.9.8.8 80 nothing\n";
    let errors = String::from_utf8_lossy(&done.stderr);
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(said, expected, "{errors}\n{log}");
    let recorded = |part: &str| {
        log.lines()
            .any(|line| line.contains("\"access\"") && line.contains(part))
    };
    assert!(
        recorded("\"destination\":\"10.1.1.1:7000\",\"port\":7000"),
        "{log}"
    );
    assert!(recorded("\"reason\":\"upstream_unlisted\""), "{log}");
}
