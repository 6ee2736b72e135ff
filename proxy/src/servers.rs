//! Servers beside the mesh, which prove their host names and not a SPIFFE ID: issuers whose keys are fetched,
//! providers that are asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use prometheus_client::registry::Registry;
use rustls::ClientConfig;
use signet_certs::tls::{web_client_config, web_roots};
use signet_runtime::Clock;
use signet_runtime::clock::TlsTime;
use signet_runtime::fetch::machine_roots;
use signet_runtime::shutdown::Tasks;

use crate::config::{Config, ProviderConfig, ProviderPlace};
use crate::ext_authz::{AskMetrics, Asker, Provider, Target};
use crate::jwt::fetching::KeyFetcher;
use crate::jwt::files::KeyFiles;
use crate::jwt::{TokenMetrics, Tokens};

/// Largest file of CAs, in bytes.
const MAX_CA_FILE_BYTES: u64 = 1024 * 1024;

/// What talks to them.
#[derive(Debug)]
pub struct Servers {
    /// What judges tokens.
    pub tokens: Tokens,
    /// What fetches the keys of issuers.
    pub issuers: Arc<KeyFetcher>,
    /// What asks providers.
    pub asker: Asker,
}

impl Servers {
    /// As configured. Nothing is dialled yet.
    ///
    /// # Errors
    /// A sentence that names the file, or the provider.
    pub fn new(
        config: &Config,
        registry: &mut Registry,
        clock: &Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Result<Self, String> {
        let metrics = TokenMetrics::new(registry);
        let fetching = &config.key_fetching;
        let tls = web_tls(fetching.ca_file.as_deref(), &[b"http/1.1"], clock)?;
        let (dial, time) = (fetching.dial.clone(), Arc::clone(clock));
        let files = KeyFiles::follow(&fetching.files, &metrics, tasks);
        let issuers = KeyFetcher::new(tls, dial, time, tasks.clone(), &metrics).with_files(files);
        let providers = providers(&config.ext_authz, clock)?;
        let asker = Asker::new(&providers, Arc::clone(clock), AskMetrics::new(registry))
            .map_err(|e| format!("ext_authz: {e}"))?;
        Ok(Self {
            tokens: Tokens::new(metrics),
            issuers: Arc::new(issuers),
            asker,
        })
    }
}

/// A client configuration that meets such servers: under the CAs of `ca_file`, or those of the machine.
///
/// # Errors
/// A sentence that names the file.
pub fn web_tls(
    ca_file: Option<&Path>,
    alpn: &[&[u8]],
    clock: &Arc<dyn Clock>,
) -> Result<Arc<ClientConfig>, String> {
    let roots = match ca_file {
        Some(path) => {
            let said = |fault: String| format!("the CAs of {}: {fault}", path.display());
            let size = std::fs::metadata(path).map_err(|e| said(e.to_string()))?.len();
            if size > MAX_CA_FILE_BYTES {
                return Err(said(format!(
                    "{size} bytes, at most {MAX_CA_FILE_BYTES} are read"
                )));
            }
            let pem = std::fs::read(path).map_err(|e| said(e.to_string()))?;
            web_roots(&pem).map_err(|e| said(e.to_string()))?
        }
        None => machine_roots(),
    };
    let time = Arc::new(TlsTime(Arc::clone(clock)));
    let config = web_client_config(roots, alpn, time).map_err(|e| format!("tls: {e}"))?;
    Ok(Arc::new(config))
}

/// The providers, ready to be asked.
///
/// # Errors
/// A sentence that names the provider.
pub fn providers(configured: &[ProviderConfig], clock: &Arc<dyn Clock>) -> Result<Vec<Provider>, String> {
    let ready = configured.iter().map(|one| {
        let target = match &one.place {
            ProviderPlace::Unix(path) => Target::Unix(path.clone()),
            ProviderPlace::Plaintext(address) => Target::Plaintext(address.clone()),
            ProviderPlace::Tls {
                address,
                server_name,
                ca_file,
            } => {
                let ca_file = ca_file.as_ref().map(PathBuf::as_path);
                let tls =
                    web_tls(ca_file, &[b"h2"], clock).map_err(|e| format!("ext_authz {}: {e}", one.name))?;
                Target::Tls(address.clone(), server_name.clone(), tls)
            }
        };
        Ok(Provider {
            name: one.name.clone(),
            target,
            timeout: one.timeout,
            concurrent: one.concurrent,
            include_headers: one.include_headers.clone(),
        })
    });
    ready.collect()
}

#[cfg(test)]
mod tests;
