//! `signet proxy`, `strict-ready`, `tls-check` and `why`: what running proxies say of themselves, and what they find
//! when they are asked to try.
//!
//! | module | owns |
//! |---|---|
//! | [`address`] | where an admin page is: on loopback |
//! | [`client`] | asking for a page, and why there is none |
//! | [`wire`] | what the pages say |
//! | `secrets`, `policies`, `traffic` | pages for people |
//! | [`strict_ready`], [`verdict`], `pods` | whether STRICT would cut somebody off |
//! | [`place`], [`link`], `relay` | where an admin socket is, and asking it: directly, or through `kubectl exec` |
//! | [`asked`] | what an admin socket is asked, and says |
//! | [`tls_check`], [`ruling`] | a handshake between two workloads, and which side is wrong |
//! | [`why`], [`ladder`] | the whole way of a request, and where it ends |

pub mod address;
pub mod asked;
pub mod client;
pub mod ladder;
pub mod link;
pub mod place;
mod pods;
mod policies;
mod relay;
pub mod ruling;
mod secrets;
pub mod strict_ready;
pub mod tls_check;
mod traffic;
pub mod verdict;
pub mod why;
pub mod wire;

use crate::Shell;
use crate::args::ProxyCommand;
use crate::fault::{Answer, Fault};
use client::ProxyPages;

/// Stands where there is nothing to say.
const NONE: &str = "–";

pub(crate) async fn run(command: ProxyCommand, shell: &mut Shell) -> Result<Answer, Fault> {
    match command {
        ProxyCommand::Secrets(args) => shell.show(&ProxyPages::at(&args.admin).secrets().await?)?,
        ProxyCommand::Policies(args) => shell.show(&ProxyPages::at(&args.admin).policies().await?)?,
        ProxyCommand::Connections(args) => shell.show(&ProxyPages::at(&args.admin).connections().await?)?,
        ProxyCommand::Listeners(args) => shell.show(&ProxyPages::at(&args.admin).listeners().await?)?,
        ProxyCommand::PlaintextClients(args) => {
            shell.show(&ProxyPages::at(&args.admin).plaintext_clients().await?)?;
        }
        ProxyCommand::Relay(args) => return relay::run(&args).await,
    }
    Ok(Answer::Yes)
}
