//! The caller whom a connection's calls of one moment have in common. A node agent sends a burst of calls with one
//! token: it is looked up once, and for the others compared.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use http::HeaderValue;
use signet_certs::UnixTime;
use signet_policy::Caller;

use super::token::Presented;

/// The last caller known on one connection. Kept only while calls that arrived together are begun, so that no token
/// outlives its call here.
#[derive(Default)]
pub struct Recent(Mutex<Option<Known>>);

struct Known {
    header: HeaderValue,
    caller: Caller,
    until: UnixTime,
}

impl Recent {
    /// The caller, if the last call carried the same header and its answer still holds at `now`.
    pub(super) fn get(&self, presented: &Presented<'_>, now: UnixTime) -> Option<Caller> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.as_ref()?;
        (known.header == *presented.header() && now < known.until).then(|| known.caller.clone())
    }

    /// Keeps what the token cache answered, for as long as that holds.
    pub(super) fn keep(&self, presented: &Presented<'_>, caller: &Caller, until: UnixTime) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Known {
            header: presented.header().clone(),
            caller: caller.clone(),
            until,
        });
    }

    /// The moment is over.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recent")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;
    use http::header::AUTHORIZATION;
    use signet_certs::ServiceAccountId;

    use super::*;

    fn at(second: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(second))
    }

    fn headers(token: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(token))])
    }

    #[test]
    fn only_the_same_token_is_known_again_and_only_until_its_answer_ends() {
        let recent = Recent::default();
        let (mine, other) = (headers("Bearer a.b.c"), headers("Bearer a.b.d"));
        let [mine, other] = [&mine, &other].map(|headers| Presented::from_headers(headers).unwrap());
        let caller = Caller::assert_authenticated(ServiceAccountId::new("a", "b").unwrap(), None);
        assert_eq!(recent.get(&mine, at(1)), None);
        recent.keep(&mine, &caller, at(60));
        assert_eq!(recent.get(&mine, at(59)), Some(caller.clone()));
        assert_eq!(recent.get(&other, at(1)), None);
        assert_eq!(recent.get(&mine, at(60)), None);
        assert_eq!(format!("{recent:?}"), "Recent");
        recent.forget();
        assert_eq!(recent.get(&mine, at(1)), None);
    }
}
