//! One token under one rule, and what all of them together mean.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;

use signet_certs::UnixTime;
use signet_certs::jws::{KeySet, Token, TokenFault};
use signet_policy::RequestIdentity;
use signet_policy::model::JwtRule;
use signet_policy::tokens::{Found, TokenDenial, TokenRules};

use super::cache::{Cache, Key, Verified};
use super::keys::Lack;
use super::places::Candidate;
use super::refusal::{Fault, TokenRefused};
use super::{CLOCK_SKEW, KeySets, Missed, TokenMetrics};

/// Tokens that differ, each taken apart at most once.
pub(super) struct Distinct<'c> {
    text: &'c str,
    hash: [u8; 32],
    read: OnceCell<Result<Token<'c>, TokenFault>>,
}

/// What one rule says of one token.
pub(super) enum Verdict {
    /// It is good.
    Good(usize, [u8; 32], Arc<Verified>),
    /// It is not. A key that is missed goes with it.
    Bad(Fault, Option<(usize, Arc<KeySet>)>),
    /// There are no keys to tell by, or it is not for this rule anyhow.
    Unproven(Fault),
}

impl Verdict {
    pub(super) fn found(&self) -> Found {
        match self {
            Self::Good(rule, hash, _) => Found::Valid(*rule, *hash),
            Self::Bad(..) | Self::Unproven(_) => Found::Invalid,
        }
    }
}

/// The tokens of the candidates, each once, in their order.
pub(super) fn distinct<'c>(candidates: &'c [Candidate<'_>]) -> Vec<Distinct<'c>> {
    let mut tokens: Vec<Distinct<'c>> = Vec::new();
    for candidate in candidates {
        let text: &'c str = match &candidate.token {
            Cow::Borrowed(text) => text,
            Cow::Owned(text) => text.as_str(),
        };
        // One more than the bound tells that there are too many.
        if tokens.len() <= super::MAX_TOKENS && tokens.iter().all(|known| known.text != text) {
            tokens.push(Distinct {
                text,
                hash: sha256(text.as_bytes()),
                read: OnceCell::new(),
            });
        }
    }
    tokens
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap_or_default()
}

/// One pass over the tokens of a request.
pub(super) struct Attempt<'a> {
    pub(super) rules: &'a TokenRules,
    pub(super) keys: &'a KeySets,
    pub(super) cache: &'a Cache,
    pub(super) metrics: &'a TokenMetrics,
    pub(super) now: UnixTime,
}

impl Attempt<'_> {
    /// A verdict for every candidate.
    pub(super) fn all(&self, candidates: &[Candidate<'_>], tokens: &[Distinct<'_>]) -> Vec<Verdict> {
        candidates
            .iter()
            .map(|candidate| {
                let token = tokens.iter().find(|token| token.text == candidate.token);
                match (token, self.rules.rules().get(candidate.rule)) {
                    (Some(token), Some(rule)) => self.one(candidate.rule, rule, token),
                    _ => Verdict::Bad(Fault::NoRule, None),
                }
            })
            .collect()
    }

    fn one(&self, number: usize, rule: &JwtRule, token: &Distinct<'_>) -> Verdict {
        let keys = match self.keys.of(number) {
            Ok(keys) => keys,
            Err(lack) => return Self::without_keys(rule, token, lack),
        };
        let key: Key = (token.hash, number);
        if let Some(verified) = self.cache.get(&key, rule, &keys)
            && verified.holds(self.now)
        {
            TokenMetrics::count(&self.metrics.cache, "hit");
            return Verdict::Good(number, token.hash, verified);
        }
        match self.verify(rule, token, &keys) {
            Ok(verified) => {
                let verified = Arc::new(verified);
                let evicted = self.cache.put(key, token.text.len(), rule, &keys, &verified);
                TokenMetrics::count(&self.metrics.cache, if evicted { "evicted" } else { "miss" });
                Verdict::Good(number, token.hash, verified)
            }
            Err(fault) => {
                let missed = (fault == TokenFault::UnknownKid).then(|| (number, Arc::clone(&keys)));
                Verdict::Bad(Fault::Token(fault), missed)
            }
        }
    }

    /// Without keys a token that the rule is for is refused for that; another one for being of another issuer or for
    /// another audience.
    fn without_keys(rule: &JwtRule, token: &Distinct<'_>, lack: Lack) -> Verdict {
        let fits = read(token).and_then(|token| {
            issuer_fits(rule, token)?;
            token.check_audience(&rule.audiences)
        });
        Verdict::Unproven(match fits {
            Ok(()) => Fault::Keys(lack),
            Err(fault) => Fault::Token(fault),
        })
    }

    /// Cheap checks first, then the signature; times last, since only a token that was signed is believed to be
    /// over.
    fn verify(&self, rule: &JwtRule, token: &Distinct<'_>, keys: &KeySet) -> Result<Verified, TokenFault> {
        let token = read(token)?;
        issuer_fits(rule, token)?;
        token.check_audience(&rule.audiences)?;
        token.verify(keys)?;
        token.check_times(self.now, CLOCK_SKEW)?;
        let identity = RequestIdentity::assert_verified(token.claims().clone(), &rule.space_delimited);
        Ok(Verified {
            identity: Arc::new(identity),
            payload: token.payload().into(),
            not_before: token.not_before(),
            expires_at: token.expires_at(),
        })
    }
}

fn read<'t, 'c>(token: &'t Distinct<'c>) -> Result<&'t Token<'c>, TokenFault> {
    let read = token.read.get_or_init(|| Token::read(token.text));
    read.as_ref().map_err(Clone::clone)
}

fn issuer_fits(rule: &JwtRule, token: &Token<'_>) -> Result<(), TokenFault> {
    match &rule.issuer {
        Some(issuer) if token.issuer() != Some(issuer) => Err(TokenFault::Issuer),
        _ => Ok(()),
    }
}

/// The first good token by that rule.
pub(super) fn first_of(verdicts: &[Verdict], rule: usize) -> Option<&Arc<Verified>> {
    verdicts.iter().find_map(|verdict| match verdict {
        Verdict::Good(by, _, verified) if *by == rule => Some(verified),
        _ => None,
    })
}

/// Whether it is the token of `identity` that is refused, and for nothing but want of keys that may come: a rule for it
/// waits for its keys, and none that has keys refuses it.
pub(super) fn waits(
    identity: &RequestIdentity,
    candidates: &[Candidate<'_>],
    tokens: &[Distinct<'_>],
    verdicts: &[Verdict],
) -> bool {
    let is_theirs = |token: &&Distinct<'_>| read(token).is_ok_and(|read| read.claims() == identity.claims());
    tokens.iter().filter(is_theirs).any(|token| {
        let of_it = || {
            let all = candidates.iter().zip(verdicts);
            all.filter_map(|(candidate, verdict)| (candidate.token == token.text).then_some(verdict))
        };
        let waits = |verdict| matches!(verdict, &Verdict::Unproven(Fault::Keys(Lack::NotYet)));
        let refuses = |verdict: &Verdict| match *verdict {
            // The rule is for another issuer, which says nothing of this one.
            Verdict::Bad(Fault::NoRule | Fault::Token(TokenFault::Issuer), _) => false,
            Verdict::Bad(..) => true,
            _ => false,
        };
        of_it().any(waits) && !of_it().any(refuses)
    })
}

/// The refusal that says most: that of the rule whose issuer the token names, where there is one.
pub(super) fn refused(denial: TokenDenial<'_>, verdicts: &[Verdict]) -> (TokenRefused, Option<Missed>) {
    let bad = || {
        verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Bad(fault, missed) => Some((fault, missed.as_ref())),
            Verdict::Unproven(fault) => Some((fault, None)),
            Verdict::Good(..) => None,
        })
    };
    match denial {
        TokenDenial::Faulty(name) => (TokenRefused::Faulty(name.clone()), None),
        TokenDenial::Ambiguous => (TokenRefused::Ambiguous, None),
        TokenDenial::Invalid => {
            let missed = bad().find_map(|(_, missed)| missed);
            let fault = bad().map(|(fault, _)| fault).max_by_key(|fault| fault.weight());
            let missed = missed.map(|(rule, set)| Missed {
                rule: *rule,
                set: Arc::clone(set),
            });
            (
                TokenRefused::Invalid(fault.cloned().unwrap_or(Fault::NoRule)),
                missed,
            )
        }
    }
}
