//! The mesh, as an operator describes it.

use signet_certs::UnixTime;
use signet_policy::Mesh;
use signet_policy::principal::LocalDomains;

use super::judge::Judge;
use crate::args::MeshArgs;

/// What the engine has to know.
#[must_use]
pub fn mesh(args: &MeshArgs) -> Mesh {
    Mesh {
        domains: LocalDomains::new(args.trust_domain.clone(), args.trust_domain_alias.iter().cloned()),
        root_namespace: args.root_namespace.clone(),
        providers: args.provider.iter().cloned().collect(),
    }
}

/// Somebody to be asked.
#[must_use]
pub fn judge<'a>(args: &'a MeshArgs, mesh: &'a Mesh, now: UnixTime) -> Judge<'a> {
    Judge {
        mesh,
        own: &args.trust_domain,
        normalization: args.path_normalization,
        now,
    }
}
