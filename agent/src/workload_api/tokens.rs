//! The calls about JWT-SVIDs that are answered once: fetching (SPIFFE_Workload_API §6.2.1) and
//! validating (§6.2.3).

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::try_join_all;
use signet_certs::SpiffeId;
use signet_certs::jwt::{JwtSvid, check_audience};
use signet_proto::wire::{
    Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest, ValidateJwtsvidResponse,
};
use signet_proto::workload as wire;
use tokio::time::{Instant, timeout_at};

use super::limits::Payer;
use super::{WorkloadApi, refusal};
use crate::attest::{Peer, Subject, Workload};
use crate::jwt_cache::Ask;
use crate::sds::serve::shutting_down;
use crate::sds::{Closing, PATIENCE};
use crate::svids::{Held, Seen, Whose};

impl WorkloadApi {
    /// One token for each identity of the caller, or for the one asked for.
    pub(super) async fn fetch_tokens(
        &self,
        peer: Peer,
        request: JwtsvidRequest,
    ) -> Result<JwtsvidResponse, Closing> {
        check_audience(&request.audience).map_err(|fault| refusal::bad_audience(&fault))?;
        let wanted = match request.spiffe_id.as_str() {
            "" => None,
            text => Some(
                text.parse::<SpiffeId>()
                    .map_err(|fault| refusal::bad_id(&fault))?,
            ),
        };
        let workload = self.admit(&peer).await?;
        let seen = self.seen(&workload, |seen| !seen.svids.is_empty()).await?;
        let mut hints = BTreeSet::new();
        let asks = seen
            .svids
            .iter()
            .filter(|held| wanted.as_ref().is_none_or(|id| held.id == *id))
            .map(|held| {
                let hint = held.hint.as_deref().filter(|hint| hints.insert(*hint));
                self.token(&workload, held, hint, &request.audience)
            })
            .collect::<Vec<_>>();
        if let (true, Some(id)) = (asks.is_empty(), &wanted) {
            return Err(refusal::not_yours(id));
        }
        let svids = try_join_all(asks).await?;
        // The CA may have taken its time.
        self.parts.attestor.recheck(&peer, &workload)?;
        Ok(JwtsvidResponse { svids })
    }

    async fn token(
        &self,
        workload: &Workload,
        held: &Held,
        hint: Option<&str>,
        audience: &[String],
    ) -> Result<Jwtsvid, Closing> {
        let whose = match workload.subject {
            Subject::Own => Whose::Own,
            _ => Whose::Of(held.id.clone()),
        };
        let ask = Ask {
            whose,
            id: held.id.clone(),
            audience: audience.to_vec(),
        };
        match self.tokens.token(ask).await {
            Ok(token) => Ok(wire::jwt_svid(&held.id, token.expose_token(), hint)),
            Err(failure) => Err(refusal::no_token(&held.id, &failure)),
        }
    }

    /// Whether a token holds, by the bundles that the caller would check it under.
    pub(super) async fn validate(
        &self,
        peer: Peer,
        request: &ValidateJwtsvidRequest,
    ) -> Result<ValidateJwtsvidResponse, Closing> {
        for (field, value) in [("audience", &request.audience), ("svid", &request.svid)] {
            if value.is_empty() {
                return Err(refusal::empty(field));
            }
        }
        let workload = self.admit(&peer).await?;
        let seen = self.seen(&workload, |_| true).await?;
        let now = self.clock.now();
        let valid = JwtSvid::validate(&request.svid, &request.audience, seen.trust.bundles(), now)
            .map_err(|fault| refusal::invalid_token(&fault))?;
        Ok(ValidateJwtsvidResponse {
            spiffe_id: valid.id.to_string(),
            claims: Some(wire::claims(&valid.claims)),
        })
    }

    /// Attests the caller and takes the request from what it has left.
    async fn admit(&self, peer: &Peer) -> Result<Arc<Workload>, Closing> {
        let workload = self.parts.attest(peer).await?;
        let payer = match &workload.subject {
            Subject::Pod { uid, .. } => Payer::Pod(uid.clone()),
            Subject::Own | Subject::Process { .. } => Payer::Process(peer.pid().unwrap_or_default()),
        };
        let taken = self.lock_limits().take(payer, Instant::now());
        taken.map_err(refusal::too_often)?;
        Ok(workload)
    }

    /// What the caller sees, once there is a bundle and `enough` of it.
    async fn seen(&self, workload: &Workload, enough: impl Fn(&Seen) -> bool) -> Result<Arc<Seen>, Closing> {
        let mut view = self.parts.shelves.view(workload);
        let end = Instant::now() + PATIENCE;
        loop {
            let seen = view.current();
            if seen.trust.own().is_some() && enough(&seen) {
                return Ok(seen);
            }
            tokio::select! {
                () = self.parts.shutdown.cancelled() => return Err(shutting_down()),
                changed = timeout_at(end, view.changed()) => if changed.is_err() {
                    return Err(refusal::not_ready(&seen.cause()));
                }
            }
        }
    }
}
