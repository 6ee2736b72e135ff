//! gRPC server reflection for what the workload socket serves (SPIFFE_Workload_Endpoint §7).
//!
//! It tells what is public anyway and nothing about anybody, so it asks for no security metadata, which
//! reflection tools do not send, and attests nobody.

use signet_proto::workload::DESCRIPTORS;
use tokio_util::sync::CancellationToken;
use tonic_reflection::server::{Builder, v1, v1alpha};

use super::ending::Ending;

/// Largest request read: the name of a file or a symbol.
const MAX_REQUEST_BYTES: usize = 4 * 1024;

/// The service as it is named now. Its calls end when `shutdown` is given.
///
/// # Errors
/// A sentence when our own descriptors cannot be read.
pub fn v1(
    shutdown: CancellationToken,
) -> Result<Ending<v1::ServerReflectionServer<impl v1::ServerReflection>>, String> {
    let service = builder().build_v1().map_err(|e| unreadable(&e))?;
    Ok(Ending::new(
        service.max_decoding_message_size(MAX_REQUEST_BYTES),
        shutdown,
    ))
}

/// The same under the name that older tools ask for.
///
/// # Errors
/// As [`v1()`].
pub fn v1alpha(
    shutdown: CancellationToken,
) -> Result<Ending<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>>, String> {
    let service = builder().build_v1alpha().map_err(|e| unreadable(&e))?;
    Ok(Ending::new(
        service.max_decoding_message_size(MAX_REQUEST_BYTES),
        shutdown,
    ))
}

fn builder() -> Builder<'static> {
    Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS)
}

fn unreadable(error: &dyn std::fmt::Display) -> String {
    format!("descriptors of the workload socket's services: {error}")
}
