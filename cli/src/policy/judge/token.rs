//! The token of a question: verified as far as its keys are at hand.

use std::time::Duration;

use serde_json::{Map, Value};
use signet_certs::jws::{KeySet, Token as Jws, TokenFault};
use signet_policy::RequestIdentity;
use signet_policy::model::JwtRule;
use signet_policy::model::request::KeySource;
use signet_policy::tokens::{TokenDenial, TokenRules};

use super::super::question::{Http, Token};
use super::carried::is_preflight;
use super::{Judge, Refusal};

/// How far the clocks of an issuer and of a proxy may be apart, as Envoy has it.
const SKEW: Duration = Duration::from_secs(60);

impl Judge<'_> {
    /// Who the request says it is, and words about its token.
    pub(super) fn token(
        &self,
        rules: &TokenRules,
        http: &Http,
        token: &Token,
    ) -> Result<(Option<RequestIdentity>, Option<String>), Box<Refusal>> {
        let sayings = match token {
            Token::None => return Ok((None, None)),
            _ if rules.is_empty() => {
                let words =
                    "no RequestAuthentication reaches the workload, so the token is a header like any other";
                return Ok((None, Some(words.to_owned())));
            }
            _ if is_preflight(http) => {
                let words = "the request is a browser's preflight, whose token nobody looks at";
                return Ok((None, Some(words.to_owned())));
            }
            Token::Jwt(text) => self.read(rules, text),
            Token::Claims(claims) => supposed(rules, claims),
            Token::Of(principal) => recorded(rules, principal),
        };
        if let Some(name) = rules.refused_by() {
            return Err(Box::new(Refusal::of_token(TokenDenial::Faulty(name), None)));
        }
        match sayings {
            Ok((claims, rule, words)) => {
                let identity = RequestIdentity::assert_verified(claims, &rule.space_delimited);
                Ok((Some(identity), Some(words)))
            }
            Err(why) => Err(Box::new(Refusal::of_token(TokenDenial::Invalid, Some(why)))),
        }
    }

    /// Verifies a token as far as its keys are at hand.
    fn read<'r>(&self, rules: &'r TokenRules, text: &str) -> Result<Good<'r>, String> {
        let token = Jws::read(text).map_err(|e| e.to_string())?;
        let mut why = None;
        let issuer = token.issuer().map(str::to_owned);
        for rule in of_issuer(rules, issuer.as_deref()) {
            match self.check(&token, rule) {
                Ok(words) => return Ok((token.claims().clone(), rule, words)),
                Err(fault) => why = Some(fault),
            }
        }
        Err(why.unwrap_or_else(|| no_issuer(issuer.as_deref())))
    }

    fn check(&self, token: &Jws<'_>, rule: &JwtRule) -> Result<String, String> {
        let text = |fault: TokenFault| fault.to_string();
        token
            .check_times(self.now, SKEW)
            .map_err(|fault| text(fault.into()))?;
        token.check_audience(&rule.audiences).map_err(text)?;
        Ok(match &rule.keys {
            KeySource::Inline(keys) => {
                let keys = KeySet::parse(keys.as_bytes()).map_err(|e| e.to_string())?;
                token.verify(&keys).map_err(text)?;
                "its signature verifies by the inline keys of its issuer's rule".to_owned()
            }
            KeySource::Uri(uri) => {
                format!("taken for well signed: the keys are at {uri}, and nothing is fetched here")
            }
            KeySource::Discovery => {
                "taken for well signed: the issuer publishes its keys, and nothing is fetched here".to_owned()
            }
        })
    }
}

type Good<'r> = (Map<String, Value>, &'r JwtRule, String);

/// Claims whose signature nobody can look at: times count for nothing, issuer and audience do.
fn supposed<'r>(rules: &'r TokenRules, claims: &Map<String, Value>) -> Result<Good<'r>, String> {
    let issuer = claims.get("iss").and_then(Value::as_str);
    let mut known = false;
    for rule in of_issuer(rules, issuer) {
        known = true;
        if rule.audiences.is_empty()
            || audiences(claims).any(|one| rule.audiences.iter().any(|own| own == one))
        {
            let words = "taken for well signed, since only its claims are given".to_owned();
            return Ok((claims.clone(), rule, words));
        }
    }
    Err(match known {
        true => TokenFault::Audience.to_string(),
        false => no_issuer(issuer),
    })
}

/// A token of which a proxy recorded whose it was. It was good then, so its audience was one that fitted.
fn recorded<'r>(rules: &'r TokenRules, principal: &str) -> Result<Good<'r>, String> {
    let split = |rule: &'r JwtRule| match &rule.issuer {
        Some(issuer) => Some((
            &**issuer,
            principal.strip_prefix(&**issuer)?.strip_prefix('/')?,
            rule,
        )),
        None => None,
    };
    let of_any = || {
        let any = rules.rules().iter().find(|rule| rule.issuer.is_none())?;
        let (issuer, subject) = principal.rsplit_once('/')?;
        Some((issuer, subject, any))
    };
    let mut known = rules.rules().iter().filter_map(split);
    let (issuer, subject, rule) = known.next().or_else(of_any).ok_or_else(|| {
        format!("no RequestAuthentication of the workload has the issuer of the recorded {principal:?}")
    })?;
    let claims = [("iss", issuer), ("sub", subject)];
    let claims = claims.map(|(name, value)| (name.to_owned(), Value::from(value)));
    let words = "taken for good, since a proxy took it so when it recorded the request".to_owned();
    Ok((claims.into_iter().collect(), rule, words))
}

fn audiences(claims: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let (one, many) = match claims.get("aud") {
        Some(Value::Array(many)) => (None, many.as_slice()),
        other => (other, [].as_slice()),
    };
    one.into_iter().chain(many).filter_map(Value::as_str)
}

fn of_issuer<'r>(rules: &'r TokenRules, issuer: Option<&str>) -> impl Iterator<Item = &'r JwtRule> {
    let fits = move |rule: &&JwtRule| rule.issuer.is_none() || rule.issuer.as_deref() == issuer;
    rules.rules().iter().filter(fits).collect::<Vec<_>>().into_iter()
}

fn no_issuer(issuer: Option<&str>) -> String {
    match issuer {
        Some(issuer) => format!("no RequestAuthentication of the workload has issuer {issuer:?}"),
        None => "the token names no issuer".to_owned(),
    }
}
