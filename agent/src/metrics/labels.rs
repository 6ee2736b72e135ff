//! The labels of the metrics: each one fixed word out of a few.

use prometheus_client::encoding::EncodeLabelSet;

/// What came of it, as a fixed word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    /// The word.
    pub outcome: &'static str,
}

/// Why it failed, as a fixed word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    /// The word.
    pub reason: &'static str,
}

/// Which kind of stream, as a fixed word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Kind {
    /// The word of a [`crate::sds::streams::StreamKind`].
    pub kind: &'static str,
}

/// How an identity in use on this node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityState {
    /// Its SVID is served.
    Served,
    /// There is no SVID to serve.
    Waiting,
    /// Its last workload left; its SVID is kept a little longer.
    Lingering,
    /// There are too many: it is not kept.
    NoRoom,
}

impl IdentityState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Served, Self::Waiting, Self::Lingering, Self::NoRoom];

    /// A short word that stays the same.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Waiting => "waiting",
            Self::Lingering => "lingering",
            Self::NoRoom => "no_room",
        }
    }
}

/// A state, as a fixed word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct InState {
    /// The word of an [`IdentityState`].
    pub state: &'static str,
}
