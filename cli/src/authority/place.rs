//! Where a CA keeps its state: a directory, or a Secret. The layout is the CA's.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use signet_runtime::files::{SECRET_MODE, read_bounded, write_atomic};
use signet_runtime::socket::private_directory;
use zeroize::Zeroizing;

use super::backup::MAX_STATE_BYTES;
use crate::args::StateArgs;
use crate::fault::Fault;
use crate::kubernetes;

const STATE_FILE: &str = "state.json";
const LOCK_FILE: &str = "state.lock";
const DATA_KEY: &str = "state.json";
const SECRET_TYPE: &str = "signet.io/ca-state";

/// A directory or a Secret.
#[derive(Clone, Debug)]
pub enum Place {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A Secret of a cluster.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its cluster; nothing for the one this runs in.
        kubeconfig: Option<PathBuf>,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => write!(f, "{}", directory.join(STATE_FILE).display()),
            Self::Secret { namespace, name, .. } => write!(f, "secret {namespace}/{name}"),
        }
    }
}

impl Place {
    /// The place an operator names.
    ///
    /// # Errors
    /// [`Fault::Unanswered`] when it is named in no known form.
    pub fn named(args: &StateArgs) -> Result<Self, Fault> {
        match (&args.state_directory, &args.secret) {
            (Some(directory), _) => Ok(Self::Directory(directory.clone())),
            (None, Some(secret)) => {
                let parts = secret
                    .split_once('/')
                    .filter(|(ns, name)| !ns.is_empty() && !name.is_empty());
                let (namespace, name) = parts
                    .ok_or_else(|| Fault::Unanswered(format!("--secret {secret:?} is not NAMESPACE/NAME")))?;
                let kubeconfig = args.kubeconfig.clone();
                Ok(Self::Secret {
                    namespace: namespace.into(),
                    name: name.into(),
                    kubeconfig,
                })
            }
            (None, None) => Err(Fault::unanswered("name --state-directory or --secret")),
        }
    }

    /// The state there, if there is any.
    ///
    /// # Errors
    /// [`Fault::Unanswered`] when the place cannot be read.
    pub async fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        match self {
            Self::Directory(directory) => match read_bounded(&directory.join(STATE_FILE), MAX_STATE_BYTES) {
                Ok(json) => Ok(Some(json)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(Fault::unanswered(e)),
            },
            Self::Secret { .. } => {
                let Some(secret) = self.secret().await? else {
                    return Ok(None);
                };
                let mut data = secret.data.unwrap_or_default();
                let json = data.remove(DATA_KEY).map(|ByteString(json)| Zeroizing::new(json));
                json.map(Some)
                    .ok_or_else(|| Fault::Unanswered(format!("{self} has no key {DATA_KEY}")))
            }
        }
    }

    /// Puts `json` there. Without `replace`, only where there is none.
    ///
    /// # Errors
    /// [`Fault::Unanswered`]; what was there is untouched.
    pub async fn write(&self, json: &[u8], replace: bool) -> Result<(), Fault> {
        match self {
            Self::Directory(directory) => write_file(directory, json, replace),
            Self::Secret { .. } => self.write_secret(json, replace).await,
        }
    }

    async fn secret(&self) -> Result<Option<Secret>, Fault> {
        let Self::Secret { name, .. } = self else {
            return Ok(None);
        };
        let api = self.api().await?;
        kubernetes::ask(&self.to_string(), api.get_opt(name)).await
    }

    async fn write_secret(&self, json: &[u8], replace: bool) -> Result<(), Fault> {
        let Self::Secret { namespace, name, .. } = self else {
            return Ok(());
        };
        let found = if replace { self.secret().await? } else { None };
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                // The version read: a CA that writes in between wins, and this says so.
                resource_version: found.as_ref().and_then(|s| s.metadata.resource_version.clone()),
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/managed-by".into(),
                    "signet".into(),
                )])),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.into()),
            data: Some(BTreeMap::from([(DATA_KEY.into(), ByteString(json.to_vec()))])),
            ..Secret::default()
        };
        let (api, params) = (self.api().await?, PostParams::default());
        match found {
            Some(_) => kubernetes::ask(&self.to_string(), api.replace(name, &params, &secret)).await,
            None => kubernetes::ask(&self.to_string(), api.create(&params, &secret)).await,
        }
        .map(drop)
    }

    async fn api(&self) -> Result<Api<Secret>, Fault> {
        let Self::Secret {
            namespace,
            kubeconfig,
            ..
        } = self
        else {
            return Err(Fault::unanswered("a directory has no API server"));
        };
        Ok(Api::namespaced(
            kubernetes::client(kubeconfig.as_deref()).await?,
            namespace,
        ))
    }
}

/// Under the lock a CA holds while it writes.
fn write_file(directory: &Path, json: &[u8], replace: bool) -> Result<(), Fault> {
    private_directory(directory)?;
    let path = directory.join(STATE_FILE);
    let lock = lock(&directory.join(LOCK_FILE))?;
    if !replace && path.exists() {
        return Err(Fault::Unanswered(format!(
            "{} has appeared meanwhile; nothing was written",
            path.display()
        )));
    }
    write_atomic(&path, json, SECRET_MODE)?;
    drop(lock);
    Ok(())
}

fn lock(path: &Path) -> Result<File, Fault> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(SECRET_MODE)
        .open(path);
    let busy = || {
        Fault::Unanswered(format!(
            "{} is held by another process; try again",
            path.display()
        ))
    };
    let file = file.map_err(|e| Fault::Unanswered(format!("open {}: {e}", path.display())))?;
    file.try_lock().map_err(|_| busy())?;
    Ok(file)
}
