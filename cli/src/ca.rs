//! The client of the CA's own services: `CreateCertificate`, and the bundle stream.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use signet_certs::tls;
use signet_proto::authority::from_wire;
use signet_proto::wire::istio::v1::auth::IstioCertificateResponse;
use signet_proto::wire::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use signet_proto::wire::signet::ca::v1::WatchBundleRequest;
use signet_proto::wire::signet::ca::v1::authority_client::AuthorityClient;
use signet_runtime::Clock;
use signet_runtime::clock::TlsTime;
use signet_runtime::grpc::{self, DialError, Timeouts};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::args::CaArgs;
use crate::fault::Fault;
use crate::inputs::{self, NamedBundle, NamedBy};

/// Patience for one call, dial included.
const DEADLINE: Duration = Duration::from_secs(15);
/// Name the CA proves where the address says nothing: its Service's.
const USUAL_NAME: &str = "signet-ca.signet-system.svc";

/// A CA that can be called.
#[derive(Debug)]
pub struct Ca {
    address: String,
    server_name: String,
    root_file: String,
    roots: NamedBundle,
    channel: Channel,
}

impl Ca {
    /// The CA an operator names. Nothing is dialled yet.
    ///
    /// # Errors
    /// [`Fault::Unanswered`] for roots that cannot be read, or an address that is none.
    pub fn named(args: &CaArgs, clock: &Arc<dyn Clock>) -> Result<Self, Fault> {
        let roots = inputs::bundle(&args.ca_root, None, "cluster.local".parse().ok())?;
        let server_name = args.server_name.clone().unwrap_or_else(|| proven_name(&args.ca));
        let time = Arc::new(TlsTime(Arc::clone(clock)));
        let config = tls::dns_client_config(&roots.bundle, &[b"h2"], time).map_err(Fault::unanswered)?;
        let channel = grpc::channel(&args.ca, Arc::new(config), &server_name, Timeouts::default())
            .map_err(|e| Fault::Unanswered(format!("--ca: {e}")))?;
        Ok(Self {
            address: args.ca.clone(),
            server_name,
            root_file: args.ca_root.display().to_string(),
            roots,
            channel,
        })
    }

    /// The roots the operator named.
    #[must_use]
    pub fn roots(&self) -> &NamedBundle {
        &self.roots
    }

    /// Sends a CSR with a token.
    ///
    /// # Errors
    /// [`Fault::Refused`] when the CA decided against it, [`Fault::Unanswered`] when it was not reached.
    pub async fn create_certificate(
        &self,
        csr: String,
        ttl: Duration,
        token: &str,
    ) -> Result<IstioCertificateResponse, Fault> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let mut request = Request::new(signet_proto::issue::request(csr, seconds));
        let mut bearer: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| {
            Fault::unanswered("the token holds characters no token has; run `signet token check` on it")
        })?;
        bearer.set_sensitive(true);
        request.metadata_mut().insert("authorization", bearer);
        let mut client = IstioCertificateServiceClient::new(self.channel.clone());
        self.in_time(client.create_certificate(request))
            .await
            .map(tonic::Response::into_inner)
    }

    /// The trust bundle the CA publishes now; nothing from a CA that has no such service, as istiod.
    ///
    /// # Errors
    /// As [`Ca::create_certificate`].
    pub async fn bundle(&self) -> Result<Option<NamedBundle>, Fault> {
        let agent = format!("signet {}", env!("CARGO_PKG_VERSION"));
        let mut client = AuthorityClient::new(self.channel.clone());
        let first = async {
            let mut stream = client
                .watch_bundle(WatchBundleRequest { agent })
                .await?
                .into_inner();
            stream.message().await
        };
        let answered = match tokio::time::timeout(DEADLINE, first).await {
            Ok(Err(status)) if status.code() == Code::Unimplemented => return Ok(None),
            Ok(Err(status)) => return Err(self.fault(&status)),
            Ok(Ok(message)) => message,
            Err(_) => return Err(self.slow()),
        };
        let message = answered.ok_or_else(|| {
            Fault::Unanswered(format!(
                "the CA at {} ended the bundle stream without a bundle",
                self.address
            ))
        })?;
        let unusable = |e| Fault::Unanswered(format!("the CA's bundle cannot be used: {e}"));
        let bundle = from_wire(&message).map_err(unusable)?.own;
        Ok(Some(NamedBundle {
            bundle,
            named_by: NamedBy::Ca,
        }))
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Fault> {
        match tokio::time::timeout(DEADLINE, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(self.fault(&status)),
            Err(_) => Err(self.slow()),
        }
    }

    fn slow(&self) -> Fault {
        Fault::Unanswered(format!(
            "the CA at {} gave no answer within {} s",
            self.address,
            DEADLINE.as_secs()
        ))
    }

    fn fault(&self, status: &Status) -> Fault {
        if let Some(error) = grpc::dial_error(status) {
            return Fault::Unanswered(format!("{error}{}", self.dial_hint(error)));
        }
        let said = format!("the CA at {} refused: {}", self.address, status.message());
        match status.code() {
            Code::Unauthenticated => Fault::Refused(format!(
                "{said}; `signet token check --token-file FILE --admin SOCKET`, run beside the CA, says why"
            )),
            Code::InvalidArgument | Code::PermissionDenied | Code::FailedPrecondition => Fault::Refused(said),
            Code::ResourceExhausted => Fault::Unanswered(format!("{said} (overloaded; ask again later)")),
            code => Fault::Unanswered(format!(
                "the CA at {} could not answer: {} ({code:?})",
                self.address,
                status.message()
            )),
        }
    }

    /// What to do about a handshake that failed.
    fn dial_hint(&self, error: &DialError) -> String {
        use rustls::CertificateError as Certificate;
        match error.tls() {
            Some(rustls::Error::InvalidCertificate(reason)) => match reason {
                Certificate::UnknownIssuer | Certificate::BadSignature => {
                    format!("; {} does not hold the root of this CA", self.root_file)
                }
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => format!(
                    "; the CA does not go by {}; name it with --server-name",
                    self.server_name
                ),
                Certificate::Expired
                | Certificate::ExpiredContext { .. }
                | Certificate::NotValidYet
                | Certificate::NotValidYetContext { .. } => {
                    "; compare this machine's clock with the CA's".into()
                }
                _ => String::new(),
            },
            Some(rustls::Error::InvalidMessage(_)) => "; it speaks no TLS: is this the CA's port?".into(),
            _ => String::new(),
        }
    }
}

/// The name a CA at this address has to prove. Its certificate holds names of Services, so an IP address
/// or localhost means a forwarded port.
fn proven_name(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() || bare == "localhost" {
        USUAL_NAME.into()
    } else {
        host.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_behind_a_forwarded_port_must_prove_its_services_name() {
        for forwarded in ["127.0.0.1:15012", "[::1]:15012", "localhost:15012"] {
            assert_eq!(proven_name(forwarded), USUAL_NAME);
        }
        assert_eq!(
            proven_name("istiod.istio-system.svc:15012"),
            "istiod.istio-system.svc"
        );
    }
}
