//! Clusters an operator names: a kubeconfig file, or the cluster this runs in.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::fault::Fault;

/// Patience for one call to an API server.
const DEADLINE: Duration = Duration::from_secs(15);

/// A client for the cluster of `kubeconfig`, or of the pod this runs in.
///
/// # Errors
/// [`Fault::Unanswered`] with what cannot be read.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, Fault> {
    let config = match kubeconfig {
        Some(path) => {
            let wrong = |e: &dyn std::fmt::Display| Fault::Unanswered(format!("{}: {e}", path.display()));
            let read = Kubeconfig::read_from(path).map_err(|e| wrong(&e))?;
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .map_err(|e| wrong(&e))?
        }
        None => kube::Config::incluster().map_err(|_| {
            Fault::unanswered("this does not run in a cluster; name one with --kubeconfig FILE")
        })?,
    };
    Client::try_from(config).map_err(Fault::unanswered)
}

/// The answer of an API server, or why there is none. A refusal of the API server's own is
/// [`Fault::Unanswered`] as well: it answers another question than the one asked of `signet`. Errors of
/// the transport are told by their kind alone, since their text may quote what was sent.
///
/// # Errors
/// [`Fault::Unanswered`].
pub async fn ask<T>(what: &str, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Fault> {
    let unanswered = |reason: &dyn std::fmt::Display| Fault::Unanswered(format!("{what}: {reason}"));
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(unanswered(&status.message)),
        Ok(Err(kube::Error::HyperError(_) | kube::Error::Service(_))) => {
            Err(unanswered(&"the API server cannot be reached"))
        }
        Ok(Err(kube::Error::Auth(_))) => Err(unanswered(&"the credentials in the kubeconfig cannot be used")),
        Ok(Err(_)) => Err(unanswered(&"the API server's answer cannot be used")),
        Err(_) => Err(unanswered(&format!(
            "the API server gave no answer within {} s",
            DEADLINE.as_secs()
        ))),
    }
}
