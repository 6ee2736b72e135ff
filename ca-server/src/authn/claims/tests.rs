use super::*;

const NOW: u64 = 1_800_000_000;

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW))
}

fn token(header: &str, body: &str) -> BearerToken {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    BearerToken::new(&format!("{}.{}.c2ln", part(header), part(body)))
}

fn with_body(body: &str) -> Result<Claims, String> {
    let accepted = ["signet-ca".to_owned()];
    check(&token(r#"{"alg":"RS256","kid":"k"}"#, body), &accepted, now()).map_err(|e| e.to_string())
}

fn body(aud: &str, exp: u64, sub: &str) -> String {
    format!(r#"{{"aud":{aud},"exp":{exp},"nbf":{},"sub":"{sub}"}}"#, NOW - 10)
}

const SUB: &str = "system:serviceaccount:shop:cart";

#[test]
fn a_good_token_tells_account_key_and_end() {
    let claims = with_body(&body(r#"["other","signet-ca"]"#, NOW + 600, SUB)).unwrap();
    assert_eq!(claims.account.to_string(), "shop/cart");
    assert_eq!(claims.key_id.as_deref(), Some("k"));
    assert_eq!(claims.expires.as_secs(), NOW + 600);
    with_body(&body(r#""signet-ca""#, NOW + 600, SUB)).unwrap();
}

#[test]
fn what_cannot_pass_is_refused_with_the_sentence_its_owner_needs() {
    let refused = |body: &str| with_body(body).unwrap_err();
    assert_eq!(
        refused(&body(r#"["api"]"#, NOW + 600, SUB)),
        r#"is for audience ["api"], this CA accepts ["signet-ca"]"#
    );
    assert_eq!(
        refused(&body(r#""signet-ca""#, NOW - 100, SUB)),
        "expired 100 s ago"
    );
    assert_eq!(
        refused(&body(r#""signet-ca""#, NOW + 600, "admin")),
        r#"belongs to "admin", which is not a service account"#
    );
    assert_eq!(
        refused(&format!(r#"{{"aud":"signet-ca","sub":"{SUB}"}}"#)),
        "has no expiry; use a projected token, not a legacy Secret token"
    );
    assert_eq!(
        refused(&format!(
            r#"{{"aud":"signet-ca","exp":{},"nbf":{},"sub":"{SUB}"}}"#,
            NOW + 900,
            NOW + 300
        )),
        "is not valid for another 300 s; compare this machine's clock with the API server's"
    );
}

#[test]
fn tokens_without_the_form_of_one_are_refused_before_anything_is_decoded() {
    let refused = |text: &str| read(&BearerToken::new(text)).unwrap_err();
    assert_eq!(refused(""), ClaimsFault::Empty);
    assert_eq!(
        refused(&"x".repeat(16 * 1024 + 1)),
        ClaimsFault::TooLarge(16 * 1024 + 1)
    );
    for text in ["abc", "a.b", "a.b.c.d", "..", "!.!.!", "e30.e30."] {
        assert_eq!(refused(text), ClaimsFault::NotJws, "{text}");
    }
    for algorithm in ["none", "HS256", "HS512", "rs256"] {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        let fault = read(&token(&header, &body(r#""x""#, NOW, SUB))).unwrap_err();
        assert_eq!(fault, ClaimsFault::Algorithm(algorithm.into()));
    }
}

#[test]
fn skewed_clocks_are_given_half_a_minute_because_the_api_server_decides() {
    with_body(&body(r#""signet-ca""#, NOW - 29, SUB)).unwrap();
    assert!(with_body(&body(r#""signet-ca""#, NOW - 31, SUB)).is_err());
}

#[test]
fn a_token_never_shows_itself() {
    assert_eq!(
        format!("{:?}", BearerToken::new("eyJhbGciOi.secret.sig")),
        "BearerToken(21 bytes)"
    );
}
