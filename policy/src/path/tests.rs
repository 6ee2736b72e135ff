use super::*;

const FORMS: [Normalization; 4] = [
    Normalization::None,
    Normalization::Base,
    Normalization::MergeSlashes,
    Normalization::DecodeAndMergeSlashes,
];

fn seen(target: &str, form: Normalization) -> String {
    RequestPath::new(target, form).unwrap().as_str().to_owned()
}

#[test]
fn each_form_sees_what_the_reference_says() {
    for (target, expected) in [
        (
            "/shop/./cart",
            ["/shop/./cart", "/shop/cart", "/shop/cart", "/shop/cart"],
        ),
        (
            "/shop/%2E%2E/root",
            ["/shop/%2E%2E/root", "/root", "/root", "/root"],
        ),
        (
            "/shop//cart",
            ["/shop//cart", "/shop//cart", "/shop/cart", "/shop/cart"],
        ),
        (
            "/shop%2Fcart",
            ["/shop%2Fcart", "/shop%2Fcart", "/shop%2Fcart", "/shop/cart"],
        ),
        (
            "/shop%5ccart",
            ["/shop%5ccart", "/shop%5ccart", "/shop%5ccart", "/shop/cart"],
        ),
        (
            "/shop\\cart",
            ["/shop\\cart", "/shop/cart", "/shop/cart", "/shop/cart"],
        ),
        ("/sh%6Fp", ["/sh%6Fp", "/shop", "/shop", "/shop"]),
        ("/Shop%252Fcart#top?x=1", ["/Shop%252Fcart"; 4]),
        ("/a?b=/../c", ["/a"; 4]),
        ("/a/..", ["/a/..", "/", "/", "/"]),
        ("/a/b/..", ["/a/b/..", "/a/", "/a/", "/a/"]),
        ("/a/.", ["/a/.", "/a/", "/a/", "/a/"]),
        ("/../../a", ["/../../a", "/a", "/a", "/a"]),
        ("/a//../b", ["/a//../b", "/a/b", "/a/b", "/a/b"]),
        ("/a;x=1/b", ["/a;x=1/b"; 4]),
        ("/a/..b", ["/a/..b"; 4]),
        ("/a/...", ["/a/..."; 4]),
        ("/%c0%af", ["/%c0%af"; 4]),
        ("/A/b", ["/A/b"; 4]),
        ("/a%2F..%2Fb", ["/a%2F..%2Fb", "/a%2F..%2Fb", "/a%2F..%2Fb", "/b"]),
        ("/a/%2e%2e%2fb", ["/a/%2e%2e%2fb", "/a/..%2fb", "/a/..%2fb", "/b"]),
        ("/", ["/"; 4]),
        ("*", ["*"; 4]),
    ] {
        for (form, expected) in FORMS.into_iter().zip(expected) {
            assert_eq!(seen(target, form), expected, "{target} {form:?}");
        }
    }
}

#[test]
fn what_two_servers_read_in_two_ways_is_refused() {
    for (target, fault) in [
        ("", PathFault::NotAbsolute),
        ("a/b", PathFault::NotAbsolute),
        ("?x", PathFault::NotAbsolute),
        ("/a%00b", PathFault::Nul),
        ("/a\0b", PathFault::Nul),
        ("/a b", PathFault::Control),
        ("/a\r\nb", PathFault::Control),
    ] {
        for form in FORMS {
            assert_eq!(RequestPath::new(target, form), Err(fault), "{target:?} {form:?}");
        }
    }
    for (target, fault) in [
        ("/a%", PathFault::BrokenEncoding),
        ("/a%2", PathFault::BrokenEncoding),
        ("/a%zz", PathFault::BrokenEncoding),
        ("/a%+1", PathFault::BrokenEncoding),
        ("/a%é1", PathFault::BrokenEncoding),
        ("/a/..;x/b", PathFault::DotWithParameters),
        ("/a/.;/b", PathFault::DotWithParameters),
        ("/a/%2e%2e;x/b", PathFault::DotWithParameters),
    ] {
        for form in FORMS.into_iter().skip(1) {
            assert_eq!(RequestPath::new(target, form), Err(fault), "{target:?} {form:?}");
        }
    }
}

#[test]
fn query_is_kept_aside_and_a_plain_path_is_borrowed() {
    let path = RequestPath::new("/a/b?x=%2F&y#z", Normalization::DecodeAndMergeSlashes).unwrap();
    assert_eq!((path.as_str(), path.query()), ("/a/b", Some("x=%2F&y")));
    assert!(path.is_unchanged());
    let path = RequestPath::new("/a/./b?x", Normalization::Base).unwrap();
    assert!(!path.is_unchanged());
}

proptest::proptest! {
    /// What was normalised is a fixed point, so the upstream reads what the policy saw. Only an escaped
    /// percent sign could be read again, and no form decodes that.
    #[test]
    fn a_normalised_path_is_normal(target in "/([a./%\\\\;é~]|%2[eEfF5]|%5[cC]|\\.\\.|//){0,12}") {
        for form in FORMS {
            if let Ok(once) = RequestPath::new(&target, form) {
                let again = RequestPath::new(once.as_str(), form).unwrap();
                proptest::prop_assert_eq!(again.as_str(), once.as_str());
                if form != Normalization::None {
                    let dots = |segment| segment == "." || segment == "..";
                    proptest::prop_assert!(!once.as_str().split('/').any(dots));
                }
            }
        }
    }
}
