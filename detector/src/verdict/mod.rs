//! What is said of an alarm: how sure weir is, which matches cut the attack and spare the rest, and the
//! incident from its opening to its end.
//!
//! Stands on [`crate::watch`] and [`crate::evidence`].

pub mod confidence;
pub(crate) mod follow;
pub(crate) mod hold;
pub(crate) mod incident;
pub(crate) mod judge;
pub(crate) mod look;
pub(crate) mod summary;
pub(crate) mod synthesis;
