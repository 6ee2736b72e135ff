//! One request, from its head to its answer, in the one order that is safe: framing, target, identity headers,
//! external authorizers, tokens, policies, and only then the upstream.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::Either;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, StatusCode, Version, request};
use hyper::body::{Body as _, Incoming};
use signet_policy::Normalization;

use super::body::{BodyBounds, Lingering, Pause, RequestBody, ResponseBody};
use super::flow::Flow;
use super::framing::Upgrade;
use super::headers::{self, Hop, HopFault, REQUEST_ID, XFCC};
use super::pool::{Answer, Pool, Share};
use super::refusal::Refusal;
use super::target;
use super::ticket::{Account, Ticket};
use super::tunnel::Tunnel;
use super::{judge, tunnel};
use crate::access_log::{Reason, RequestFault, Upstream as Fault};
use crate::config::Speaks;
use crate::connection::{Accepted, Direction};
use crate::ext_authz::answer::Changes;
use tokio::time::Instant;

/// What the requests of one connection have in common.
pub struct Exchange {
    /// The connection's account.
    pub account: Arc<Account>,
    /// Where its requests go.
    pub pool: Arc<Pool>,
    /// How many of them at once, as far as it is for the client's address.
    pub share: Arc<Share>,
    /// What the application is told of the client.
    pub xfcc: Option<HeaderValue>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exchange({:?})", self.account)
    }
}

impl Exchange {
    /// Answers one request. There is an answer to every one.
    pub async fn serve(&self, mut request: Request<Incoming>, flow: Arc<Flow>) -> Response<ResponseBody> {
        let on = request
            .headers()
            .contains_key(UPGRADE)
            .then(|| hyper::upgrade::on(&mut request));
        let (head, body) = request.into_parts();
        let body = Lingering::of(body, &head, &self.account);
        let ticket = Ticket::open(&self.account, &head, flow);
        let response = self.answer(head, body, ticket, on).await;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.account.gate.settle_upgrade(Upgrade::Refused);
        }
        response
    }

    async fn answer(
        &self,
        mut head: request::Parts,
        body: Lingering,
        mut ticket: Box<Ticket>,
        on: Option<hyper::upgrade::OnUpgrade>,
    ) -> Response<ResponseBody> {
        let settled = self.settle(&mut head, &body);
        ticket.told(&head);
        let judged = match settled {
            Ok(hop) => {
                let later = judge::judge(&self.account, &mut head, &mut ticket).await;
                later.map(|later| (hop, later))
            }
            Err(refusal) => Err(refusal),
        };
        let answered = match judged {
            Ok((hop, later)) => {
                let answer = self.forward(head, body, hop, &mut ticket).await;
                answer
                    .map(|answer| (answer, later))
                    .map_err(|refusal| (refusal, None))
            }
            Err(refusal) => Err((refusal, head.headers.get(REQUEST_ID).cloned())),
        };
        match answered {
            Ok((mut answer, later)) => {
                let tidied = tidy(&mut answer.response, later);
                self.answered(answer, tidied, ticket, on)
            }
            Err((mut refusal, decision)) => {
                ticket.refused(&mut refusal);
                Self::refuse(refusal, decision.as_ref(), ticket)
            }
        }
    }

    /// Makes the head say everything once, and only what its sender may say; what it says of the body must be within
    /// bounds.
    fn settle(&self, head: &mut request::Parts, body: &Lingering) -> Result<Hop, Refusal> {
        let account = &self.account;
        let normalization = account.shared.config.normalization;
        let hop = settle_head(normalization, &account.accepted, self.xfcc.as_ref(), head)?;
        if let Some(most) = account.shared.config.limits.http.body_bytes
            && body.size_hint().lower() > most
        {
            return Err(Refusal::new(Reason::Request(RequestFault::BodyTooLarge), None));
        }
        Ok(hop)
    }

    async fn forward(
        &self,
        mut head: request::Parts,
        body: Lingering,
        hop: Hop,
        ticket: &mut Ticket,
    ) -> Result<Answer, Refusal> {
        let shared = &self.account.shared;
        let limits = &shared.config.limits.http;
        let body = self.followed(body, ticket);
        let upgrade = hop.upgrade.filter(headers::passes_on);
        let upgrade = upgrade.filter(|_| head.version == Version::HTTP_11);
        let flow = Arc::clone(ticket.flow());
        flow.went_on();
        let sending = if upgrade.is_none() && self.speaks_http2(head.version, ticket) {
            let mutual = self.pool.upstream().expected.is_some();
            head.uri = target::absolute(&head, if mutual { Scheme::HTTPS } else { Scheme::HTTP })?;
            head.headers.remove(HOST);
            head.version = Version::HTTP_2;
            Either::Left(
                self.pool
                    .send_http2(shared, &self.share, Request::from_parts(head, body)),
            )
        } else {
            for_http1(&mut head, &body, upgrade);
            Either::Right(
                self.pool
                    .send_http1(shared, &self.share, Request::from_parts(head, body)),
            )
        };
        let mut sending = pin!(sending);
        let mut sending = pin!(in_time(
            sending.as_mut(),
            &flow,
            limits.response_head,
            ticket.deadline()
        ));
        let sent = poll_fn(|cx| {
            // First, so that nothing is sent for a request that must not go on. Its task is woken for it.
            match ticket.sentence() {
                Some(sentence) => Poll::Ready(Err(sentence)),
                None => sending.as_mut().poll(cx).map(Ok),
            }
        });
        match sent.await {
            Err(sentence) => Err(Refusal::withdrawn(sentence)),
            Ok(Some(Ok(answer))) => Ok(answer),
            Ok(Some(Err(failure))) => {
                // The client's own fault comes first: the upstream only saw a body break off.
                let reason = ticket.body_fault().unwrap_or_else(|| failure.reason());
                let mut refusal = Refusal::new(reason, failure.to_string());
                refusal.close = matches!(reason, Reason::Request(_));
                Err(refusal)
            }
            Ok(None) => {
                let detail = format!("{} did not answer in time", self.pool.upstream().address);
                Err(Refusal::new(Reason::Upstream(Fault::Slow), detail))
            }
        }
    }

    /// The client's body, bounded and counted; nothing for a request without one.
    fn followed(&self, body: Lingering, ticket: &mut Ticket) -> RequestBody {
        if body.is_end_stream() {
            return RequestBody::none();
        }
        let limits = &self.account.shared.config.limits.http;
        let bytes = limits.body_bytes.unwrap_or(u64::MAX);
        let pause = if ticket.is_grpc() {
            Pause::PerWord(limits.stream_idle)
        } else {
            Pause::PerPiece(limits.request_body)
        };
        let body = RequestBody::of(body, Arc::clone(ticket.flow()), BodyBounds { bytes, pause });
        let inbound = self.account.accepted.direction == Direction::Inbound;
        body.under(inbound.then(|| self.account.shared.policies.current()).flatten())
    }

    fn speaks_http2(&self, version: Version, ticket: &Ticket) -> bool {
        match self.pool.upstream().speaks {
            Speaks::Http1 => false,
            Speaks::Http2 => true,
            Speaks::Auto => version == Version::HTTP_2 || ticket.is_grpc(),
        }
    }

    /// Makes an upstream's answer ours.
    fn answered(
        &self,
        answer: Answer,
        tidied: Result<Hop, HopFault>,
        mut ticket: Box<Ticket>,
        on: Option<hyper::upgrade::OnUpgrade>,
    ) -> Response<ResponseBody> {
        let Answer {
            mut response,
            peer,
            address,
            upgraded,
        } = answer;
        ticket.upstream(address, peer);
        ticket.grpc_status(response.headers());
        ticket.status(response.status());
        let Ok(hop) = tidied else {
            return Self::bad_answer("the answer's Connection header is malformed", ticket);
        };
        match (upgraded, on) {
            (None, _) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
                Self::finish(response, ticket)
            }
            (Some(upgraded), Some(on)) => {
                let Some(protocol) = hop.upgrade else {
                    return Self::bad_answer(
                        "the answer switches to a protocol that it does not name",
                        ticket,
                    );
                };
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("upgrade"));
                response.headers_mut().insert(UPGRADE, protocol);
                self.account.gate.settle_upgrade(Upgrade::Accepted);
                tunnel::spawn(&self.account, Tunnel { on, upgraded, ticket });
                response
            }
            _ => Self::bad_answer("the answer switches protocols though nobody asked", ticket),
        }
    }

    /// An answer that is not passed on.
    fn bad_answer(detail: &str, mut ticket: Box<Ticket>) -> Response<ResponseBody> {
        let mut refusal = Refusal::new(Reason::Upstream(Fault::BadAnswer), detail.to_owned());
        ticket.refused(&mut refusal);
        Self::refuse(refusal, None, ticket)
    }

    fn refuse(
        refusal: Refusal,
        decision: Option<&HeaderValue>,
        mut ticket: Box<Ticket>,
    ) -> Response<ResponseBody> {
        let response = refusal.response(decision, ticket.is_grpc());
        ticket.status(response.status());
        ticket.grpc_status(response.headers());
        Self::finish(response, ticket)
    }

    /// Ties the ticket to the answer's body, so that it is closed when that is.
    fn finish(response: Response<ResponseBody>, mut ticket: Box<Ticket>) -> Response<ResponseBody> {
        if response.body().is_end_stream() {
            ticket.complete();
        }
        response.map(|body| body.with(ticket))
    }
}

/// Waits for the head of an answer as long as the upstream has `patience`, and not beyond `end`.
async fn in_time<T>(
    mut sending: Pin<&mut impl Future<Output = T>>,
    flow: &Flow,
    patience: Duration,
    end: Option<Instant>,
) -> Option<T> {
    loop {
        let due = flow.answer_due(patience);
        let due = end.map_or(due, |end| end.min(due));
        if due <= Instant::now() {
            return None;
        }
        if let Ok(done) = tokio::time::timeout_at(due, sending.as_mut()).await {
            return Some(done);
        }
    }
}

/// Makes the head of a request say everything once, and only what its sender may say; `xfcc` is what the application
/// is told of the client.
///
/// # Errors
/// [`Refusal`].
pub fn settle_head(
    normalization: Normalization,
    accepted: &Accepted,
    xfcc: Option<&HeaderValue>,
    head: &mut request::Parts,
) -> Result<Hop, Refusal> {
    let inbound = accepted.direction == Direction::Inbound;
    head.extensions.clear();
    let hop = headers::end_hop(&mut head.headers, head.version)?;
    if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        // HTTP/1 does not get here with it; HTTP/2 may say the same length twice, which no upstream need hear.
        let detail = "several Content-Length".to_owned();
        return Err(Refusal::new(Reason::Request(RequestFault::Bad), detail));
    }
    target::settle(head, normalization)?;
    if head.version == Version::HTTP_2 {
        // RFC 9113 §8.2.3: what is judged is what an application gets over HTTP/1.
        headers::join_cookies(&mut head.headers);
    }
    // Whatever the client says of identities is removed; what it proved is told instead.
    headers::aliases::strip(&mut head.headers);
    match xfcc {
        Some(xfcc) if inbound => drop(head.headers.insert(XFCC, xfcc.clone())),
        _ => drop(head.headers.remove(XFCC)),
    }
    let believed = !inbound || accepted.peer().is_some();
    if inbound || !head.headers.contains_key(headers::FORWARDED_PROTO) {
        headers::settle_forwarded_proto(&mut head.headers, believed && inbound);
    }
    headers::settle_request_id(&mut head.headers);
    Ok(hop)
}

/// Says for HTTP/1 what the next hop needs to know.
fn for_http1(head: &mut request::Parts, body: &RequestBody, upgrade: Option<HeaderValue>) {
    let headers = &mut head.headers;
    head.version = Version::HTTP_11;
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        // Said, since without it a GET would lose its body on the way.
        headers.remove(CONTENT_LENGTH);
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Ends the upstream's hop: its own headers about the connection and the framing are not the client's.
fn tidy(response: &mut Response<ResponseBody>, later: Vec<Changes>) -> Result<Hop, HopFault> {
    let version = response.version();
    let headers = response.headers_mut();
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    let hop = headers::end_hop(headers, version)?;
    if chunked {
        headers.remove(CONTENT_LENGTH);
    }
    for changes in later {
        changes.apply(headers);
    }
    *response.version_mut() = Version::HTTP_11;
    response.extensions_mut().clear();
    Ok(hop)
}
