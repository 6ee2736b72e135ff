//! What a CA says is trusted, as agents hear it, and tokens from it.

use std::sync::Arc;
use std::time::Duration;

use signet_certs::{BundleSet, TrustBundle, TrustDomain};
use signet_proto::authority::{Trust, from_wire};
use signet_proto::wire::signet::ca::v1::authority_client::AuthorityClient;
use signet_proto::wire::signet::ca::v1::{MintJwtSvidRequest, WatchBundleRequest, WatchBundleResponse};
use tonic::{Request, Status, Streaming};

use crate::ca::Ca;
use crate::client::Dial;
use crate::wait::within;

/// One stream of `WatchBundle`.
#[derive(Debug)]
pub struct Watch(Streaming<WatchBundleResponse>);

impl Watch {
    /// Opens one at `ca`.
    ///
    /// # Panics
    /// When the CA refuses.
    pub async fn open(ca: &Ca) -> Self {
        let mut client = AuthorityClient::new(Dial::default().channel(ca).await);
        let agent = "test".to_owned();
        let stream = client.watch_bundle(WatchBundleRequest { agent }).await;
        Self(stream.expect("a stream").into_inner())
    }

    /// The next message, which must be wholly sound.
    ///
    /// # Panics
    /// When none comes in `deadline`, or a bundle in it is refused.
    pub async fn next(&mut self, deadline: Duration) -> Trust {
        let message = within("the next bundles", deadline, self.0.message()).await;
        let message = message.expect("the stream goes on").expect("a message");
        let trust = from_wire(&message).expect("sound");
        assert!(trust.refused.is_empty(), "{:?}", trust.refused);
        trust
    }

    /// Waits for the end of the stream, whatever comes before.
    ///
    /// # Errors
    /// When the CA ends it with a fault.
    ///
    /// # Panics
    /// When it goes on past `deadline`.
    pub async fn end(&mut self, deadline: Duration) -> Result<(), Status> {
        let end = async {
            while self.0.message().await?.is_some() {}
            Ok(())
        };
        within("the end of the stream", deadline, end).await
    }

    /// Messages until one fits.
    ///
    /// # Panics
    /// When none does in `deadline`.
    pub async fn until(&mut self, what: &str, deadline: Duration, fits: impl Fn(&Trust) -> bool) -> Trust {
        let found = async {
            loop {
                let trust = self.next(deadline).await;
                if fits(&trust) {
                    return trust;
                }
            }
        };
        within(what, deadline, found).await
    }
}

/// What is trusted now.
pub async fn trust(ca: &Ca) -> Trust {
    Watch::open(ca).await.next(crate::wait::SOON).await
}

/// The bundle of `domain` in it, if there is one.
#[must_use]
pub fn foreign<'a>(trust: &'a Trust, domain: &str) -> Option<&'a TrustBundle> {
    let domain: TrustDomain = domain.parse().ok()?;
    trust
        .foreign
        .iter()
        .find(|bundle| *bundle.trust_domain() == domain)
}

/// All of it, for a validator.
#[must_use]
pub fn set(trust: &Trust) -> BundleSet {
    let mut set = BundleSet::of(Arc::new(trust.own.clone()));
    for bundle in &trust.foreign {
        set.insert(Arc::new(bundle.clone()));
    }
    set
}

/// A request for a JWT-SVID.
#[derive(Clone, Debug, Default)]
pub struct Mint {
    request: MintJwtSvidRequest,
    token: Option<String>,
}

impl Mint {
    /// For these audiences.
    #[must_use]
    pub fn audience(audience: &[&str]) -> Self {
        let audience = audience.iter().map(|one| (*one).to_owned()).collect();
        Self {
            request: MintJwtSvidRequest {
                audience,
                ..MintJwtSvidRequest::default()
            },
            token: None,
        }
    }

    /// With this token of the caller's.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Of this identity.
    #[must_use]
    pub fn of(mut self, id: &str) -> Self {
        self.request.spiffe_id = id.into();
        self
    }

    /// For so many seconds.
    #[must_use]
    pub fn seconds(mut self, seconds: i64) -> Self {
        self.request.validity_seconds = seconds;
        self
    }

    /// Sends it over a connection of its own; answers the token.
    ///
    /// # Errors
    /// The CA's status.
    ///
    /// # Panics
    /// When the caller's token cannot be a header.
    pub async fn at(&self, ca: &Ca) -> Result<String, Status> {
        let mut request = Request::new(self.request.clone());
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().expect("a header");
            request.metadata_mut().insert("authorization", value);
        }
        let mut client = AuthorityClient::new(Dial::default().channel(ca).await);
        let answer = client.mint_jwt_svid(request).await?;
        Ok(answer.into_inner().token)
    }
}
