//! HTTP through the proxy: a client's bytes on one side, a real server on the other.

mod abuse;
mod forwarding;
mod http2;
mod judged;
mod paths;
mod site;
mod smuggling;
mod time;
mod upgrades;
mod upstreams;
