use super::*;

fn map(list: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.parse().unwrap(),
        );
    }
    headers
}

fn left(list: &[(&str, &str)]) -> Result<Vec<String>, HopFault> {
    let mut headers = map(list);
    end_hop(&mut headers, Version::HTTP_11)?;
    Ok(headers.keys().map(|name| name.as_str().to_owned()).collect())
}

#[test]
fn what_belongs_to_one_hop_ends_here() {
    let headers = [
        ("connection", "close, X-Mine"),
        ("connection", "keep-alive"),
        ("keep-alive", "1"),
        ("x-mine", "1"),
        ("te", "gzip"),
        ("proxy-authorization", "a"),
        ("proxy-connection", "b"),
        ("upgrade", "x"),
        ("http2-settings", "y"),
        ("transfer-encoding", "chunked"),
        ("expect", "100-Continue"),
        ("x-kept", "1"),
    ];
    assert_eq!(left(&headers).unwrap(), ["x-kept"]);
    assert_eq!(left(&[("te", "trailers")]).unwrap(), ["te"]);
}

#[test]
fn connection_cannot_take_away_what_the_upstream_relies_on() {
    for name in [
        "Host",
        "content-length",
        "X-Forwarded-Client-Cert",
        "x-forwarded-for",
        "authorization",
        "x-request-id",
    ] {
        assert_eq!(left(&[("connection", name)]), Err(HopFault::Protected), "{name}");
    }
    assert_eq!(left(&[("connection", "a b")]), Err(HopFault::Malformed));
    assert_eq!(
        left(&[("connection", &"a,".repeat(17))]),
        Err(HopFault::Malformed)
    );
    assert_eq!(left(&[("expect", "200-ok")]), Err(HopFault::Expectation));
}

#[test]
fn connection_cannot_take_it_away_under_a_name_that_is_alike_either() {
    for name in [
        "X_Forwarded_Client_Cert",
        "x-request_id",
        "content.length",
        "x_forwarded-for",
    ] {
        assert_eq!(left(&[("connection", name)]), Err(HopFault::Protected), "{name}");
    }
}

#[test]
fn what_an_application_may_take_for_ours_is_taken_out() {
    let mut headers = map(&[
        ("x-forwarded-client-cert", "ours"),
        ("x_forwarded_client_cert", "forged"),
        ("x-forwarded_client-cert", "forged"),
        ("x.forwarded.client.cert", "forged"),
        ("transfer_encoding", "chunked"),
        ("content_length", "3"),
        ("x_request_id", "a"),
        ("x_own_header", "kept"),
        ("x-forwarded-client-certs", "kept"),
        ("host_", "kept"),
    ]);
    aliases::strip(&mut headers);
    let mut kept: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    kept.sort_unstable();
    let expected = [
        "host_",
        "x-forwarded-client-cert",
        "x-forwarded-client-certs",
        "x_own_header",
    ];
    assert_eq!(kept, expected);
    assert_eq!(headers[XFCC], "ours");
}

#[test]
fn a_header_is_taken_out_by_all_its_names_whichever_is_given() {
    for name in ["x-user-id", "x_user_id", "x-user_id"] {
        let mut headers = map(&[
            ("x-user-id", "1"),
            ("x_user_id", "2"),
            ("x_user-id", "3"),
            ("x", "4"),
        ]);
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        aliases::take(&mut headers, &name);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x"], "{name}");
    }
    let mut headers = map(&[("x-user", "1"), ("x_user", "2")]);
    aliases::take_others(&mut headers, &HeaderName::from_static("x-user"));
    assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-user"]);
}

#[test]
fn an_upgrade_counts_only_where_connection_names_it() {
    let upgrade = |list: &[(&str, &str)]| end_hop(&mut map(list), Version::HTTP_11).map(|hop| hop.upgrade);
    let both = [("connection", "Upgrade"), ("upgrade", "websocket")];
    assert_eq!(upgrade(&both).unwrap().unwrap(), "websocket");
    assert_eq!(upgrade(&[("upgrade", "websocket")]), Ok(None));
    let two = [("connection", "upgrade"), ("upgrade", "a"), ("upgrade", "b")];
    assert_eq!(upgrade(&two), Err(HopFault::Malformed));
    for (name, passed) in [
        ("websocket", true),
        ("SPDY/3.1", true),
        ("h2c", false),
        ("HTTP/2.0", false),
        ("a, b", false),
        ("", false),
    ] {
        assert_eq!(passes_on(&HeaderValue::from_str(name).unwrap()), passed, "{name}");
    }
}

#[test]
fn policy_sees_every_value_in_its_order_and_as_bytes() {
    let mut headers = map(&[("x-a", "1"), ("x-b", "2"), ("x-a", "3")]);
    headers.append("x-a", HeaderValue::from_bytes(b"\xff").unwrap());
    let seen = Seen(&headers);
    let mut values: Vec<&[u8]> = Vec::new();
    seen.each("x-a", &mut |value| values.push(value));
    assert_eq!(values, [&b"1"[..], b"3", b"\xff"]);
}

#[test]
fn one_request_id_is_left_and_it_is_sane() {
    for (list, kept) in [
        (&[("x-request-id", "abc")][..], true),
        (&[("x-request-id", "a"), ("x-request-id", "b")], false),
        (&[("x-request-id", "a b")], false),
        (&[("x-request-id", "")], false),
        (&[], false),
    ] {
        let mut headers = map(list);
        settle_request_id(&mut headers);
        let id: Vec<&HeaderValue> = headers.get_all(REQUEST_ID).iter().collect();
        assert_eq!(id.len(), 1);
        assert_eq!(id[0] == "abc", kept, "{list:?}");
    }
    let (a, b) = (new_request_id(), new_request_id());
    assert_ne!(a, b);
    let text = a.to_str().unwrap();
    assert_eq!(text.len(), 36);
    assert_eq!(&text[14..15], "4");
    assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"));
}

#[test]
fn only_a_peer_with_an_identity_is_believed_about_its_clients_scheme() {
    for (given, identity, told) in [
        (&["https"][..], false, "http"),
        (&["http"], true, "http"),
        (&["gopher"], true, "https"),
        (&["http", "https"], true, "https"),
        (&[], true, "https"),
        (&[], false, "http"),
    ] {
        let list: Vec<_> = given.iter().map(|value| ("x-forwarded-proto", *value)).collect();
        let mut headers = map(&list);
        settle_forwarded_proto(&mut headers, identity);
        assert_eq!(
            headers.get_all(FORWARDED_PROTO).iter().collect::<Vec<_>>(),
            [told],
            "{given:?}"
        );
    }
}

#[test]
fn trailers_cannot_frame_or_name() {
    let mut trailers = map(&[
        ("grpc-status", "0"),
        ("content-length", "1"),
        ("host", "x"),
        ("x-forwarded-client-cert", "y"),
        ("x_forwarded_client_cert", "y"),
        ("content_length", "1"),
    ]);
    sane_trailers(&mut trailers);
    assert_eq!(trailers.len(), 1);
}

#[test]
fn cookies_that_http2_took_apart_are_one_again() {
    let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2"), ("x", "y")]);
    join_cookies(&mut headers);
    let cookies: Vec<&HeaderValue> = headers.get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2"]);
    let mut one = map(&[("cookie", "a=1")]);
    join_cookies(&mut one);
    assert_eq!(one["cookie"], "a=1");
}
