//! The query string of a request: percent-decoding and the options Kubernetes reads from it.

/// The options of a request this server honours; unknown ones are ignored, as a real server does.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) watch: bool,
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    /// As sent; empty when absent.
    pub(crate) resource_version: String,
    pub(crate) bookmarks: bool,
    pub(crate) initial_events: bool,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) dry_run: bool,
    pub(crate) field_manager: String,
    /// Most objects of a listing; 0 for all of them.
    pub(crate) limit: usize,
    /// Where the page before this one ended, as its answer said; empty for the first.
    pub(crate) next: String,
}

impl Query {
    /// Reads a raw query string. Nothing in it can be wrong at this level: what is not understood is ignored.
    pub(crate) fn parse(raw: &str) -> Self {
        let mut query = Query::default();
        for pair in raw.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode(&value.replace('+', " "));
            let is_set = matches!(value.as_str(), "1" | "true" | "True" | "TRUE" | "t" | "T");
            match name {
                "watch" => query.watch = is_set,
                "labelSelector" => query.label_selector = value,
                "fieldSelector" => query.field_selector = value,
                "resourceVersion" => query.resource_version = value,
                "allowWatchBookmarks" => query.bookmarks = is_set,
                "sendInitialEvents" => query.initial_events = is_set,
                "timeoutSeconds" => query.timeout_seconds = value.parse().ok(),
                "dryRun" => query.dry_run = value == "All",
                "fieldManager" => query.field_manager = value,
                "limit" => query.limit = value.parse().unwrap_or(0),
                "continue" => query.next = value,
                _ => {}
            }
        }
        query
    }
}

/// Decodes `%41` escapes; a broken escape stays as it is, bytes that are no UTF-8 are replaced.
pub(crate) fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match (first, tail) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|digits| (digits, after)),
            _ => None,
        };
        if let Some(((high, low), after)) = escaped {
            bytes.push((high << 4) | low);
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_decoded() {
        let query = Query::parse("watch=true&labelSelector=a+in+%28b%2Cc%29&timeoutSeconds=7&x&dryRun=All");
        assert!(query.watch && query.dry_run);
        assert_eq!(query.label_selector, "a in (b,c)");
        assert_eq!(query.timeout_seconds, Some(7));
    }

    #[test]
    fn broken_escapes_stay() {
        assert_eq!(percent_decode("%4x%"), "%4x%");
        assert_eq!(percent_decode("a%2Fb"), "a/b");
    }
}
