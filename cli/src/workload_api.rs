//! The client of the SPIFFE Workload API, as any workload is one (SPIFFE_Workload_API §5, §6).

use std::path::{Path, PathBuf};
use std::time::Duration;

use signet_certs::SpiffeId;
use signet_proto::wire::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use signet_proto::wire::{
    Jwtsvid, JwtsvidRequest, ValidateJwtsvidRequest, ValidateJwtsvidResponse, X509svidRequest,
};
use signet_proto::workload::{SECURITY_KEY, SECURITY_VALUE};
use signet_runtime::grpc::{self, Timeouts};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::fault::Fault;

/// Patience for an answer. An agent may wait for a pod it has not seen for 30 s, and then for its SVID.
const DEADLINE: Duration = Duration::from_secs(45);

/// What came of a question about a token.
#[derive(Debug)]
pub(crate) enum Judged {
    /// The token is good.
    Good(ValidateJwtsvidResponse),
    /// It is not, for this reason.
    Refused(String),
}

/// An agent's workload socket.
#[derive(Debug)]
pub(crate) struct WorkloadApi {
    socket: PathBuf,
    client: SpiffeWorkloadApiClient<Channel>,
}

impl WorkloadApi {
    /// The socket at `path`. Nothing is connected yet.
    pub(crate) fn at(path: &Path) -> Self {
        let channel = grpc::unix_channel(path.to_owned(), Timeouts::default());
        Self {
            socket: path.to_owned(),
            client: SpiffeWorkloadApiClient::new(channel),
        }
    }

    /// Every identity this process may have, the default first; nothing where this API is not served.
    pub(crate) async fn identities(&self) -> Result<Option<Vec<SpiffeId>>, Fault> {
        let mut client = self.client.clone();
        let first = async {
            let request = question(X509svidRequest::default());
            client.fetch_x509svid(request).await?.into_inner().message().await
        };
        let svids = match self.in_time(first).await? {
            Ok(Some(message)) => message.svids,
            Ok(None) => return Err(self.unanswered("the stream of SVIDs ended before the first")),
            Err(status) if status.code() == Code::Unimplemented => return Ok(None),
            Err(status) => return Err(self.fault(&status)),
        };
        let ids = svids.iter().map(|svid| svid.spiffe_id.parse());
        let ids = ids.collect::<Result<_, _>>();
        ids.map(Some)
            .map_err(|e| self.unanswered(&format!("the agent names an SVID that is none: {e}")))
    }

    /// Tokens for `audience`: of `id`, or of every identity this process may have, the default first.
    pub(crate) async fn jwt_svids(
        &self,
        audience: &[String],
        id: Option<&SpiffeId>,
    ) -> Result<Vec<Jwtsvid>, Fault> {
        let request = JwtsvidRequest {
            audience: audience.to_vec(),
            spiffe_id: id.map(ToString::to_string).unwrap_or_default(),
        };
        let mut client = self.client.clone();
        match self.in_time(client.fetch_jwtsvid(question(request))).await? {
            Ok(answer) => Ok(answer.into_inner().svids),
            Err(status) => Err(self.fault(&status)),
        }
    }

    /// Whether the agent accepts a token for `audience`.
    pub(crate) async fn validate_jwt(&self, token: &str, audience: &str) -> Result<Judged, Fault> {
        let request = ValidateJwtsvidRequest {
            audience: audience.to_owned(),
            svid: token.to_owned(),
        };
        let mut client = self.client.clone();
        match self.in_time(client.validate_jwtsvid(question(request))).await? {
            Ok(answer) => Ok(Judged::Good(answer.into_inner())),
            Err(status) if status.code() == Code::InvalidArgument => {
                Ok(Judged::Refused(status.message().to_owned()))
            }
            Err(status) => Err(self.fault(&status)),
        }
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<Result<T, Status>, Fault> {
        match tokio::time::timeout(DEADLINE, call).await {
            Ok(answered) => Ok(answered),
            Err(_) => Err(self.unanswered(&format!("no answer within {} s", DEADLINE.as_secs()))),
        }
    }

    /// What the agent decided is an answer; what it cannot know yet, or nobody at the socket, is none.
    fn fault(&self, status: &Status) -> Fault {
        if let Some(error) = grpc::dial_error(status) {
            return Fault::Unanswered(format!("{error}; is the agent running, and is this its socket?"));
        }
        let shown = self.socket.display();
        match status.code() {
            Code::PermissionDenied | Code::InvalidArgument => {
                Fault::Refused(format!("{shown}: the agent refused: {}", status.message()))
            }
            Code::Unimplemented => self.unanswered("nobody serves the SPIFFE Workload API there"),
            Code::ResourceExhausted => self.unanswered(&format!("{} (ask again later)", status.message())),
            code => self.unanswered(&format!("{} ({code:?})", status.message())),
        }
    }

    fn unanswered(&self, what: &str) -> Fault {
        Fault::Unanswered(format!("{}: {what}", self.socket.display()))
    }
}

/// With the header that every call has to carry (SPIFFE_Workload_Endpoint §3).
fn question<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::from_static(SECURITY_VALUE);
    request.metadata_mut().insert(SECURITY_KEY, value);
    request
}
