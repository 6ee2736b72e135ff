//! RequestAuthentications that cannot be read, and have no good version.

use super::*;

/// One that guards headers and has places of its own; `misspelt` stands for `issuer`.
fn object(misspelt: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: r, namespace: n}}\nspec:\n  \
         jwtRules:\n  - {misspelt}: https://a.test\n    jwks: '{}'\n    fromHeaders: [{{name: x-t, prefix: 'T '}}]\n    \
         fromParams: [t]\n    fromCookies: [t]\n    outputPayloadToHeader: x-payload\n    \
         outputClaimToHeaders: [{{header: X-User, claim: sub}}]\n",
        A.jwks()
    )
}

#[tokio::test]
async fn the_headers_it_names_are_not_the_clients_to_set() {
    let forged = [("x-user", "admin"), ("x-payload", "e30"), ("other", "o")];
    for word in ["issuer", "isuer"] {
        let kept = forwarded(&in_force(&object(word)), &get("/", &forged)).await;
        assert_eq!(kept.len(), 1, "{word}: {kept:?}");
        assert_eq!(kept["other"], "o");
    }
}

#[tokio::test]
async fn a_token_where_it_looks_is_refused() {
    let faulty = in_force(&object("isuer"));
    let token = A.token(ALICE);
    let (header, cookie) = (format!("T {token}"), format!("a=b; t={token}"));
    for (request, expected) in [
        (get("/", &[("x-t", &header)]), "faulty_policy"),
        (get("/", &[("x-t", &token)]), "nobody"),
        (get(&format!("/?t={token}"), &[]), "faulty_policy"),
        (get("/", &[("cookie", &cookie)]), "faulty_policy"),
        (get("/", &[("authorization", "Bearer x")]), "faulty_policy"),
        (get("/?access_token=x", &[]), "faulty_policy"),
        (get("/?u=x", &[("cookie", "u=x")]), "nobody"),
    ] {
        assert_eq!(who(&faulty, &request).await, expected, "{request:?}");
    }
    assert_eq!(
        who(&in_force(&object("issuer")), &get("/", &[("x-t", &header)])).await,
        IS_ALICE
    );
}
