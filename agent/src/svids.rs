//! What is served now: one SVID per identity in use on this node, and the trust bundles beside them.
//!
//! [`verified`] joins an SVID to the bundle it verified under; [`trust`] holds the bundles; [`shelves`]
//! is where the keeper, the only writer, puts both; [`view`] is what one workload may see of it.

pub mod shelves;
pub mod trust;
pub mod verified;
pub mod view;

pub use shelves::{Keeping, Shelves, Shown, Whose};
pub use trust::Trust;
pub use verified::Verified;
pub use view::{Held, Seen, View};
