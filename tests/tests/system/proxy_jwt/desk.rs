//! A provider of CUSTOM policies.

use std::sync::{Arc, Mutex};

use signet_proto::wire::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use signet_proto::wire::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use signet_proto::wire::envoy::service::auth::v3::check_response::HttpResponse;
use signet_proto::wire::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use signet_proto::wire::envoy::r#type::v3::HttpStatus;
use signet_proto::wire::google::rpc;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

/// A provider that judges by the path, and keeps what it was told.
#[derive(Clone, Default)]
pub(super) struct Desk(pub(super) Arc<Mutex<Vec<AttributeContext>>>);

#[tonic::async_trait]
impl Authorization for Desk {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, Status> {
        let attributes = request.into_inner().attributes.unwrap();
        let http = attributes
            .request
            .as_ref()
            .and_then(|request| request.http.as_ref());
        let path = http.map_or("", |http| http.path.as_str()).to_owned();
        self.0.lock().unwrap().push(attributes);
        Ok(tonic::Response::new(match path.as_str() {
            "/no" => CheckResponse {
                status: Some(rpc::Status {
                    code: 7,
                    message: String::new(),
                }),
                http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
                    status: Some(HttpStatus { code: 418 }),
                    headers: vec![option("x-why", "because", None, 0)],
                    body: "no tea".into(),
                })),
            },
            "/fail" => return Err(Status::internal("it broke")),
            _ => CheckResponse {
                status: None,
                http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
                    headers: vec![
                        option("x-plain", "new", None, 0),
                        option("x-set", "new", Some(false), 0),
                        option("x-join", "new", Some(true), 0),
                        option("x-join-none", "new", Some(true), 0),
                        option("x-absent", "new", None, 1),
                        option("x-over", "new", None, 2),
                        option("x-over-none", "new", None, 3),
                    ],
                    headers_to_remove: vec!["x-gone".into(), "host".into()],
                    response_headers_to_add: vec![
                        option("x-back", "b", None, 0),
                        option("x-r-plain", "new", None, 0),
                        option("x-r-set", "new", Some(false), 0),
                        option("x-r-add", "new", Some(true), 0),
                        option("x-r-absent", "new", None, 1),
                        option("x-r-over", "new", None, 2),
                        option("x-r-over-none", "new", None, 3),
                    ],
                    ..OkHttpResponse::default()
                })),
            },
        }))
    }
}

fn option(key: &str, value: &str, append: Option<bool>, append_action: i32) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.into(),
            value: value.into(),
            ..HeaderValue::default()
        }),
        append,
        append_action,
        keep_empty_value: false,
    }
}

/// Where it is served, and what ends it and every connection to it.
pub(super) async fn serve(desk: Desk) -> (String, Serving) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder().add_service(AuthorizationServer::new(desk));
    let (stop, stopped) = oneshot::channel::<()>();
    let until = async { drop(stopped.await) };
    let task = tokio::spawn(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), until));
    (address, Serving { stop, task })
}

/// A provider that is served until this is dropped.
pub(super) struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Serving {
    pub(super) async fn end(self) {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
    }
}
