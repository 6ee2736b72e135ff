//! A client of the SPIFFE Workload API without a library's good manners.

use std::path::Path;
use std::time::Duration;

use signet_proto::wire::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use signet_proto::wire::{
    JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest, ValidateJwtsvidResponse, X509svidRequest,
    X509svidResponse,
};
use signet_proto::workload::{SECURITY_KEY, SECURITY_VALUE};
use signet_runtime::grpc::{Timeouts, unix_channel};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// A client of the socket at `path`.
#[must_use]
pub fn client(path: &Path) -> SpiffeWorkloadApiClient<Channel> {
    SpiffeWorkloadApiClient::new(unix_channel(path.to_owned(), Timeouts::default()))
}

/// A request with the security metadata.
#[must_use]
pub fn secure<T>(message: T) -> Request<T> {
    with_metadata(message, &[SECURITY_VALUE])
}

/// A request with the metadata's key once for each of these values.
///
/// # Panics
/// When one cannot be sent.
#[must_use]
pub fn with_metadata<T>(message: T, values: &[&str]) -> Request<T> {
    let mut request = Request::new(message);
    for value in values {
        request
            .metadata_mut()
            .append(SECURITY_KEY, value.parse().expect("a value that can be sent"));
    }
    request
}

/// A stream of this process's SVIDs.
///
/// # Errors
/// The agent's status.
pub async fn x509_stream(path: &Path) -> Result<Streaming<X509svidResponse>, Status> {
    let opened = client(path).fetch_x509svid(secure(X509svidRequest {})).await?;
    Ok(opened.into_inner())
}

/// The next message of a stream.
///
/// # Errors
/// The status that ended it; `Unknown` for an end without one.
///
/// # Panics
/// When nothing comes for longer than anything should take.
pub async fn next<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    let message = crate::wait::within("a message", Duration::from_secs(60), stream.message()).await?;
    message.ok_or_else(|| Status::unknown("the stream ended"))
}

/// The first message of a stream of SVIDs, or the status in its place.
///
/// # Errors
/// The agent's status.
pub async fn x509(path: &Path) -> Result<X509svidResponse, Status> {
    next(&mut x509_stream(path).await?).await
}

/// Tokens for these audiences.
///
/// # Errors
/// The agent's status.
pub async fn jwt(path: &Path, audience: &[&str], id: &str) -> Result<JwtsvidResponse, Status> {
    let request = JwtsvidRequest {
        audience: audience.iter().map(|one| (*one).to_owned()).collect(),
        spiffe_id: id.into(),
    };
    let answer = client(path).fetch_jwtsvid(secure(request)).await?;
    Ok(answer.into_inner())
}

/// What the agent says of a token.
///
/// # Errors
/// The agent's status.
pub async fn validate(path: &Path, audience: &str, token: &str) -> Result<ValidateJwtsvidResponse, Status> {
    let request = ValidateJwtsvidRequest {
        audience: audience.into(),
        svid: token.into(),
    };
    let answer = client(path).validate_jwtsvid(secure(request)).await?;
    Ok(answer.into_inner())
}
