//! SPIFFE-ID §2, rule by rule, as strings; `limbo::names` repeats the rejects as URI names.

use signet_certs::id::{IdError, MAX_ID_BYTES};
use signet_certs::{ServiceAccountId, SpiffeId, TrustDomain};

/// Every refusal that SPIFFE-ID §2 asks for, with the reason it must give.
pub(crate) fn rejected() -> Vec<(String, IdError)> {
    let td = IdError::TrustDomainChar;
    let path = IdError::PathChar;
    let table = [
        // another scheme, or none (§2)
        ("http://td/a", IdError::Scheme),
        ("spiffe:td/a", IdError::Scheme),
        ("spiffe:/td/a", IdError::Scheme),
        ("SPIFFE://td/a", IdError::Scheme),
        (" spiffe://td/a", IdError::Scheme),
        ("td/a", IdError::Scheme),
        ("//td/a", IdError::Scheme),
        // no trust domain (§2.1)
        ("spiffe://", IdError::EmptyTrustDomain),
        ("spiffe:///a", IdError::EmptyTrustDomain),
        // query and fragment, even empty (§2)
        ("spiffe://td/a?", path('?')),
        ("spiffe://td/a?x=1", path('?')),
        ("spiffe://td/a#", path('#')),
        ("spiffe://td/a#f", path('#')),
        ("spiffe://td?", td('?')),
        ("spiffe://td#f", td('#')),
        // userinfo and port (§2.1)
        ("spiffe://u@td/a", td('@')),
        ("spiffe://u:p@td/a", td(':')),
        ("spiffe://@td/a", td('@')),
        ("spiffe://td:80/a", td(':')),
        ("spiffe://td:/a", td(':')),
        // the alphabet of trust domains (§2.1)
        ("spiffe://Example.org/a", td('E')),
        ("spiffe://t d/a", td(' ')),
        ("spiffe://t+d/a", td('+')),
        ("spiffe://t~d/a", td('~')),
        ("spiffe://t!d/a", td('!')),
        ("spiffe://t*d/a", td('*')),
        ("spiffe://t(d/a", td('(')),
        ("spiffe://tδ/a", td('δ')),
        ("spiffe://td\u{0}/a", td('\0')),
        ("spiffe://[::1]/a", td('[')),
        ("spiffe://ex%61mple.org/a", td('%')),
        // the path (§2.2)
        ("spiffe://td/a%2Fb", path('%')),
        ("spiffe://td/%61", path('%')),
        ("spiffe://td/a%", path('%')),
        ("spiffe://td//a", IdError::EmptySegment),
        ("spiffe://td/a//b", IdError::EmptySegment),
        ("spiffe://td/", IdError::EmptySegment),
        ("spiffe://td/a/", IdError::EmptySegment),
        ("spiffe://td/.", IdError::RelativeSegment),
        ("spiffe://td/..", IdError::RelativeSegment),
        ("spiffe://td/a/./b", IdError::RelativeSegment),
        ("spiffe://td/a/../b", IdError::RelativeSegment),
        ("spiffe://td/a:b", path(':')),
        ("spiffe://td/a@b", path('@')),
        ("spiffe://td/a b", path(' ')),
        ("spiffe://td/a+b", path('+')),
        ("spiffe://td/a~b", path('~')),
        ("spiffe://td/a=b", path('=')),
        ("spiffe://td/a\\b", path('\\')),
        ("spiffe://td/é", path('é')),
        ("spiffe://td/a\u{0}", path('\0')),
        ("spiffe://td/a\r\n", path('\r')),
    ];
    let mut all: Vec<_> = table
        .into_iter()
        .map(|(text, why)| (text.to_owned(), why))
        .collect();
    // lengths (§2.3)
    all.push((of_length(MAX_ID_BYTES + 1), IdError::TooLong(MAX_ID_BYTES + 1)));
    all.push((
        format!("spiffe://{}/a", "d".repeat(256)),
        IdError::TrustDomainTooLong(256),
    ));
    all
}

fn of_length(len: usize) -> String {
    let head = "spiffe://td/";
    format!("{head}{}", "a".repeat(len - head.len()))
}

#[test]
fn refuses_every_id_the_standard_refuses() {
    for (text, why) in rejected() {
        assert_eq!(text.parse::<SpiffeId>(), Err(why), "{text:?}");
    }
}

#[test]
fn accepts_every_id_the_standard_accepts() {
    let longest = of_length(MAX_ID_BYTES);
    let widest = format!("spiffe://{}/a", "d".repeat(255));
    for (text, domain, path) in [
        ("spiffe://td", "td", ""),
        ("spiffe://td/a", "td", "/a"),
        ("spiffe://10.0.0.1/a", "10.0.0.1", "/a"),
        ("spiffe://td_1/a", "td_1", "/a"),
        ("spiffe://a.b./a", "a.b.", "/a"),
        ("spiffe://-_-/a", "-_-", "/a"),
        ("spiffe://td/...", "td", "/..."),
        ("spiffe://td/.a", "td", "/.a"),
        ("spiffe://td/a..b", "td", "/a..b"),
        ("spiffe://td/A-Z_0.9/a", "td", "/A-Z_0.9/a"),
        (longest.as_str(), "td", &longest["spiffe://td".len()..]),
        (
            widest.as_str(),
            &widest["spiffe://".len()..widest.len() - 2],
            "/a",
        ),
    ] {
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(
            (id.as_str(), id.trust_domain_name(), id.path()),
            (text, domain, path)
        );
        assert_eq!(id.trust_domain().as_str(), domain);
        assert_eq!(id.is_trust_domain(), path.is_empty());
        assert!(id.is_in(&domain.parse().unwrap()));
    }
}

#[test]
fn nothing_is_normalised_before_ids_are_compared() {
    let parse = |text: &str| text.parse::<SpiffeId>().unwrap();
    assert_ne!(parse("spiffe://td/A"), parse("spiffe://td/a"));
    assert_ne!(parse("spiffe://td"), parse("spiffe://td."));
    assert_eq!(parse("spiffe://td/a"), parse("spiffe://td/a"));
    assert!(!parse("spiffe://td.example/a").is_in(&"td".parse().unwrap()));
}

#[test]
fn a_trust_domain_is_a_name_and_never_an_id() {
    let longest = "d".repeat(255);
    for good in ["td", "a.b", "1.2.3.4", "td_1", longest.as_str()] {
        let domain: TrustDomain = good.parse().unwrap();
        assert_eq!(domain.id().as_str(), format!("spiffe://{good}"));
        assert_eq!(domain.id().trust_domain(), domain);
    }
    for (bad, why) in [
        ("", IdError::EmptyTrustDomain),
        ("spiffe://td", IdError::TrustDomainChar(':')),
        ("td/a", IdError::TrustDomainChar('/')),
        ("TD", IdError::TrustDomainChar('T')),
        (&"d".repeat(256), IdError::TrustDomainTooLong(256)),
    ] {
        assert_eq!(bad.parse::<TrustDomain>(), Err(why), "{bad:?}");
    }
}

#[test]
fn service_accounts_keep_the_alphabets_of_kubernetes() {
    let (label, subdomain) = ("n".repeat(63), "s".repeat(253));
    for (namespace, name) in [
        ("shop", "cart"),
        ("a", "b"),
        ("1", "1.2.3"),
        ("a-b", "a--b.c-d"),
        (label.as_str(), subdomain.as_str()),
    ] {
        let account = ServiceAccountId::new(namespace, name).unwrap();
        assert_eq!((account.namespace(), account.name()), (namespace, name));
    }
    for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "é", &"n".repeat(64)] {
        assert_eq!(
            ServiceAccountId::new(bad, "cart"),
            Err(IdError::Namespace(bad.into()))
        );
    }
    for bad in [
        "",
        ".",
        "..",
        "a.",
        ".a",
        "a..b",
        "a.-b",
        "-a",
        "a-",
        "A",
        "a_b",
        "a/b",
        "a b",
        &"s".repeat(254),
    ] {
        assert_eq!(
            ServiceAccountId::new("shop", bad),
            Err(IdError::ServiceAccount(bad.into()))
        );
    }
}

#[test]
fn service_accounts_and_their_ids_say_the_same() {
    let account = ServiceAccountId::new("shop", "cart").unwrap();
    let id = account.spiffe_id(&"cluster.local".parse().unwrap());
    assert_eq!(id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(ServiceAccountId::try_from(&id), Ok(account.clone()));
    assert_eq!("shop/cart".parse(), Ok(account));
    for other in [
        "",
        "/ns/shop",
        "/ns/shop/sa",
        "/ns/shop/sa/cart/x",
        "/NS/shop/sa/cart",
        "/sa/cart/ns/shop",
    ] {
        let id: SpiffeId = format!("spiffe://cluster.local{other}").parse().unwrap();
        assert_eq!(
            ServiceAccountId::try_from(&id),
            Err(IdError::NotServiceAccount),
            "{other}"
        );
    }
    let capital: SpiffeId = "spiffe://cluster.local/ns/Shop/sa/cart".parse().unwrap();
    assert_eq!(
        ServiceAccountId::try_from(&capital),
        Err(IdError::Namespace("Shop".into()))
    );
    assert_eq!(
        "cart".parse::<ServiceAccountId>(),
        Err(IdError::NotServiceAccount)
    );
}

#[test]
fn refusals_say_what_is_wrong_in_words() {
    for (text, sentence) in [
        ("https://td/a", "must begin with \"spiffe://\""),
        (
            "spiffe://TD/a",
            "trust domain may hold only a-z, 0-9, '.', '-' and '_', not 'T'",
        ),
        ("spiffe://td/a/", "path has an empty segment or ends in '/'"),
        (
            "spiffe://td/a?b",
            "path may hold only letters, digits, '.', '-' and '_' between slashes, not '?'",
        ),
    ] {
        assert_eq!(text.parse::<SpiffeId>().unwrap_err().to_string(), sentence);
    }
}
