//! One request, from its head to its answer, in the one order that is safe: framing, target, identity headers,
//! external authorizers, tokens, policies, and only then the upstream.

use std::sync::Arc;

use futures::future::Either;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, StatusCode, Version, request};
use hyper::body::{Body as _, Incoming};

use super::body::{BodyBounds, Progress, RequestBody, ResponseBody};
use super::framing::Upgrade;
use super::headers::{self, Hop, HopFault, REQUEST_ID, XFCC};
use super::pool::{Answer, Pool};
use super::refusal::Refusal;
use super::target;
use super::ticket::{Account, Ticket};
use super::tunnel::Tunnel;
use super::{judge, tunnel};
use crate::access_log::{Reason, RequestFault, Upstream as Fault};
use crate::config::Speaks;
use crate::connection::Direction;
use crate::ext_authz::answer::Changes;
use judge::Passed;
use tokio::time::Instant;

/// What the requests of one connection have in common.
pub struct Exchange {
    /// The connection's account.
    pub account: Arc<Account>,
    /// Where its requests go.
    pub pool: Arc<Pool>,
    /// What the application is told of the client.
    pub xfcc: Option<HeaderValue>,
}

/// What an upgraded connection was permitted by.
#[derive(Debug)]
pub struct Kept {
    /// The request, as policy saw it.
    pub head: request::Parts,
    /// What was found of it.
    pub passed: Passed,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exchange({:?})", self.account)
    }
}

impl Exchange {
    /// Answers one request. There is an answer to every one.
    pub async fn serve(&self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        let on = request
            .headers()
            .contains_key(UPGRADE)
            .then(|| hyper::upgrade::on(&mut request));
        let (head, body) = request.into_parts();
        let ticket = Ticket::open(&self.account, &head);
        let response = self.answer(head, body, ticket, on).await;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.account.gate.settle_upgrade(Upgrade::Refused);
        }
        response
    }

    async fn answer(
        &self,
        mut head: request::Parts,
        body: Incoming,
        mut ticket: Box<Ticket>,
        on: Option<hyper::upgrade::OnUpgrade>,
    ) -> Response<ResponseBody> {
        let settled = self.settle(&mut head, &body);
        ticket.told(&head);
        let judged = match settled {
            Ok(hop) => {
                let passed = judge::judge(&self.account, &mut head, &mut ticket).await;
                passed.map(|passed| (hop, passed))
            }
            Err(refusal) => Err(refusal),
        };
        let answered = match judged {
            Ok((hop, passed)) => {
                // What outlives its answer is judged again whenever policies change.
                let kept = hop.upgrade.is_some().then(|| head.clone());
                let answer = self.forward(head, body, hop, &mut ticket).await;
                answer
                    .map(|answer| (answer, passed, kept))
                    .map_err(|refusal| (refusal, None))
            }
            Err(refusal) => Err((refusal, head.headers.get(REQUEST_ID).cloned())),
        };
        match answered {
            Ok((mut answer, mut passed, kept)) => {
                let later = std::mem::take(&mut passed.later);
                let tidied = tidy(&mut answer.response, later);
                let kept = kept.map(|head| Kept { head, passed });
                self.answered(answer, tidied, ticket, on.zip(kept))
            }
            Err((mut refusal, decision)) => {
                ticket.refused(&mut refusal);
                Self::finish(refusal.response(decision.as_ref()), ticket)
            }
        }
    }

    /// Makes the head say everything once, and only what its sender may say.
    fn settle(&self, head: &mut request::Parts, body: &Incoming) -> Result<Hop, Refusal> {
        let shared = &self.account.shared;
        let inbound = self.account.accepted.direction == Direction::Inbound;
        head.extensions.clear();
        let hop = headers::end_hop(&mut head.headers, head.version)?;
        if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
            // HTTP/1 does not get here with it; HTTP/2 may say the same length twice, which no upstream need hear.
            let detail = "several Content-Length".to_owned();
            return Err(Refusal::new(Reason::Request(RequestFault::Bad), detail));
        }
        target::settle(head, shared.config.normalization)?;
        if let Some(most) = shared.config.limits.http.body_bytes
            && body.size_hint().lower() > most
        {
            return Err(Refusal::new(Reason::Request(RequestFault::BodyTooLarge), None));
        }
        // Whatever the client says of identities is removed; what it proved is told instead.
        match &self.xfcc {
            Some(xfcc) if inbound => drop(head.headers.insert(XFCC, xfcc.clone())),
            _ => drop(head.headers.remove(XFCC)),
        }
        let believed = !inbound || self.account.accepted.peer().is_some();
        if inbound || !head.headers.contains_key(headers::FORWARDED_PROTO) {
            headers::settle_forwarded_proto(&mut head.headers, believed && inbound);
        }
        headers::settle_request_id(&mut head.headers);
        Ok(hop)
    }

    async fn forward(
        &self,
        mut head: request::Parts,
        body: Incoming,
        hop: Hop,
        ticket: &mut Ticket,
    ) -> Result<Answer, Refusal> {
        let shared = &self.account.shared;
        let limits = &shared.config.limits.http;
        let body = self.followed(body, ticket);
        let upgrade = hop.upgrade.filter(headers::passes_on);
        let upgrade = upgrade.filter(|_| head.version == Version::HTTP_11);
        let sending = if upgrade.is_none() && self.speaks_http2(head.version, ticket) {
            let mutual = self.pool.upstream().expected.is_some();
            head.uri = target::absolute(&head, if mutual { Scheme::HTTPS } else { Scheme::HTTP })?;
            head.headers.remove(HOST);
            head.version = Version::HTTP_2;
            Either::Left(self.pool.send_http2(shared, Request::from_parts(head, body)))
        } else {
            for_http1(&mut head, &body, upgrade);
            Either::Right(self.pool.send_http1(shared, Request::from_parts(head, body)))
        };
        let until = Instant::now() + limits.response_head;
        let until = ticket.deadline().map_or(until, |end| end.min(until));
        match tokio::time::timeout_at(until, sending).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => {
                // The client's own fault comes first: the upstream only saw a body break off.
                let reason = ticket.body_fault().unwrap_or_else(|| failure.reason());
                let mut refusal = Refusal::new(reason, failure.to_string());
                refusal.close = matches!(reason, Reason::Request(_));
                Err(refusal)
            }
            Err(_) => {
                let detail = format!("{} did not answer in time", self.pool.upstream().address);
                Err(Refusal::new(Reason::Upstream(Fault::Slow), detail))
            }
        }
    }

    /// The client's body, bounded and counted; nothing for a request without one.
    fn followed(&self, body: Incoming, ticket: &mut Ticket) -> RequestBody {
        if body.is_end_stream() {
            return RequestBody::none();
        }
        let limits = &self.account.shared.config.limits.http;
        let progress = Arc::<Progress>::default();
        ticket.follow(Arc::clone(&progress));
        let bytes = limits.body_bytes.unwrap_or(u64::MAX);
        let pause = limits.request_body;
        RequestBody::of(body, progress, BodyBounds { bytes, pause })
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
        on: Option<(hyper::upgrade::OnUpgrade, Kept)>,
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
            (Some(upgraded), Some((on, kept))) => {
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
                tunnel::spawn(
                    &self.account,
                    Tunnel {
                        on,
                        upgraded,
                        kept,
                        ticket,
                    },
                );
                response
            }
            _ => Self::bad_answer("the answer switches protocols though nobody asked", ticket),
        }
    }

    /// An answer that is not passed on.
    fn bad_answer(detail: &str, mut ticket: Box<Ticket>) -> Response<ResponseBody> {
        let mut refusal = Refusal::new(Reason::Upstream(Fault::BadAnswer), detail.to_owned());
        ticket.refused(&mut refusal);
        Self::finish(refusal.response(None), ticket)
    }

    /// Ties the ticket to the answer's body, so that it is closed when that is.
    fn finish(response: Response<ResponseBody>, mut ticket: Box<Ticket>) -> Response<ResponseBody> {
        if response.body().is_end_stream() {
            ticket.complete();
        }
        let deadline = ticket.deadline();
        response.map(|body| body.with(ticket, deadline))
    }
}

/// Says for HTTP/1 what the next hop needs to know.
fn for_http1(head: &mut request::Parts, body: &RequestBody, upgrade: Option<HeaderValue>) {
    let headers = &mut head.headers;
    if head.version == Version::HTTP_2 {
        headers::join_cookies(headers);
    }
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
