//! HTTP through the proxy: a client's bytes on one side, a real server on the other.

mod abuse;
mod crowded;
mod forwarding;
mod http2;
mod http2_upstreams;
mod judged;
mod parked;
mod paths;
pub(crate) mod site;
mod slow;
mod smuggling;
mod time;
mod trust;
mod unwanted;
mod upgrades;
mod upstreams;
mod withdrawn;
