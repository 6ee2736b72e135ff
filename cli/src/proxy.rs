//! `signet proxy` and `signet strict-ready`: what running proxies say of themselves.
//!
//! | module | owns |
//! |---|---|
//! | [`address`] | where an admin page is: on loopback |
//! | [`client`] | asking for a page, and why there is none |
//! | [`wire`] | what the pages say |
//! | `secrets`, `policies`, `traffic` | pages for people |
//! | [`strict_ready`], [`verdict`] | whether STRICT would cut somebody off |

pub mod address;
pub mod client;
mod policies;
mod secrets;
pub mod strict_ready;
mod traffic;
pub mod verdict;
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
    }
    Ok(Answer::Yes)
}
