//! An application, as an operator of `signet dev` says it: whose it is, and where it listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use signet_certs::ServiceAccountId;

/// The port that policies mean where the application is the one we bring along.
pub const ECHO_PORT: u16 = 8080;
/// How it is written.
const ECHO: &str = "echo";

/// A workload that gets a proxy of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its service account.
    pub account: ServiceAccountId,
    /// What is behind its proxy; nothing for one that only asks others.
    pub application: Option<Application>,
}

/// What is behind a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// A small HTTP server in this process, which says who asked it for what.
    Echo,
    /// A server of the operator's.
    At(SocketAddr, Speaks),
}

/// What is spoken with an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP, in whichever version the client speaks.
    Http,
    /// Anything; judged by connection.
    Tcp,
}

/// Why a text names no application.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// No account.
    #[error("{0:?} is no account; write NAMESPACE/ACCOUNT, as in shop/cart")]
    Account(String),
    /// No place where one could listen.
    #[error(
        "{0:?} is no place of an application; write ADDRESS:PORT for HTTP, tcp://ADDRESS:PORT for anything else, or \
         echo for one that is brought along"
    )]
    Place(String),
}

impl Speaks {
    /// The word for it in a proxy's configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

impl Application {
    /// What is spoken with it.
    #[must_use]
    pub fn speaks(self) -> Speaks {
        match self {
            Self::Echo => Speaks::Http,
            Self::At(_, speaks) => speaks,
        }
    }

    /// The port that policies mean.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Echo => ECHO_PORT,
            Self::At(address, _) => address.port(),
        }
    }
}

impl FromStr for App {
    type Err = AppError;

    fn from_str(text: &str) -> Result<Self, AppError> {
        let (account, place) = match text.split_once('=') {
            Some((account, place)) => (account, Some(place)),
            None => (text, None),
        };
        let named = account
            .split_once('/')
            .and_then(|(namespace, name)| ServiceAccountId::new(namespace, name).ok());
        Ok(Self {
            account: named.ok_or_else(|| AppError::Account(account.into()))?,
            application: place.map(str::parse).transpose()?,
        })
    }
}

impl FromStr for Application {
    type Err = AppError;

    fn from_str(text: &str) -> Result<Self, AppError> {
        if text == ECHO {
            return Ok(Self::Echo);
        }
        let (speaks, place) = match text.split_once("://") {
            Some(("http", place)) => (Speaks::Http, place.trim_end_matches('/')),
            Some(("tcp", place)) => (Speaks::Tcp, place),
            Some(_) => return Err(AppError::Place(text.into())),
            None => (Speaks::Http, text),
        };
        let address = match place.strip_prefix("localhost:") {
            Some(port) => port
                .parse()
                .ok()
                .map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
            None => place.parse().ok(),
        };
        match address {
            Some(address) if address.port() != 0 => Ok(Self::At(address, speaks)),
            _ => Err(AppError::Place(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(text: &str) -> Option<Application> {
        text.parse::<App>().unwrap().application
    }

    #[test]
    fn an_app_is_an_account_and_where_it_listens() {
        let at = |text: &str, speaks| Some(Application::At(text.parse().unwrap(), speaks));
        for (text, expected) in [
            ("shop/web", None),
            ("shop/web=echo", Some(Application::Echo)),
            ("shop/web=127.0.0.1:80", at("127.0.0.1:80", Speaks::Http)),
            ("shop/web=[::1]:80", at("[::1]:80", Speaks::Http)),
            ("shop/web=localhost:80", at("127.0.0.1:80", Speaks::Http)),
            ("shop/web=http://localhost:80/", at("127.0.0.1:80", Speaks::Http)),
            ("shop/web=tcp://10.0.0.1:5432", at("10.0.0.1:5432", Speaks::Tcp)),
        ] {
            assert_eq!(application(text), expected, "{text}");
        }
        assert_eq!("shop/web".parse::<App>().unwrap().account.to_string(), "shop/web");
    }

    #[test]
    fn what_is_no_app_is_refused_with_how_to_write_it() {
        for text in ["web", "Shop/web", "/web", ""] {
            assert_eq!(text.parse::<App>(), Err(AppError::Account(text.into())), "{text}");
        }
        for place in [
            "",
            "8080",
            "127.0.0.1",
            "127.0.0.1:0",
            "shop.example:80",
            "udp://127.0.0.1:53",
        ] {
            let refused = format!("shop/web={place}").parse::<App>().unwrap_err();
            assert_eq!(refused, AppError::Place(place.into()));
        }
    }
}
