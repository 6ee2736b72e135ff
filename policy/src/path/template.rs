//! Path templates: `{*}` is one whole segment, `{**}` any run of characters, slashes included.

use std::fmt;

use crate::fault::{BadValue, Excerpt};

const ONE: &str = "{*}";
const ANY: &str = "{**}";

/// A value of `paths` with operators in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    text: Box<str>,
    /// What a path begins with, up to the first operator.
    head: usize,
}

impl Template {
    /// Whether a value is a template rather than a string rule.
    #[must_use]
    pub fn is_template(value: &str) -> bool {
        value.contains(ONE) || value.contains(ANY)
    }

    /// Reads a value for which [`Self::is_template`] holds.
    ///
    /// # Errors
    /// [`BadValue::Template`] with the rule that is broken.
    pub fn new(value: &str) -> Result<Self, BadValue> {
        let bad = |why| BadValue::Template(Excerpt::of(value), why);
        let Some(inner) = value.strip_prefix('/') else {
            return Err(bad("it must begin with a slash"));
        };
        let segments: Vec<&str> = inner.split('/').collect();
        let mut any = false;
        for (at, segment) in segments.iter().enumerate() {
            let last = at + 1 == segments.len();
            match *segment {
                ONE | ANY if any => return Err(bad("no operator may follow {**}")),
                ONE => {}
                ANY => any = true,
                "" if !last => return Err(bad("it has an empty segment")),
                literal => check_literal(literal).map_err(bad)?,
            }
        }
        Ok(Self {
            text: value.into(),
            head: value.find('{').unwrap_or(value.len()),
        })
    }

    /// The literal text that every path it matches begins with.
    #[must_use]
    pub fn head(&self) -> &str {
        self.text.get(..self.head).unwrap_or_default()
    }

    /// Whether `path` has this form.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self.text.split_once(ANY) {
            None => segments_match(&self.text, path),
            Some((before, after)) => {
                let Some(end) = leading(before, path) else {
                    return false;
                };
                path.get(end..).is_some_and(|rest| rest.ends_with(after))
            }
        }
    }
}

/// A segment that holds no operator may hold path characters only.
fn check_literal(segment: &str) -> Result<(), &'static str> {
    if segment.contains(ONE) || segment.contains(ANY) {
        return Err("an operator must fill its whole segment");
    }
    if segment.contains(['{', '}']) {
        return Err("it has a brace that is no operator");
    }
    if segment.contains('*') {
        return Err("it has a star outside of braces");
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;=:@".contains(&b);
    if !segment.bytes().all(legal) {
        return Err("it has a character that no path has");
    }
    Ok(())
}

/// Whether two paths of the same number of segments agree, where `{*}` agrees with what is not empty.
fn segments_match(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(ONE), Some(segment)) if !segment.is_empty() => {}
            (Some(literal), Some(segment)) if literal == segment => {}
            _ => return false,
        }
    }
}

/// Where `path` goes on after the part that `template`, which ends in a slash, describes.
fn leading(template: &str, path: &str) -> Option<usize> {
    let mut end = 0;
    let mut given = path.split_inclusive('/');
    for wanted in template.split_inclusive('/') {
        let segment = given.next()?;
        let agrees = match wanted.strip_suffix('/') {
            Some(ONE) => segment.len() > 1 && segment.ends_with('/'),
            _ => segment == wanted,
        };
        if !agrees {
            return None;
        }
        end += segment.len();
    }
    Some(end)
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(template: &str, path: &str) -> bool {
        Template::new(template).unwrap().matches(path)
    }

    #[test]
    fn one_star_is_one_whole_segment() {
        for (template, yes, no) in [
            ("/x/{*}", "/x/a", "/x/"),
            ("/x/{*}", "/x/*", "/x/a/b"),
            ("/x/{*}/", "/x/a/", "/x/a"),
            ("/x/{*}/z", "/x/é\"/z", "/x//z"),
            ("/{*}/{*}", "/a/b", "/a"),
            ("/{*}", "/{*}", "/"),
        ] {
            assert!(matches(template, yes), "{template} {yes}");
            assert!(!matches(template, no), "{template} {no}");
        }
    }

    #[test]
    fn two_stars_are_any_number_of_segments() {
        for (template, yes, no) in [
            ("/x/{**}", "/x/", "/x"),
            ("/x/{**}", "/x/a/b/", "/y/a"),
            ("/a/{**}/cart", "/a/b/c/cart", "/a/cart"),
            ("/a/{**}/cart", "/a//cart", "/a/b/cart/"),
            ("/{*}/x/{**}", "/q/x/y", "//x/y"),
            ("/a/{**}/b", "/a/b/b", "/a/b"),
            ("/{**}", "/", ""),
        ] {
            assert!(matches(template, yes), "{template} {yes}");
            assert!(!matches(template, no), "{template} {no}");
        }
    }

    #[test]
    fn broken_templates_are_refused() {
        for text in [
            "{*}",
            "/a{*}",
            "/{*}a",
            "/{**}/{*}",
            "/{**}/{**}",
            "/{*}/{name}",
            "/{*}//b",
            "/{*}/{***}",
            "/{*}/a*",
            "/{*}/*",
            "/{*}/a}",
            "/{*}/ü",
            "/{*}/a b",
            "/{*}/a?b",
            "/{*}/a#b",
        ] {
            assert!(Template::is_template(text), "{text}");
            assert!(Template::new(text).is_err(), "{text}");
        }
        for text in ["/a/{*}", "/{**}", "/a/{*}/b/{**}/c", "/a/{*}/", "/%41/{*}"] {
            assert!(Template::new(text).is_ok(), "{text}");
        }
    }
}
