//! A workload that uses the `spiffe` and `spiffe-rustls` crates. One JSON object per line on stdout.
//!
//! ```text
//! signet-spiffe-client x509                  the SVIDs and bundles now
//! signet-spiffe-client watch COUNT           the same at once and after each change, COUNT times
//! signet-spiffe-client source COUNT          the serial an X509Source holds, at once and after each change
//! signet-spiffe-client jwt AUDIENCE          a token of each identity, validated by the agent
//! signet-spiffe-client validate AUDIENCE     the token on stdin, validated by the agent
//! signet-spiffe-client serve PEER            a mutual TLS server for PEER: its address, then each peer
//! signet-spiffe-client dial ADDRESS PEER     one mutual TLS connection to PEER
//! ```
//!
//! `SPIFFE_ENDPOINT_SOCKET` names the socket. Exit code 1 with `{"error": …}` when the answer is no.

use std::error::Error;
use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Map, Value, json};
use spiffe::{JwtSource, WorkloadApiClient, X509Context, X509Source};
use spiffe_rustls::{authorizer, mtls_client, mtls_server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const DEADLINE: Duration = Duration::from_secs(60);

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

#[expect(clippy::print_stdout, reason = "what it says is what it is for")]
fn say(line: &Value) {
    println!("{line}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match tokio::time::timeout(DEADLINE, run(&arguments)).await {
        Ok(outcome) => outcome,
        Err(_) => Err("deadline".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(below) = cause {
                text = format!("{text}: {below}");
                cause = below.source();
            }
            say(&json!({"error": text}));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[&str]) -> Outcome {
    match arguments {
        ["x509"] => x509().await,
        ["watch", count] => watch(count.parse()?).await,
        ["source", count] => source(count.parse()?).await,
        ["jwt", audience] => jwt(audience).await,
        ["validate", audience] => validate(audience).await,
        ["serve", peer] => serve(peer).await,
        ["dial", address, peer] => dial(address, peer).await,
        other => Err(format!("unknown command {other:?}").into()),
    }
}

fn serial(der: &[u8]) -> Outcome<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der)?;
    Ok(certificate.tbs_certificate.serial.to_str_radix(16))
}

fn show(context: &X509Context) -> Outcome {
    let mut svids = Vec::new();
    for svid in context.svids() {
        svids.push(json!({
            "id": svid.spiffe_id().to_string(),
            "serial": serial(svid.leaf().as_ref())?,
            "chain": svid.cert_chain().len(),
            "hint": svid.hint().unwrap_or_default(),
        }));
    }
    let bundles: Map<String, Value> = context
        .bundle_set()
        .iter()
        .map(|(domain, bundle)| (domain.to_string(), bundle.authorities().len().into()))
        .collect();
    say(&json!({"svids": svids, "bundles": bundles}));
    Ok(())
}

async fn x509() -> Outcome {
    let client = WorkloadApiClient::connect_env().await?;
    let context = client.fetch_x509_context().await?;
    let bundles = client.fetch_x509_bundles().await?;
    if bundles.len() != context.bundle_set().len() {
        return Err("other bundles beside SVIDs than alone".into());
    }
    show(&context)
}

async fn watch(count: usize) -> Outcome {
    let client = WorkloadApiClient::connect_env().await?;
    let mut updates = client.stream_x509_contexts().await?.take(count);
    while let Some(update) = updates.next().await {
        show(&update?)?;
    }
    Ok(())
}

async fn source(count: usize) -> Outcome {
    let source = X509Source::new().await?;
    let mut updates = source.updated();
    for left in (0..count).rev() {
        let svid = source.svid()?;
        let serial = serial(svid.leaf().as_ref())?;
        say(&json!({"id": svid.spiffe_id().to_string(), "serial": serial}));
        if left > 0 {
            updates.changed().await?;
        }
    }
    source.shutdown().await;
    Ok(())
}

async fn jwt(audience: &str) -> Outcome {
    let client = WorkloadApiClient::connect_env().await?;
    let found = client.fetch_all_jwt_svids([audience], None).await?;
    let (mut tokens, mut validated) = (Vec::new(), Vec::new());
    for svid in &found {
        let by_agent = client.validate_jwt_token(audience, svid.token()).await?;
        validated.push(by_agent.spiffe_id().to_string());
        tokens.push(json!({
            "id": svid.spiffe_id().to_string(),
            "audience": svid.audience(),
            "token": svid.token(),
            "hint": svid.hint().unwrap_or_default(),
        }));
    }
    let bundles: Map<String, Value> = client
        .fetch_jwt_bundles()
        .await?
        .iter()
        .map(|(domain, bundle)| (domain.to_string(), bundle.jwt_authorities().count().into()))
        .collect();
    let source = JwtSource::new().await?;
    let first = source.fetch_jwt_svid([audience]).await?;
    if found.first().map(spiffe::JwtSvid::spiffe_id) != Some(first.spiffe_id()) {
        return Err("a JwtSource gets another identity".into());
    }
    source.shutdown().await;
    say(&json!({"tokens": tokens, "validated": validated, "bundles": bundles}));
    Ok(())
}

async fn validate(audience: &str) -> Outcome {
    let mut token = String::new();
    std::io::stdin().read_to_string(&mut token)?;
    let client = WorkloadApiClient::connect_env().await?;
    let svid = client.validate_jwt_token(audience, token.trim()).await?;
    say(&json!({"id": svid.spiffe_id().to_string()}));
    Ok(())
}

fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> Outcome<String> {
    let leaf = certificates.and_then(<[_]>::first).ok_or("no certificate")?;
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf)?;
    let names = certificate.subject_alternative_name()?.ok_or("no names")?;
    let uri = names.value.general_names.iter().find_map(|name| match name {
        x509_parser::extensions::GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    Ok(uri.ok_or("no URI name")?)
}

async fn serve(peer: &str) -> Outcome {
    let source = X509Source::new().await?;
    let config = mtls_server(source)
        .authorize(authorizer::exact([peer])?)
        .build()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&json!({"address": listener.local_addr()?.to_string()}));
    loop {
        let (stream, _) = listener.accept().await?;
        match answer(&acceptor, stream).await {
            Ok(peer) => say(&json!({"peer": peer})),
            Err(error) => say(&json!({"refused": error.to_string()})),
        }
    }
}

async fn answer(acceptor: &TlsAcceptor, stream: TcpStream) -> Outcome<String> {
    let mut stream = acceptor.accept(stream).await?;
    let peer = peer_of(stream.get_ref().1.peer_certificates())?;
    let mut line = [0; 6];
    stream.read_exact(&mut line).await?;
    stream.write_all(b"you said ").await?;
    stream.write_all(&line).await?;
    stream.shutdown().await?;
    Ok(peer)
}

async fn dial(address: &str, peer: &str) -> Outcome {
    let source = X509Source::new().await?;
    let config = mtls_client(source.clone())
        .authorize(authorizer::exact([peer])?)
        .build()?;
    let stream = TcpStream::connect(address).await?;
    // rustls asks for a server name; the peer's SPIFFE ID is what is checked.
    let name = ServerName::try_from("peer.invalid")?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"hello\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let found = peer_of(stream.get_ref().1.peer_certificates())?;
    source.shutdown().await;
    if text.is_empty() {
        return Err("the server closed without a word".into());
    }
    say(&json!({"peer": found, "answer": text.trim()}));
    Ok(())
}
