//! Which tokens a workload takes, and what several tokens of one request mean together.

use crate::decision::PolicyName;
use crate::model::JwtRule;
use crate::model::remains::Remains;
use crate::model::request::Locations;

/// The rules for tokens of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRules {
    rules: Vec<JwtRule>,
    refusal: Option<Box<Refusal>>,
}

/// What objects that cannot be read do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    /// One of them.
    by: PolicyName,
    /// Where tokens are refused.
    places: Locations,
    /// Headers that they reserve.
    outputs: Vec<String>,
}

/// What became of one token, or of the place where one was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There was none.
    Missing,
    /// It is good, by the rule of this number, and has this fingerprint.
    Valid(usize, [u8; 32]),
    /// It is not, or no rule is for its issuer.
    Invalid,
}

/// Why a request is refused (401) for its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenDenial<'t> {
    /// A token is not good, and no other one is.
    #[error("the token is not valid for any issuer of this workload")]
    Invalid,
    /// Two different tokens are good: whose the request is cannot be told.
    #[error("the request carries two different valid tokens")]
    Ambiguous,
    /// A RequestAuthentication cannot be read, and has no good version.
    #[error("{0} cannot be read and refuses every token")]
    Faulty(&'t PolicyName),
}

impl TokenDenial<'_> {
    /// A stable word for metrics and access records.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Invalid => "token_invalid",
            Self::Ambiguous => "token_ambiguous",
            Self::Faulty(_) => "token_faulty_policy",
        }
    }
}

impl TokenRules {
    /// With objects that refuse tokens, one of them and what all of them say of requests.
    pub(crate) fn new(mut rules: Vec<JwtRule>, refused: Option<(PolicyName, Remains)>) -> Self {
        // Rules of all objects together; of one issuer, in the order of the objects.
        rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        let refusal = refused.map(|(by, remains)| {
            Box::new(Refusal {
                by,
                places: remains.locations(),
                outputs: remains.outputs.into_iter().collect(),
            })
        });
        Self { rules, refusal }
    }

    /// The rules, sorted by issuer. Two for one issuer are both kept.
    #[must_use]
    pub fn rules(&self) -> &[JwtRule] {
        &self.rules
    }

    /// Whether tokens are looked at: without rules a token is like any other header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.refusal.is_none()
    }

    /// An object that refuses every token, whatever the rules say.
    #[must_use]
    pub fn refused_by(&self) -> Option<&PolicyName> {
        self.refusal.as_ref().map(|refusal| &refusal.by)
    }

    /// Where tokens are refused, if any object does.
    #[must_use]
    pub fn refused_at(&self) -> Option<&Locations> {
        self.refusal.as_ref().map(|refusal| &refusal.places)
    }

    /// Headers that tell the application of a token: nobody but whoever verified it may set them.
    pub fn reserved(&self) -> impl Iterator<Item = &str> {
        let rules = self.rules.iter().flat_map(|rule| rule.outputs.headers());
        let refusal = self.refusal.iter().flat_map(|refusal| &refusal.outputs);
        rules.chain(refusal.map(String::as_str))
    }

    /// The rule of the token that the request counts as, or nothing if it has none: tokens are never demanded
    /// here. One good token suffices beside bad ones.
    ///
    /// # Errors
    /// [`TokenDenial`].
    pub fn admit(&self, found: &[Found]) -> Result<Option<usize>, TokenDenial<'_>> {
        if found.iter().all(|one| *one == Found::Missing) {
            return Ok(None);
        }
        if let Some(name) = self.refused_by() {
            return Err(TokenDenial::Faulty(name));
        }
        let mut valid = found.iter().filter_map(|one| match one {
            Found::Valid(rule, fingerprint) => Some((*rule, fingerprint)),
            Found::Missing | Found::Invalid => None,
        });
        let Some((rule, first)) = valid.next() else {
            return Err(TokenDenial::Invalid);
        };
        if valid.any(|(_, other)| other != first) {
            return Err(TokenDenial::Ambiguous);
        }
        Ok(Some(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Found = Found::Valid(0, [1; 32]);
    const B: Found = Found::Valid(1, [2; 32]);

    fn rules(refused_by: Option<PolicyName>) -> TokenRules {
        TokenRules::new(Vec::new(), refused_by.map(|by| (by, Remains::default())))
    }

    #[test]
    fn no_token_goes_on_without_identity_and_one_good_token_suffices() {
        for (found, expected) in [
            (vec![], Ok(None)),
            (vec![Found::Missing, Found::Missing], Ok(None)),
            (vec![Found::Missing, A], Ok(Some(0))),
            (vec![Found::Invalid, B], Ok(Some(1))),
            (vec![A, A], Ok(Some(0))),
            (vec![Found::Invalid], Err(TokenDenial::Invalid)),
            (vec![Found::Missing, Found::Invalid], Err(TokenDenial::Invalid)),
            (vec![A, B], Err(TokenDenial::Ambiguous)),
        ] {
            assert_eq!(rules(None).admit(&found), expected, "{found:?}");
        }
    }

    #[test]
    fn a_faulty_object_refuses_tokens_and_nothing_else() {
        let name = PolicyName::Document {
            origin: "a.yaml".into(),
            line: 1,
        };
        let rules = rules(Some(name.clone()));
        assert_eq!(rules.admit(&[Found::Missing]), Ok(None));
        assert_eq!(rules.admit(&[A]), Err(TokenDenial::Faulty(&name)));
        assert_eq!(rules.admit(&[Found::Invalid]), Err(TokenDenial::Faulty(&name)));
    }
}
