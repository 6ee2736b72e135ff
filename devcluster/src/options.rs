//! How a cluster is started.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::grants::{Account, Grants};

/// Where the cluster takes the time from: creation stamps, token lifetimes, the TokenReview cache. The serving
/// certificate always follows the wall clock, as the clients that check it do.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// How a cluster is started. The default listens on a free port of 127.0.0.1 and grants nothing to anyone.
#[derive(Clone)]
pub struct Options {
    /// Address to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The time.
    pub clock: Clock,
    /// What service accounts may do.
    pub grants: Vec<(Account, Grants)>,
    /// Whether `/openid/v1/jwks` and `/.well-known/openid-configuration` answer; otherwise they are 403 for everyone.
    pub jwks_readable: bool,
    /// Whether tokens and reviews carry what servers since 1.29 add: `jti` and the node in the claims, credential id
    /// and node in the review. Off, tokens and reviews look as those of 1.20.
    pub node_extras: bool,
    /// How long after `exp` and before `nbf` a token still passes review. A real server allows a minute.
    pub token_leeway: Duration,
    /// How many changes are remembered for watches; older resource versions are refused as expired.
    pub history: usize,
    /// How many watches may run at once; the next one is refused with 429.
    pub max_watches: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clock: Arc::new(crate::time::wall_clock),
            grants: Vec::new(),
            jwks_readable: true,
            node_extras: true,
            token_leeway: Duration::from_secs(60),
            history: 4096,
            max_watches: 1024,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("grants", &self.grants)
            .field("jwks_readable", &self.jwks_readable)
            .field("node_extras", &self.node_extras)
            .field("token_leeway", &self.token_leeway)
            .field("history", &self.history)
            .field("max_watches", &self.max_watches)
            .finish_non_exhaustive()
    }
}
