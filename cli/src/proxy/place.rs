//! Where the admin socket of a proxy is: on this machine, or in a pod.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// `/run/signet/admin/admin.sock`, or `shop/cart-7d9f`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A socket on this machine.
    Socket(PathBuf),
    /// The socket of a pod's proxy, reached by `kubectl exec`.
    Pod {
        /// The namespace.
        namespace: String,
        /// The pod, or what `kubectl exec` takes for one, as in `deploy/cart`.
        pod: String,
    },
}

/// Why a text is no place of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no proxy; write the path of its admin_socket (/run/signet/admin/admin.sock), or NAMESPACE/POD \
     (shop/cart-7d9f, shop/deploy/cart)"
)]
pub struct NoPlace(String);

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        if text.starts_with('/')
            || text.starts_with("./")
            || text.starts_with("../")
            || text.ends_with(".sock")
        {
            return Ok(Self::Socket(PathBuf::from(text)));
        }
        let wrong = || NoPlace(text.to_owned());
        let (namespace, pod) = text.split_once('/').ok_or_else(wrong)?;
        // They become arguments of another program, which must not take them for options.
        let named = |name: &str| {
            let mut letters = name.chars();
            letters.next().is_some_and(|first| first.is_ascii_alphanumeric())
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        };
        if !named(namespace) || !pod.split('/').all(named) || pod.split('/').count() > 2 {
            return Err(wrong());
        }
        Ok(Self::Pod {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Pod { namespace, pod } => write!(f, "{namespace}/{pod}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_pods_are_told_apart() {
        for socket in ["/run/admin.sock", "./a", "../a/b", "admin.sock", "dev/admin.sock"] {
            assert_eq!(socket.parse(), Ok(Place::Socket(socket.into())), "{socket}");
        }
        for (text, pod) in [
            ("shop/cart-7d9f", "cart-7d9f"),
            ("shop/deploy/cart", "deploy/cart"),
        ] {
            let place = Place::Pod {
                namespace: "shop".into(),
                pod: pod.into(),
            };
            assert_eq!(place.to_string(), text);
            assert_eq!(text.parse(), Ok(place));
        }
        for wrong in [
            "cart",
            "",
            "shop/",
            "--kubeconfig=x/y",
            "shop/-c",
            "a/b/c/d",
            "shop/a b",
        ] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
