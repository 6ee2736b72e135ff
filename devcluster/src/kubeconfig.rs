//! The file that tells `kubectl` and every Kubernetes client where the cluster is.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A kubeconfig with one context, as YAML.
pub(crate) fn render(server: &str, ca_pem: &str, token: &str) -> String {
    let ca = STANDARD.encode(ca_pem);
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: signet-devcluster\n  cluster:\n    server: \"{server}\"\n    certificate-authority-data: \"{ca}\"\n\
         users:\n\
         - name: signet-devcluster\n  user:\n    token: \"{token}\"\n\
         contexts:\n\
         - name: signet-devcluster\n  context:\n    cluster: signet-devcluster\n    user: signet-devcluster\n\
         current-context: signet-devcluster\n"
    )
}

/// Writes `text` where only the owner can read it; a reader of `path` sees the old file or the whole new one.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut aside = std::ffi::OsString::from(".");
    aside.push(name);
    aside.push(format!(".{}", std::process::id()));
    let aside = directory.join(aside);
    let written = write_aside(&aside, text).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
        return written;
    }
    fs::File::open(directory)?.sync_all()
}

fn write_aside(aside: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
