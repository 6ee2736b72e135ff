//! The service-account token: read from its file at each use, since kubelet replaces it, and never
//! shown. Whether it is good is the CA's to say; here only its account is read, as a cross-check.

use std::path::Path;

use signet_certs::ServiceAccountId;
use signet_certs::account_token::AccountClaims;
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

/// Longest token read, in bytes; the CA refuses longer ones too.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Why there is no token to send.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("{0}; mount a projected service-account token there, or set token_file")]
    Read(#[from] std::io::Error),
    /// Nothing in it.
    #[error("token file {0} is empty")]
    Empty(String),
    /// Bytes that no token has.
    #[error("token file {0} holds characters that no token has")]
    Characters(String),
}

/// A token as read. Wiped on drop.
pub struct Token(Zeroizing<Vec<u8>>);

impl Token {
    /// Reads and trims the token in `path`.
    ///
    /// # Errors
    /// A [`TokenError`] that names the file and none of its bytes.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let contents = signet_runtime::files::read_bounded(path, MAX_TOKEN_BYTES)?;
        let trimmed = contents.trim_ascii();
        if trimmed.is_empty() {
            return Err(TokenError::Empty(path.display().to_string()));
        }
        if !trimmed.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::Characters(path.display().to_string()));
        }
        Ok(Self(Zeroizing::new(trimmed.to_vec())))
    }

    /// The value of the `authorization` metadata, marked sensitive.
    #[must_use]
    pub fn expose_bearer(&self) -> Option<MetadataValue<Ascii>> {
        let mut text = Zeroizing::new(Vec::with_capacity(self.0.len() + 7));
        text.extend_from_slice(b"Bearer ");
        text.extend_from_slice(&self.0);
        let mut value = MetadataValue::try_from(text.as_slice()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The account that the token claims to be of, without any proof; nothing when it is no JWT of a
    /// service account.
    #[must_use]
    pub fn claimed_account(&self) -> Option<ServiceAccountId> {
        let text = std::str::from_utf8(&self.0).ok()?;
        AccountClaims::read(text).ok()?.account()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn token(contents: &[u8]) -> Result<Token, TokenError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, contents).unwrap();
        Token::read(&path)
    }

    #[test]
    fn a_token_is_trimmed_and_its_header_is_sensitive() {
        let bearer = token(b"  a.b.c\n").unwrap().expose_bearer().unwrap();
        assert!(bearer.is_sensitive());
        assert_eq!(bearer.to_str().unwrap(), "Bearer a.b.c");
    }

    #[test]
    fn the_claimed_account_is_read_only_from_a_service_accounts_token() {
        let of = |payload: &str| {
            let payload = URL_SAFE_NO_PAD.encode(payload);
            token(format!("e30.{payload}.x").as_bytes())
                .unwrap()
                .claimed_account()
                .map(|a| a.to_string())
        };
        assert_eq!(
            of(r#"{"sub":"system:serviceaccount:shop:cart"}"#).as_deref(),
            Some("shop/cart")
        );
        assert_eq!(of(r#"{"sub":"system:node:n1"}"#), None);
        assert_eq!(of(r#"{"sub":"system:serviceaccount:Shop:cart"}"#), None);
        assert_eq!(of("not json"), None);
        assert!(token(b"opaque").unwrap().claimed_account().is_none());
    }

    #[test]
    fn an_unusable_token_is_named_by_its_file_and_never_shown() {
        assert!(token(b" \n").unwrap_err().to_string().ends_with("is empty"));
        let strange = token("tok\u{e9}n".as_bytes()).unwrap_err().to_string();
        assert!(
            strange.ends_with("holds characters that no token has"),
            "{strange}"
        );
        let missing = Token::read(Path::new("/nowhere/token")).unwrap_err().to_string();
        assert!(
            missing.ends_with("mount a projected service-account token there, or set token_file"),
            "{missing}"
        );
        assert_eq!(format!("{:?}", token(b"a.b.c").unwrap()), "Token(redacted)");
    }
}
