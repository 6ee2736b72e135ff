use proptest::prelude::*;

use super::*;

/// A ClientHello as rustls makes it.
fn real(alpn: &[&[u8]], name: &str) -> Vec<u8> {
    let provider = signet_certs::tls::provider();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// The same message in records of at most `size` bytes.
fn in_records(bytes: &[u8], size: usize) -> Vec<u8> {
    let message = &bytes[RECORD_HEAD..];
    let mut cut = Vec::new();
    for piece in message.chunks(size) {
        cut.extend_from_slice(&[HANDSHAKE, 3, 1]);
        cut.extend_from_slice(&u16::try_from(piece.len()).unwrap().to_be_bytes());
        cut.extend_from_slice(piece);
    }
    cut
}

fn hello(verdict: Verdict) -> Hello {
    match verdict {
        Verdict::Hello(hello) => hello,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_real_hello_tells_its_name_and_protocols() {
    let found = hello(look(&real(&[b"signet", b"istio"], "Shop.Example")));
    assert_eq!(found.sni.as_deref(), Some("shop.example"));
    assert!(found.offers(&[b"istio"]) && found.offers(&[b"signet"]));
    assert!(!found.offers(&[b"h2"]));
    let found = hello(look(&real(&[], "127.0.0.1")));
    assert_eq!(found, Hello::default());
}

#[test]
fn three_bytes_tell_tls_from_everything_else() {
    for bytes in [&b""[..], &[22], &[22, 3]] {
        assert_eq!(look(bytes), Verdict::Undecided, "{bytes:?}");
    }
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        &[22, 4],
        &[22, 3, 5],
        &[0],
        &[0x80, 0x2e, 1],
        b"PRI * ",
    ] {
        assert_eq!(look(bytes), Verdict::NotTls, "{bytes:?}");
    }
    for (bytes, fault) in [
        (&[22, 3, 1, 0, 0][..], Fault::Record),
        (&[22, 3, 1, 0x40, 1], Fault::Record),
        (&[22, 3, 1, 0, 4, 2], Fault::NoHello),
        (&[22, 3, 1, 0, 4, 1, 1, 0, 0], Fault::TooLong),
        (&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0], Fault::Broken),
        (&[22, 3, 1, 0, 1, 1, 23, 3, 3], Fault::Record),
    ] {
        assert_eq!(look(bytes), Verdict::Malformed(fault), "{bytes:?}");
    }
}

#[test]
fn a_hello_in_many_records_is_the_same_and_in_too_many_is_refused() {
    let whole = real(&[b"istio"], "a.example");
    let expected = look(&whole);
    for size in [4, 5, 16, 100, 1_000] {
        assert_eq!(look(&in_records(&whole, size)), expected, "{size}");
    }
    assert_eq!(look(&in_records(&whole, 1)), Verdict::Malformed(Fault::TooLong));
}

#[test]
fn a_hello_that_never_ends_is_refused_at_its_bound() {
    let mut endless = vec![22, 3, 1, 0x40, 0, 1, 0, 0x40, 0];
    endless.resize(MAX_HELLO, 7);
    assert_eq!(look(&endless), Verdict::Malformed(Fault::TooLong));
}

#[test]
fn an_extension_that_stands_twice_is_refused() {
    let whole = real(&[b"istio"], "a.example");
    let body = body(&whole[RECORD_HEAD..]);
    let list = body.len() - {
        // From the end: the extensions and their length.
        let mut parts = Parts(&body);
        parts.take(34).unwrap();
        parts.short().unwrap();
        parts.long().unwrap();
        parts.short().unwrap();
        parts.0.len()
    };
    let extensions = &body[list + 2..];
    let mut doubled = body[..list].to_vec();
    doubled.extend_from_slice(&u16::try_from(extensions.len() * 2).unwrap().to_be_bytes());
    doubled.extend_from_slice(extensions);
    doubled.extend_from_slice(extensions);
    assert!(parse(&body).is_some());
    assert_eq!(parse(&doubled), None);
}

/// A body with this server name and nothing else.
fn naming(name: &[u8]) -> Vec<u8> {
    let counted = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[..], bytes].concat()
    };
    let names = counted(&[&[0], &*counted(name)].concat());
    let extension = [&[0, 0], &*counted(&names)].concat();
    [
        &[3; 34][..],
        &[0],
        &[0, 2, 0x13, 1],
        &[1, 0],
        &*counted(&extension),
    ]
    .concat()
}

#[test]
fn a_name_that_no_host_can_have_is_refused() {
    for (length, fits) in [(0, false), (1, true), (255, true), (256, false), (15_000, false)] {
        let found = parse(&naming(&vec![b'a'; length]));
        assert_eq!(found.is_some(), fits, "{length}");
        assert_eq!(
            found.and_then(|hello| hello.sni).map_or(0, |name| name.len()),
            if fits { length } else { 0 }
        );
    }
}

proptest! {
    /// However the bytes arrive, the last look says the same; and no earlier one was wrong.
    #[test]
    fn splits_do_not_matter(size in 1usize..600, cut in 0usize..600) {
        let whole = in_records(&real(&[b"signet", b"istio"], "a.example"), size.max(8));
        let expected = look(&whole);
        let part = &whole[..cut.min(whole.len())];
        match look(part) {
            Verdict::Undecided => prop_assert!(part.len() < 3),
            Verdict::Partial(needed) => {
                prop_assert!(needed > part.len() && needed <= whole.len());
                let less = &whole[..needed - 1];
                prop_assert!(!matches!(look(less), Verdict::Hello(_)));
            }
            told => prop_assert_eq!(told, expected),
        }
    }

    /// Whatever comes after a verdict does not change it.
    #[test]
    fn a_verdict_stays(bytes in proptest::collection::vec(any::<u8>(), 0..300), tls in any::<bool>()) {
        let mut bytes = bytes;
        if tls {
            bytes.splice(0..0, [22, 3, 1, 0, 60, 1, 0, 0, 56]);
        }
        let last = look(&bytes);
        for end in 0..bytes.len() {
            match look(&bytes[..end]) {
                Verdict::Undecided | Verdict::Partial(_) => {}
                told => prop_assert_eq!(told, last.clone()),
            }
        }
    }
}
