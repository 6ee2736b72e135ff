//! Networks as pods have them, without root: a user namespace with as many users as a node has, in it a network for each
//! pod, and one that stands for the node between them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::dir::{Dir, copy_program};
use crate::peers;
use crate::process::{Process, program};
use crate::wait::{SOON, until};

/// The proxy's user, as in its image.
pub const PROXY: u32 = 65533;
/// An application's user.
pub const APPLICATION: u32 = 10001;
/// Users of the namespace: the first so many.
const USERS: u32 = 65536;

/// The node between the pods: each pod has a cable to it, and it forwards between them.
#[derive(Debug)]
pub struct Node {
    net: Net,
    proxy: PathBuf,
    // Last: what it holds is used until the end.
    dir: Dir,
}

/// A network namespace with an address of each family, or the node's.
#[derive(Debug)]
pub struct Net {
    holder: Process,
    users: u32,
    /// Its IPv4 address, `10.1.<number>.2`; the node's begins with `10.1.` as well and ends with 1.
    pub v4: String,
    /// Its IPv6 address, as it stands in a URL.
    pub v6: String,
}

impl Node {
    /// Makes the node, or nothing after noting the skip.
    ///
    /// # Panics
    /// When it cannot be made although the machine has what that needs.
    pub async fn start() -> Option<Self> {
        let root = Command::new("id").arg("-u").output();
        let root = root.is_ok_and(|done| done.stdout == b"0\n");
        let map: &[&str] = if root {
            &["--user"]
        } else {
            &["--user", "--map-root-user", "--map-auto"]
        };
        let why = "user namespaces with more than one user (root, or newuidmap and /etc/subuid)";
        if !peers::can(&[&["unshare"], map, &["true"]].concat(), why) {
            return None;
        }
        let tools = "command -v ip nsenter iptables-restore ip6tables-restore python3 curl && \
                     unshare -n iptables -t nat -L && unshare -n ip6tables -t nat -L";
        if !peers::can(
            &["unshare", "-r", "sh", "-c", tools],
            "ip, nsenter, iptables, ip6tables, python3 and curl",
        ) {
            return None;
        }
        let dir = Dir::new();
        // The proxy and the applications are other users than this test.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("mode");
        let proxy = dir.join("signet-proxy");
        copy_program(&program("signet-proxy"), &proxy);
        let users = Process::spawn(
            "users",
            dir.path(),
            Command::new("unshare").args(map).args(["sleep", "600"]),
        );
        entered(users.pid(), "user").await;
        if root {
            for file in ["uid_map", "gid_map"] {
                let path = format!("/proc/{}/{file}", users.pid());
                std::fs::write(path, format!("0 0 {USERS}\n")).expect("the map of users");
            }
        }
        let net = Net::within(users.pid(), "node", &dir, Some(users)).await;
        net.root("ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        Some(Self { net, proxy, dir })
    }

    /// The node's own network.
    #[must_use]
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// A pod of this number (1 to 250), with a cable to the node.
    pub async fn pod(&self, number: u8) -> Net {
        let mut pod = Net::within(self.net.users, &format!("pod{number}"), &self.dir, None).await;
        (pod.v4, pod.v6) = (format!("10.1.{number}.2"), format!("[fd00:{number}::2]"));
        let holder = pod.holder.pid();
        self.net.root(&format!(
            "ip link add pod{number} type veth peer name eth0 netns {holder}
             ip addr add 10.1.{number}.1/24 dev pod{number}
             ip addr add fd00:{number}::1/64 dev pod{number} nodad; ip link set pod{number} up"
        ));
        pod.root(&format!(
            "ip link set lo up; ip addr add {}/24 dev eth0; ip addr add fd00:{number}::2/64 dev eth0 nodad
             ip link set eth0 up
             ip route add default via 10.1.{number}.1; ip -6 route add default via fd00:{number}::1",
            pod.v4
        ));
        pod
    }

    /// The directory of everything, which every user may read.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// `signet-proxy`, where every user may run it.
    #[must_use]
    pub fn proxy(&self) -> &Path {
        &self.proxy
    }
}

impl Net {
    /// A network in the user namespace of this process.
    async fn within(users: u32, name: &str, dir: &Dir, holder: Option<Process>) -> Self {
        let mut command = entering(users, false, 0);
        command.args(["unshare", "-n", "sleep", "600"]);
        let held = Process::spawn(name, dir.path(), &mut command);
        entered(held.pid(), "net").await;
        // The namespace of users lives as long as the first network in it.
        drop(holder);
        let users = held.pid();
        Self {
            holder: held,
            users,
            v4: String::new(),
            v6: String::new(),
        }
    }

    /// A command in this network, as this user.
    #[must_use]
    pub fn command(&self, user: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = entering(self.holder.pid(), true, user);
        command.arg(program);
        command
    }

    /// Runs a script as user 0; answers its output.
    ///
    /// # Panics
    /// When a command of it fails.
    pub fn root(&self, script: &str) -> String {
        let done = self.run(0, &["sh", "-ec", script]);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success(),
            "{script}: {said}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        said
    }

    /// Runs a command as this user to its end.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn run(&self, user: u32, words: &[&str]) -> Output {
        let mut command = self.command(user, words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command.output().unwrap_or_else(|e| panic!("{words:?}: {e}"))
    }

    /// GETs a URL as this user, with curl: the status and the body, or why there is none.
    pub fn get(&self, user: u32, url: &str) -> Result<(u16, String), String> {
        let done = self.run(
            user,
            &[
                "curl",
                "-sS",
                "--max-time",
                "10",
                "--noproxy",
                "*",
                "-w",
                "\n%{http_code}",
                url,
            ],
        );
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).trim().to_owned());
        }
        let text = String::from_utf8_lossy(&done.stdout);
        let (body, status) = text.rsplit_once('\n').expect("a status");
        Ok((status.parse().expect("a number"), body.to_owned()))
    }
}

fn entering(pid: u32, network: bool, user: u32) -> Command {
    let (pid, user) = (pid.to_string(), user.to_string());
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid, "-U"]);
    if network {
        command.arg("-n");
    }
    command.args(["-S", &user, "-G", &user]);
    command
}

/// Waits until a process is in another namespace of this kind than we are.
async fn entered(pid: u32, kind: &str) {
    let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{kind}")).ok();
    until("a namespace to be entered", SOON, async || {
        of(&pid.to_string()).is_some_and(|theirs| Some(theirs) != of("self"))
    })
    .await;
}
