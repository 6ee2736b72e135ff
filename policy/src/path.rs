//! Request paths: normalised once, compared, and forwarded in the form that was compared.

use std::borrow::Cow;
use std::str::FromStr;

pub mod template;

/// What is done to a path before it is compared (Istio: `meshConfig.pathNormalization`). Every form cuts query
/// and fragment, and none decodes twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalization {
    /// Nothing.
    None,
    /// RFC 3986: dot segments, percent-encoding of unreserved characters; `\` is `/`.
    #[default]
    Base,
    /// `Base`, then runs of slashes are one.
    MergeSlashes,
    /// Encoded slashes and backslashes are slashes, then `MergeSlashes`.
    DecodeAndMergeSlashes,
}

impl FromStr for Normalization {
    type Err = UnknownNormalization;

    /// Reads Istio's names; `DEFAULT` is `BASE`.
    fn from_str(name: &str) -> Result<Self, UnknownNormalization> {
        match name {
            "NONE" => Ok(Self::None),
            "DEFAULT" | "BASE" => Ok(Self::Base),
            "MERGE_SLASHES" => Ok(Self::MergeSlashes),
            "DECODE_AND_MERGE_SLASHES" => Ok(Self::DecodeAndMergeSlashes),
            _ => Err(UnknownNormalization),
        }
    }
}

/// A name that is none of Istio's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES")]
pub struct UnknownNormalization;

/// Why a request is refused (400) rather than guessed about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathFault {
    /// Neither absolute nor `*`.
    #[error("path does not begin with a slash")]
    NotAbsolute,
    /// A NUL, as it is or encoded.
    #[error("path holds NUL")]
    Nul,
    /// A control character or a space.
    #[error("path holds a control character or a space")]
    Control,
    /// A percent sign without two hexadecimal digits.
    #[error("path holds a broken percent-encoding")]
    BrokenEncoding,
    /// A dot segment with parameters, which some servers climb by and some do not.
    #[error("path holds a dot segment with parameters")]
    DotWithParameters,
}

impl PathFault {
    /// A stable word for metrics and access records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAbsolute => "path_not_absolute",
            Self::Nul => "path_nul",
            Self::Control => "path_control",
            Self::BrokenEncoding => "path_broken_encoding",
            Self::DotWithParameters => "path_dot_parameters",
        }
    }
}

/// A path in the one form that is both compared and forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath<'a> {
    path: Cow<'a, str>,
    query: Option<&'a str>,
}

impl<'a> RequestPath<'a> {
    /// Reads the target of a request in origin form (`/path?query`) or the asterisk form `*`.
    ///
    /// # Errors
    /// [`PathFault`] where two servers would understand two things.
    pub fn new(target: &'a str, normalization: Normalization) -> Result<Self, PathFault> {
        let whole = target.split('#').next().unwrap_or_default();
        let (path, query) = match whole.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (whole, None),
        };
        if path == "*" {
            return Ok(Self {
                path: Cow::Borrowed(path),
                query,
            });
        }
        check(path)?;
        let path = match normalization {
            Normalization::None => Cow::Borrowed(path),
            _ => normalize(path, normalization)?,
        };
        Ok(Self { path, query })
    }

    /// The path of a request that has none, as CONNECT: no rule on paths matches it.
    #[must_use]
    pub fn absent() -> Self {
        Self {
            path: Cow::Borrowed(""),
            query: None,
        }
    }

    /// The path that rules see and the upstream receives.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// The query, which rules never see.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// Whether normalisation changed nothing, so that the target can be forwarded as it came.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        matches!(self.path, Cow::Borrowed(_))
    }
}

/// What no form lets pass.
fn check(path: &str) -> Result<(), PathFault> {
    if !path.starts_with('/') {
        return Err(PathFault::NotAbsolute);
    }
    if path.contains('\0') || path.contains("%00") {
        return Err(PathFault::Nul);
    }
    if path.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(PathFault::Control);
    }
    Ok(())
}

/// Nothing that normalisation could touch stands in it.
fn is_plain(path: &str) -> bool {
    !path.bytes().any(|b| matches!(b, b'%' | b'\\')) && !path.contains("/.") && !path.contains("//")
}

fn normalize(path: &str, normalization: Normalization) -> Result<Cow<'_, str>, PathFault> {
    if is_plain(path) {
        return Ok(Cow::Borrowed(path));
    }
    let decode_slashes = normalization == Normalization::DecodeAndMergeSlashes;
    let decoded = decode(path, decode_slashes)?;
    let mut clean = remove_dots(&decoded)?;
    if normalization != Normalization::Base {
        clean = merge_slashes(&clean);
    }
    if clean == path {
        return Ok(Cow::Borrowed(path));
    }
    Ok(Cow::Owned(clean))
}

/// One pass: unreserved characters and, if asked, slashes are decoded; backslashes are slashes.
fn decode(path: &str, decode_slashes: bool) -> Result<String, PathFault> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        let (before, here) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = here.strip_prefix('\\') {
            out.push('/');
            rest = after;
            continue;
        }
        let escape = here.get(..3).ok_or(PathFault::BrokenEncoding)?;
        let byte = hex(escape).ok_or(PathFault::BrokenEncoding)?;
        match char::from(byte) {
            c if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~') => out.push(c),
            '/' | '\\' if decode_slashes => out.push('/'),
            _ => out.push_str(escape),
        }
        rest = here.get(3..).unwrap_or_default();
    }
    out.push_str(rest);
    Ok(out)
}

/// The byte of `%XX`.
fn hex(escape: &str) -> Option<u8> {
    let digits = escape.strip_prefix('%')?;
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// RFC 3986 §5.2.4, except that `..` takes an empty segment away like any other.
fn remove_dots(path: &str) -> Result<String, PathFault> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ if is_dot_with_parameters(segment) => return Err(PathFault::DotWithParameters),
            _ => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in kept {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

fn is_dot_with_parameters(segment: &str) -> bool {
    matches!(segment.split_once(';'), Some(("." | "..", _)))
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests;
