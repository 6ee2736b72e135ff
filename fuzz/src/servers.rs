//! What the servers parse: tokens, configuration, stored state, discovery requests.

use std::time::Duration;

use signet_ca::authn::BearerToken;
use signet_ca::authn::claims;
use signet_ca::config::Config as CaConfig;
use signet_ca::state::CaState;
use signet_certs::{TrustDomain, UnixTime};
use signet_runtime::config::{HumanDuration, from_text};

/// A service-account token. What passes the check is for one of the audiences, and not over.
pub fn token_claims(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let token = BearerToken::new(text);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let accepted = ["signet-ca".to_owned()];
    match claims::check(&token, &accepted, now) {
        Ok(claims) => {
            assert!(claims.audiences.contains(&accepted[0]));
            assert!(claims.expires.as_secs() + 60 > now.as_secs());
            assert_eq!(claims::read(&token), Ok(claims));
        }
        // A refusal is short enough for a log line, whatever was sent.
        Err(fault) => assert!(fault.to_string().len() < 8 * 1024),
    }
}

/// The CA's configuration file. What is accepted prints as a configuration that is accepted, and alike.
pub fn ca_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(config) = from_text(text).and_then(CaConfig::check) else {
        return;
    };
    let printed = config.print();
    match from_text(&printed).and_then(CaConfig::check) {
        Ok(again) => assert_eq!(again.print(), printed),
        Err(faults) => panic!("{printed}\nis refused: {faults}"),
    }
}

/// The CA's stored state. What is read is written as it was.
pub fn ca_state(data: &[u8]) {
    let Ok(domain) = "cluster.local".parse::<TrustDomain>() else {
        return;
    };
    let Ok(state) = CaState::parse(data, &domain) else {
        return;
    };
    match CaState::parse(&state.expose_json(), &domain) {
        Ok(again) => assert!(again.same(&state)),
        Err(fault) => panic!("{fault}"),
    }
}

/// A duration as people write it.
pub fn duration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(duration) = text.parse::<HumanDuration>() {
        assert_eq!(duration.to_string().parse(), Ok(duration));
    }
}
