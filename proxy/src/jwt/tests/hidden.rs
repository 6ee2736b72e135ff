//! Tokens among much else: what surrounds one does not hide it.

use http::HeaderValue;
use http::header::COOKIE;

use super::*;

/// More than any bound on pairs there could sensibly be.
const MANY: usize = 5_000;

fn with_cookie(cookie: &[u8]) -> Parts {
    let mut request = get("/", &[]);
    let value = HeaderValue::from_bytes(cookie).unwrap();
    request.headers.insert(COOKIE, value);
    request
}

fn by_cookie() -> TokenRules {
    rules(&[of_a("fromCookies: [t]")])
}

#[tokio::test]
async fn no_number_of_parameters_hides_a_token() {
    let rules = rules(&[of_a("")]);
    for before in ["&", "a=1&"] {
        let before = before.repeat(MANY);
        let forged = get(&format!("/?{before}access_token=forged"), &[]);
        assert_eq!(who(&rules, &forged).await, "malformed");
        let good = get(&format!("/?{before}access_token={}", A.token(ALICE)), &[]);
        assert_eq!(who(&rules, &good).await, IS_ALICE);
    }
}

#[tokio::test]
async fn no_number_of_cookies_hides_a_token() {
    let before = "a=1; ".repeat(MANY);
    let forged = with_cookie(format!("{before}t=forged").as_bytes());
    assert_eq!(who(&by_cookie(), &forged).await, "malformed");
    let good = with_cookie(format!("{before}t={}", A.token(ALICE)).as_bytes());
    let kept = forwarded(&by_cookie(), &good).await;
    assert_eq!(
        kept[COOKIE],
        before.trim_end_matches("; "),
        "the token stays here"
    );
}

#[tokio::test]
async fn bytes_that_are_no_text_hide_no_cookie_and_stay() {
    for (before, after) in [("x=\u{7f}", ""), ("", "; x=y")] {
        let around = |token: &str| {
            let text = format!("{before}; t={token}{after}; n=");
            let bytes = text.bytes().map(|byte| if byte == 0x7f { 0xff } else { byte });
            // An attribute that is not UTF-8 stands last, too.
            bytes.chain([0xfe]).collect::<Vec<u8>>()
        };
        assert_eq!(
            who(&by_cookie(), &with_cookie(&around("forged"))).await,
            "malformed"
        );
        let kept = forwarded(&by_cookie(), &with_cookie(&around(&A.token(ALICE)))).await;
        let kept = kept[COOKIE].as_bytes();
        assert!(!kept.windows(2).any(|two| two == b"t="), "{kept:?}");
        assert!(
            kept.ends_with(b"n=\xfe"),
            "other cookies go on as they came: {kept:?}"
        );
        assert_eq!(kept.contains(&0xff), !before.is_empty());
    }
}

#[tokio::test]
async fn the_same_token_many_times_is_one_and_too_many_are_told_early() {
    let rules = rules(&[of_a("")]);
    let token = A.token(ALICE);
    let pair = format!("access_token={token}&");
    let same = get(&format!("/?{}", pair.repeat(60_000 / pair.len())), &[]);
    assert_eq!(places::find(&rules, &same).len(), 1);
    assert_eq!(who(&rules, &same).await, IS_ALICE);
    let different: Vec<String> = (0..3_000).map(|n| format!("access_token={n}")).collect();
    let different = get(&format!("/?{}", different.join("&")), &[]);
    assert_eq!(places::find(&rules, &different).len(), MAX_TOKENS + 1);
    assert_eq!(who(&rules, &different).await, "too_many");
}
