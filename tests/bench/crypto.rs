//! The limit that no CA passes: one P-256 verification (the CSR) and one signature (the leaf), measured
//! in this run on this machine.

use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};

use crate::process::thread_cpu;

/// CPU time of the two operations.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// One verification.
    pub(crate) verify: Duration,
    /// One signature.
    pub(crate) sign: Duration,
}

impl Limit {
    /// Half-way between two measurements, since a machine's speed drifts.
    pub(crate) fn mean(self, other: Self) -> Self {
        Self {
            verify: (self.verify + other.verify) / 2,
            sign: (self.sign + other.sign) / 2,
        }
    }

    /// Certificates per second of one core, were there nothing else to do.
    pub(crate) fn per_second(self) -> f64 {
        1.0 / (self.verify + self.sign).as_secs_f64()
    }
}

/// The median of nine rounds, in CPU time of this thread.
pub(crate) fn measure() -> Limit {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).expect("a key");
    // As long as the signed part of a CSR.
    let message = [7u8; 200];
    let signature = key.sign(&random, &message).expect("a signature");
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key().as_ref().to_vec());
    Limit {
        verify: per_round(&|| public.verify(&message, signature.as_ref()).expect("verifies")),
        sign: per_round(&|| {
            let _ = key.sign(&random, &message).expect("a signature");
        }),
    }
}

/// CPU time of one operation: the median of nine rounds.
pub(crate) fn per_round(operation: &dyn Fn()) -> Duration {
    let mut rounds: Vec<Duration> = (0..9)
        .map(|_| {
            let start = thread_cpu();
            (0..400).for_each(|_| operation());
            (thread_cpu() - start) / 400
        })
        .collect();
    rounds.sort();
    rounds[rounds.len() / 2]
}
