//! `signet dev apply` and `signet dev delete`: policies into the cluster of a running system, and out of it, for
//! those who have no `kubectl`.

use http::header::CONTENT_TYPE;
use http::{Method, Request};
use serde::Serialize;
use serde_json::Value;
use signet_certs::UnixTime;
use signet_policy::model::{Kind, ObjectKey};

use crate::Shell;
use crate::args::{DevCommand, DevFilesArgs};
use crate::fault::{Answer, Fault};
use crate::kubernetes::{ask, client};
use crate::policy::check::Checked;
use crate::policy::documents::{Documents, Wanted};
use crate::print::{Page, View};

/// Whose fields these are (server-side apply).
const MANAGER: &str = "signet-dev";

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    /// `applied` or `deleted`.
    pub what: &'static str,
    /// The objects, in the order of the files.
    pub objects: Vec<String>,
}

impl View for Done {
    fn page(&self, page: &mut Page, _now: UnixTime) {
        for object in &self.objects {
            page.line(format!("{object} {}", self.what));
        }
    }
}

pub(crate) async fn run(command: DevCommand, shell: &mut Shell) -> Result<Answer, Fault> {
    let (args, what) = match &command {
        DevCommand::Apply(args) => (args, "applied"),
        DevCommand::Delete(args) => (args, "deleted"),
    };
    let kubeconfig = args.dir.join("kubeconfig");
    if !kubeconfig.is_file() {
        return Err(Fault::Unanswered(format!(
            "{} has no kubeconfig; is this the --dir of a running `signet dev`?",
            args.dir.display()
        )));
    }
    let documents = read(args).await?;
    let checked = Checked::of(&documents, Vec::new());
    // What cannot be enforced may well be deleted.
    if what == "applied" && !checked.sound {
        shell.show(&checked)?;
        return Ok(Answer::No);
    }
    let client = client(Some(&kubeconfig)).await?;
    let mut objects = Vec::new();
    for (key, value) in documents.objects() {
        let named = key.to_string();
        let request = request(&command, &key, &value)?;
        ask(&named, client.request::<Value>(request)).await?;
        objects.push(named);
    }
    shell.show(&Done { what, objects })?;
    Ok(Answer::Yes)
}

async fn read(args: &DevFilesArgs) -> Result<Documents, Fault> {
    let wanted = Wanted {
        paths: &args.paths,
        kubeconfig: None,
        namespace: None,
    };
    let documents = Documents::read(wanted).await?;
    match documents.others.first() {
        Some(other) => Err(Fault::Unanswered(format!(
            "{}: this is no policy, and only policies are taken; for all else there is `kubectl --kubeconfig {}`",
            other.place,
            args.dir.join("kubeconfig").display()
        ))),
        None => Ok(documents),
    }
}

fn request(command: &DevCommand, key: &ObjectKey, object: &Value) -> Result<Request<Vec<u8>>, Fault> {
    let plural = match key.kind {
        Kind::AuthorizationPolicy => "authorizationpolicies",
        Kind::PeerAuthentication => "peerauthentications",
        Kind::RequestAuthentication => "requestauthentications",
    };
    let version = object
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let path = format!(
        "/apis/{version}/namespaces/{}/{plural}/{}",
        key.namespace, key.name
    );
    let request = match command {
        DevCommand::Apply(_) => Request::builder()
            .method(Method::PATCH)
            .uri(format!("{path}?fieldManager={MANAGER}&force=true"))
            .header(CONTENT_TYPE, "application/apply-patch+yaml")
            .body(serde_json::to_vec(object).map_err(Fault::unanswered)?),
        DevCommand::Delete(_) => Request::delete(path).body(Vec::new()),
    };
    request.map_err(Fault::unanswered)
}
