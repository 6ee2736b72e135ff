//! A real API server, and signet installed in it from `deploy/`.
//!
//! | module | what it gives |
//! |---|---|
//! | [`manifests`] | the files of `deploy/` as values, in the order of their kustomization |
//! | [`api_server`] | kube-apiserver and etcd, started once for all tests that run together |
//! | [`install`] | the deployed accounts and roles under names of a test's own, and a CA that has no more rights |
//! | [`skips`] | tests that run elsewhere, and what an old server cannot know |

pub mod api_server;
pub mod install;
pub mod manifests;
pub mod skips;
