//! What `signet dev` runs when nothing else is asked for: an application behind a proxy, two workloads that call
//! it, and policies to begin with.

use std::io;
use std::path::{Path, PathBuf};

use signet_certs::TrustDomain;
use signet_runtime::files::{SECRET_MODE, write_atomic};
use signet_runtime::socket::private_directory;

use super::app::{App, AppError};

/// As an operator would write them.
const APPS: [&str; 3] = ["shop/backend=echo", "shop/frontend", "other/intruder"];
/// Who is called.
pub(super) const CALLED: &str = "shop/backend";
/// Who is meant to call.
pub(super) const FRIEND: &str = "shop/frontend";
/// Who is not.
pub(super) const STRANGER: &str = "other/intruder";
/// What the policy below lets pass.
pub(super) const PATH: &str = "/api/v1/items";
/// The policy that the page speaks of.
pub(super) const ALLOW: &str = "allow-frontend.yaml";

/// The sample's applications.
///
/// # Errors
/// None: they are well written.
pub fn apps() -> Result<Vec<App>, AppError> {
    APPS.iter().map(|text| text.parse()).collect()
}

/// Writes the sample's policies below `directory`, for the operator to apply and to change; none is applied yet.
///
/// # Errors
/// The system's word.
pub fn write_policies(directory: &Path, domain: &TrustDomain) -> io::Result<PathBuf> {
    let below = directory.join("samples");
    private_directory(&below)?;
    for (name, text) in policies(domain) {
        write_atomic(&below.join(name), text.as_bytes(), SECRET_MODE)?;
    }
    Ok(below)
}

/// Names and texts.
fn policies(domain: &TrustDomain) -> [(&'static str, String); 3] {
    let object = |kind: &str, name: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata:\n  name: {name}\n  namespace: shop\n{spec}"
        )
    };
    let strict = object(
        "PeerAuthentication",
        "strict",
        "spec:\n  mtls:\n    mode: STRICT\n",
    );
    let deny = object("AuthorizationPolicy", "deny-all", "spec: {}\n");
    let allow = format!(
        "spec:\n  selector:\n    matchLabels:\n      app: backend\n  action: ALLOW\n  rules:\n  - from:\n    - source:\n        \
         principals: [{domain}/ns/shop/sa/frontend]\n    to:\n    - operation:\n        methods: [GET]\n        \
         paths: [/api/v1/*]\n"
    );
    let allow = object("AuthorizationPolicy", "backend-allow-frontend", &allow);
    [("strict.yaml", strict), ("deny-all.yaml", deny), (ALLOW, allow)]
}

#[cfg(test)]
mod tests {
    use signet_policy::document::{Content, read_text};

    use super::*;

    #[test]
    fn the_sample_is_well_written() {
        let names: Vec<String> = apps()
            .unwrap()
            .iter()
            .map(|app| app.account.to_string())
            .collect();
        assert_eq!(names, [CALLED, FRIEND, STRANGER]);
        for (name, text) in policies(&"dev.example".parse().unwrap()) {
            for reading in read_text(name, &text, None) {
                assert!(
                    matches!(reading.content, Content::Sound(_)),
                    "{name}: {reading:?}"
                );
            }
        }
    }
}
