//! The API server's word on a token, judged as the CA judges it.

use std::path::Path;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::{Api, PostParams};
use signet_certs::account_token::USER_PREFIX;

use super::verdict::{Finding, Judge, Verdict};
use crate::fault::Fault;
use crate::kubernetes;

/// The group every service account is in.
const ALL_ACCOUNTS: &str = "system:serviceaccounts";

/// Asks the API server of `kubeconfig`.
///
/// # Errors
/// [`Fault::Unanswered`] when it cannot be asked.
pub async fn ask(token: &str, audience: &str, kubeconfig: &Path, verdict: Verdict) -> Result<Verdict, Fault> {
    let client = kubernetes::client(Some(kubeconfig)).await?;
    let review = TokenReview {
        spec: TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![audience.to_owned()]),
        },
        ..TokenReview::default()
    };
    let api: Api<TokenReview> = Api::all(client);
    let params = PostParams::default();
    let answer = kubernetes::ask("token review", api.create(&params, &review)).await?;
    let status = answer
        .status
        .ok_or_else(|| Fault::unanswered("token review: the API server answered without a status"))?;
    Ok(match judge(&status, audience) {
        Some(finding) => verdict.refused(Judge::ApiServer, finding),
        None => verdict.accepted(),
    })
}

/// What ends it, or nothing.
fn judge(status: &TokenReviewStatus, audience: &str) -> Option<Finding> {
    if status.authenticated != Some(true) {
        let error = status.error.as_deref().unwrap_or("without a reason");
        return Some(Finding::review(error, audience));
    }
    let user = status.user.clone().unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let by_group = user.groups.iter().flatten().any(|group| group == ALL_ACCOUNTS);
    if !name.starts_with(USER_PREFIX) || !by_group {
        return Some(Finding::not_account(&name));
    }
    let confirmed = status
        .audiences
        .iter()
        .flatten()
        .any(|confirmed| confirmed == audience);
    (!confirmed).then(|| Finding::review_audiences(audience))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;

    fn status(username: &str, groups: &[&str], audiences: &[&str]) -> TokenReviewStatus {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(owned(audiences)),
            user: Some(UserInfo {
                username: Some(username.into()),
                groups: Some(owned(groups)),
                ..UserInfo::default()
            }),
            ..TokenReviewStatus::default()
        }
    }

    fn reason(status: &TokenReviewStatus) -> Option<String> {
        judge(status, "signet-ca").map(|finding| finding.reason)
    }

    #[test]
    fn a_service_account_passes_by_name_group_and_audience_together() {
        let account = "system:serviceaccount:billing:api";
        assert_eq!(reason(&status(account, &[ALL_ACCOUNTS], &["signet-ca"])), None);
        assert_eq!(
            reason(&status(account, &[], &["signet-ca"])).as_deref(),
            Some("token_subject")
        );
        assert_eq!(
            reason(&status("jane", &[ALL_ACCOUNTS], &["signet-ca"])).as_deref(),
            Some("token_subject")
        );
        assert_eq!(
            reason(&status(account, &[ALL_ACCOUNTS], &[])).as_deref(),
            Some("review_audiences")
        );
        assert_eq!(
            reason(&TokenReviewStatus::default()).as_deref(),
            Some("review_refused")
        );
    }
}
