//! Why a stream finds no place.

use tonic::Code;

use super::super::Closing;
use super::{MAX_STREAMS, MAX_STREAMS_PER_WORKLOAD};
use crate::workload_api::limits::Limit;

/// They are opened faster than they may be.
pub(super) fn too_often(limit: Limit) -> Closing {
    let (reason, whose) = match limit {
        Limit::One => ("too_often", "this workload"),
        Limit::All => ("too_busy", "the workloads of this node"),
    };
    Closing {
        code: Code::ResourceExhausted,
        reason,
        text: format!("{whose} open streams too often; try again in a second, and keep what is open"),
    }
}

/// There are as many as there may be.
pub(super) fn too_many() -> Closing {
    Closing {
        code: Code::ResourceExhausted,
        reason: "too_many_streams",
        text: format!(
            "too many streams: {MAX_STREAMS} in all and {MAX_STREAMS_PER_WORKLOAD} of one process or pod are served"
        ),
    }
}
