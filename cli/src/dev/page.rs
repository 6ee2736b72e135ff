//! What `signet dev` says when all is ready: what is where, and what to try next.

use std::path::Path;

use signet_certs::UnixTime;

use super::plan::{Ready, ReadyProxy};
use super::sample::{ALLOW, CALLED, FRIEND, PATH, STRANGER};
use crate::print::{Cell, Page, View};

/// Stands where there is nothing.
const NONE: &str = "–";

impl View for Ready {
    fn page(&self, page: &mut Page, _now: UnixTime) {
        let path = |path: &Path| path.display().to_string();
        page.fact("kubeconfig", path(&self.kubeconfig));
        page.fact("CA", &*self.ca_address);
        page.fact("CA roots", path(&self.ca_root));
        page.fact("CA admin socket", path(&self.ca_admin_socket));
        page.fact("CA metrics", format!("{}/metrics", self.ca_metrics));
        match self.workloads.as_slice() {
            [one] => page.fact("workload", &**one),
            many => page.fact("workloads", many.join(", ")),
        }
        page.fact("workload token", path(&self.token));
        page.fact("agent socket", path(&self.agent_socket));
        page.fact("agent admin socket", path(&self.admin_socket));
        page.fact("agent metrics", format!("{}/metrics", self.agent_metrics));
        if !self.proxies.is_empty() {
            self.proxies(page);
        }
        page.gap();
        page.heading("Try next, in another terminal");
        let next = if self.samples.is_some() {
            self.with_sample()
        } else {
            self.with_workloads()
        };
        next.into_iter().for_each(|line| page.line(format!("  {line}")));
    }
}

impl Ready {
    /// Who is where, and who asks whom through which port.
    fn proxies(&self, page: &mut Page) {
        let shown = |text: &Option<String>| Cell::from(text.clone().unwrap_or_else(|| NONE.into()));
        let proxy = |one: &ReadyProxy| {
            vec![
                one.service_account.clone().into(),
                shown(&one.inbound),
                shown(&one.application),
                one.admin_address.clone().into(),
                one.admin_socket.display().to_string().into(),
            ]
        };
        page.gap();
        page.table(
            &["PROXY OF", "INBOUND", "APPLICATION", "ADMIN PAGE", "ADMIN SOCKET"],
            self.proxies.iter().map(proxy).collect(),
        );
        let ways = self.proxies.iter().flat_map(|one| {
            one.outbound
                .iter()
                .map(|(to, address)| (&one.service_account, to, address))
        });
        let ways: Vec<Vec<Cell>> = ways
            .map(|(from, to, address)| vec![(&**from).into(), (&**to).into(), (&**address).into()])
            .collect();
        if !ways.is_empty() {
            page.gap();
            page.table(&["AS", "ASK", "AT"], ways);
        }
    }

    /// Somebody may, somebody may not, and why.
    fn with_sample(&self) -> Vec<String> {
        let of = |account: &str| self.proxies.iter().find(|one| one.service_account == account);
        let (Some(called), Some(friend), Some(stranger)) = (of(CALLED), of(FRIEND), of(STRANGER)) else {
            return self.with_workloads();
        };
        let ask = |by: &ReadyProxy| {
            let address = by.outbound.get(CALLED).map_or(NONE, |address| address);
            format!("curl -i http://{address}{PATH}")
        };
        let samples = self.samples.as_deref().unwrap_or(Path::new(""));
        let directory = self.kubeconfig.parent().unwrap_or(Path::new(""));
        vec![
            ask(friend),
            format!(
                "signet dev apply {} --dir {}",
                quoted(&samples.join(ALLOW)),
                quoted(directory)
            ),
            ask(stranger),
            format!(
                "signet why {} {} --to-proxy {} --path {PATH}",
                quoted(&stranger.admin_socket),
                called.inbound.as_deref().unwrap_or(NONE),
                quoted(&called.admin_socket)
            ),
            format!("signet workload list --admin {}", quoted(&self.admin_socket)),
        ]
    }

    /// Identities, by each of the ways to get one.
    fn with_workloads(&self) -> Vec<String> {
        vec![
            format!(
                "export SPIFFE_ENDPOINT_SOCKET={}",
                quote(&format!("unix://{}", self.agent_socket.display()))
            ),
            format!("signet workload list --admin {}", quoted(&self.admin_socket)),
            format!("signet svid watch --admin {}", quoted(&self.admin_socket)),
            format!(
                "signet svid request --ca {} --ca-root {} --token-file {} --out ./svid",
                self.ca_address,
                quoted(&self.ca_root),
                quoted(&self.token)
            ),
            format!(
                "signet jwt fetch --socket {} --audience demo --out ./token",
                quoted(&self.agent_socket)
            ),
            format!(
                "kubectl --kubeconfig {} get configmaps --all-namespaces",
                quoted(&self.kubeconfig)
            ),
        ]
    }
}

fn quoted(path: &Path) -> String {
    quote(&path.display().to_string())
}

/// For a shell, if it needs it.
fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | ':');
    if text.chars().all(plain) {
        text.into()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
