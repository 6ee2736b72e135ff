//! A request's head as it was when it was judged, in a buffer that the next request uses again: to judge it once more
//! should policies change while it is under way.

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, request};

/// A buffer larger than this is not kept for the next request.
const KEPT_BYTES: usize = 4 * 1024;

/// A head whose target was settled: a path and a query, or `*`, with the authority in `Host`. It may hold a token, so
/// there is no `Debug` of it.
#[derive(Default)]
pub(super) struct Remembered(Vec<u8>);

impl Remembered {
    /// Takes over a head, without allocating where it fits into what is there.
    pub(super) fn write(&mut self, head: &request::Parts) {
        self.0.clear();
        let target = head.uri.path_and_query().map_or("*", PathAndQuery::as_str);
        self.put(head.method.as_str().as_bytes());
        self.put(target.as_bytes());
        for (name, value) in &head.headers {
            self.put(name.as_str().as_bytes());
            self.put(value.as_bytes());
        }
    }

    /// The head again; nothing if none was written.
    pub(super) fn read(&self) -> Option<request::Parts> {
        let mut left = self.0.as_slice();
        let method = Method::from_bytes(take(&mut left)?).ok()?;
        let target = Uri::try_from(take(&mut left)?).ok()?;
        let mut headers = HeaderMap::new();
        while !left.is_empty() {
            let name = HeaderName::from_bytes(take(&mut left)?).ok()?;
            let value = HeaderValue::from_bytes(take(&mut left)?).ok()?;
            headers.append(name, value);
        }
        let (mut head, ()) = Request::new(()).into_parts();
        (head.method, head.uri, head.headers) = (method, target, headers);
        Some(head)
    }

    /// Nothing is remembered any more.
    pub(super) fn forget(&mut self) {
        self.0.clear();
        if self.0.capacity() > KEPT_BYTES {
            self.0 = Vec::new();
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        // A head is bounded by far less than this can count.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
    }
}

fn take<'b>(left: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (length, rest) = left.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (bytes, rest) = rest.split_at_checked(length)?;
    *left = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, target: &str, headers: &[(&str, &[u8])]) -> request::Parts {
        let mut builder = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            builder = builder.header(*name, HeaderValue::from_bytes(value).unwrap());
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let mut remembered = Remembered::default();
        assert!(remembered.read().is_none());
        for head in [
            head(
                "GET",
                "/a?b=c&d",
                &[("host", b"h"), ("x", b"1"), ("x", b"2"), ("y", b"")],
            ),
            head("OPTIONS", "*", &[("host", b"h")]),
            head("PURGE", "/%61//x", &[("x-bytes", b"\xff\x80 a")]),
            head("POST", "/", &[]),
        ] {
            remembered.write(&head);
            let read = remembered.read().unwrap();
            assert_eq!(read.method, head.method);
            assert_eq!(read.uri, head.uri);
            assert_eq!(read.headers, head.headers);
        }
        remembered.forget();
        assert!(remembered.read().is_none());
    }

    #[test]
    fn a_buffer_is_used_again_unless_it_is_large() {
        let mut remembered = Remembered::default();
        remembered.write(&head("GET", "/", &[("x", &[b'a'; 500])]));
        let (room, place) = (remembered.0.capacity(), remembered.0.as_ptr());
        remembered.forget();
        remembered.write(&head("GET", "/", &[("y", &[b'b'; 400])]));
        assert_eq!((remembered.0.capacity(), remembered.0.as_ptr()), (room, place));
        remembered.write(&head("GET", "/", &[("x", &[b'a'; 5_000])]));
        remembered.forget();
        assert_eq!(remembered.0.capacity(), 0);
    }
}
