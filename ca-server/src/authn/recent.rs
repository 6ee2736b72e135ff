//! The caller whom a connection's calls of one moment have in common. A node agent sends a burst of calls with one
//! token: it is looked up once, and for the others compared.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use signet_certs::UnixTime;
use signet_policy::Caller;

use super::token::Presented;

/// The last caller known on one connection. Kept only while calls that arrived together are begun, which is a
/// [`Moment`], so that no token outlives its call here.
#[derive(Default)]
pub struct Recent(Mutex<Kept>);

#[derive(Default)]
enum Kept {
    /// No moment: nothing is kept.
    #[default]
    Nothing,
    /// Since a moment began.
    Last(Option<Known>),
}

struct Known {
    header: HeaderValue,
    caller: Caller,
    until: UnixTime,
}

impl Recent {
    /// A moment begins: what is known in it is known until its end.
    pub fn moment(&self) -> Moment<'_> {
        *self.lock() = Kept::Last(None);
        Moment(self)
    }

    /// The caller, if the last call carried the same header and its answer still holds at `now`.
    pub(super) fn get(&self, presented: &Presented<'_>, now: UnixTime) -> Option<Caller> {
        let kept = self.lock();
        let Kept::Last(Some(known)) = &*kept else {
            return None;
        };
        (known.header == *presented.header() && now < known.until).then(|| known.caller.clone())
    }

    /// Keeps what the token cache answered, for as long as that holds and the moment lasts.
    pub(super) fn keep(&self, presented: &Presented<'_>, caller: &Caller, until: UnixTime) {
        if let Kept::Last(last) = &mut *self.lock() {
            *last = Some(Known {
                header: presented.header().clone(),
                caller: caller.clone(),
                until,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, a connection knows the last of its callers again. Its end forgets.
#[derive(Debug)]
#[must_use]
pub struct Moment<'a>(&'a Recent);

impl Drop for Moment<'_> {
    fn drop(&mut self) {
        *self.0.lock() = Kept::Nothing;
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

    fn caller() -> Caller {
        Caller::assert_authenticated(ServiceAccountId::new("a", "b").unwrap(), None)
    }

    #[test]
    fn only_the_same_token_is_known_again_and_only_until_its_answer_ends() {
        let recent = Recent::default();
        let (mine, other) = (headers("Bearer a.b.c"), headers("Bearer a.b.d"));
        let [mine, other] = [&mine, &other].map(|headers| Presented::from_headers(headers).unwrap());
        let _moment = recent.moment();
        assert_eq!(recent.get(&mine, at(1)), None);
        recent.keep(&mine, &caller(), at(60));
        assert_eq!(recent.get(&mine, at(59)), Some(caller()));
        assert_eq!(recent.get(&other, at(1)), None);
        assert_eq!(recent.get(&mine, at(60)), None);
        assert_eq!(format!("{recent:?}"), "Recent");
    }

    #[test]
    fn the_end_of_a_moment_forgets_and_without_one_no_token_is_kept() {
        let recent = Recent::default();
        let mine = headers("Bearer a.b.c");
        let mine = Presented::from_headers(&mine).unwrap();
        let holds_a_token = || matches!(*recent.lock(), Kept::Last(Some(_)));
        let moment = recent.moment();
        recent.keep(&mine, &caller(), at(60));
        assert!(holds_a_token());
        drop(moment);
        assert!(!holds_a_token());
        assert_eq!(recent.get(&mine, at(1)), None);
        // A call that goes on after all has been begun does not leave its token behind.
        recent.keep(&mine, &caller(), at(60));
        assert!(!holds_a_token());
        assert_eq!(recent.get(&mine, at(1)), None);
        // Nor does the next moment know what the one before knew.
        let _next = recent.moment();
        assert_eq!(recent.get(&mine, at(1)), None);
    }
}
