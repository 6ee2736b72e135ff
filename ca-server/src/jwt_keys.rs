//! The JWT authorities of our trust domain, each in one of three phases: prepared (published, does not
//! sign yet), active (signs), old (does not sign any more, still published for the tokens it signed).

use std::sync::Arc;

use signet_certs::{JwtAuthority, JwtKey, UnixTime};

/// Most keys kept at once: a rotation needs three, an operator's file some more.
pub const MAX_KEYS: usize = 16;

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In the bundle, so that everyone knows it before it signs.
    Prepared,
    /// Signs.
    Active {
        /// Since when.
        since: UnixTime,
    },
    /// Signs no more; in the bundle until its last token is over.
    Old {
        /// Until when.
        until: UnixTime,
    },
}

impl Phase {
    /// A stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Active { .. } => "active",
            Self::Old { .. } => "old",
        }
    }
}

/// One authority.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The public half, as published.
    pub key: JwtKey,
    /// The private half of a key of ours that signs or will. An operator's stays in its file, and an old
    /// key of ours is forgotten.
    pub own: Option<Arc<JwtAuthority>>,
    /// Since when it is in the bundle.
    pub published_at: UnixTime,
    /// Where it stands.
    pub phase: Phase,
}

impl Entry {
    fn same(&self, other: &Self) -> bool {
        self.key == other.key
            && self.published_at == other.published_at
            && self.phase == other.phase
            && self.own.is_some() == other.own.is_some()
    }
}

/// All of them, in the order in which they were published.
#[derive(Clone, Debug, Default)]
pub struct JwtKeys(pub Vec<Entry>);

impl JwtKeys {
    /// Those that the bundle holds: all.
    #[must_use]
    pub fn published(&self) -> Vec<JwtKey> {
        self.0.iter().map(|entry| entry.key.clone()).collect()
    }

    /// The one that signs.
    #[must_use]
    pub fn active(&self) -> Option<&Entry> {
        self.0
            .iter()
            .find(|entry| matches!(entry.phase, Phase::Active { .. }))
    }

    /// Whether both say the same.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(one, two)| one.same(two))
    }
}
