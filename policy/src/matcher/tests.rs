use super::*;

fn matches(value: &str, text: &str) -> bool {
    Pattern::new(value).matches(text.as_bytes(), Fold::Exact)
}

#[test]
fn the_place_of_the_star_decides() {
    for (value, yes, no) in [
        ("get", "get", "gett"),
        ("ge*", "get", "g"),
        ("ge*", "ge", "Get"),
        ("*et", "get", "ett"),
        ("*et", "et", "t"),
        ("*", "x", ""),
        ("*a*", "xa*", "xa"),
        ("a*b", "a*b", "axb"),
        ("a*b*", "a*bc", "axbc"),
    ] {
        assert!(matches(value, yes), "{value} {yes}");
        assert!(!matches(value, no), "{value} {no}");
    }
}

#[test]
fn nothing_is_a_regular_expression_and_nothing_is_trimmed() {
    assert!(!matches("a.c", "abc"));
    assert!(!matches(".*", "abc"));
    assert!(!matches("abc", "abc "));
    assert!(!matches(" abc", "abc"));
}

#[test]
fn folding_is_for_ascii_letters_only() {
    let pattern = Pattern::new("*.Example.com");
    assert!(pattern.matches(b"a.eXAMPLE.cOM", Fold::Ascii));
    assert!(!pattern.matches(b"a.eXAMPLE.cOM", Fold::Exact));
    assert!(!Pattern::new("é").matches("É".as_bytes(), Fold::Ascii));
}

#[test]
fn many_patterns_mean_what_few_mean() {
    let values = [
        "abc",
        "ab*",
        "*bc",
        "x",
        "xyz",
        "xy*z",
        "",
        "*yy",
        "longer/path",
        "longer/*",
        "q*",
        "*q",
    ];
    let texts = [
        "abc",
        "ab",
        "a",
        "zbc",
        "x",
        "xyz",
        "xy*z",
        "",
        "yy",
        "longer/path",
        "longer/",
        "longer",
        "q",
        "qq",
        "none",
        "ABC",
    ];
    for fold in [Fold::Exact, Fold::Ascii] {
        let many = TextSet::new(values.iter().map(|v| Pattern::new(v)).collect(), fold);
        for text in texts {
            let one_by_one = many.patterns().iter().any(|p| p.matches(text.as_bytes(), fold));
            assert_eq!(many.matches(text.as_bytes()), one_by_one, "{text} {fold:?}");
        }
    }
}

#[test]
fn repeated_headers_are_compared_joined_by_commas() {
    let set = |value: &str| TextSet::new(vec![Pattern::new(value)], Fold::Exact);
    let pieces: [&[u8]; 3] = [b"one", b"two", b"three"];
    for (value, expected) in [
        ("one,two,three", true),
        ("one", false),
        ("one,t*", true),
        ("*wo,three", true),
        ("*three", true),
        ("one,two,three,*", false),
        ("*", true),
    ] {
        assert_eq!(
            set(value).matches_text(Text::Header(&pieces)),
            expected,
            "{value}"
        );
    }
    assert!(!set("*").matches_text(Text::Header(&[])));
    assert!(set("*").matches_text(Text::Header(&[b"", b""])));
    assert!(set("*").matches_text(Text::Header(&[b""])));
    assert!(!set("*").matches_text(Text::Whole(b"")));
    let values = ["a", "b", "c", "d", "e", "f", "g", "h", "i"].map(Pattern::new);
    let more = |value: &str| {
        let values = values.iter().cloned().chain([Pattern::new(value)]);
        TextSet::new(values.collect(), Fold::Exact).matches_text(Text::Header(&pieces))
    };
    assert!(more("one,two,three") && more("one,t*") && more("*o,three") && more("*"));
    assert!(!more("one") && !more("two*") && !more("*two"));
}

#[test]
fn a_glob_takes_every_star() {
    for (pattern, yes, no) in [
        ("a*c", "abc", "abd"),
        ("a*c", "ac", "a"),
        ("*b*", "abc", "ac"),
        ("a*b*c", "a-b-b-c", "a-c"),
        ("aa*aa", "aaaa", "aaa"),
        ("ab", "ab", "abc"),
        ("a.*c", "a.xc", "axxc"),
    ] {
        assert!(Glob::new(pattern).matches(yes), "{pattern} {yes}");
        assert!(!Glob::new(pattern).matches(no), "{pattern} {no}");
    }
}
