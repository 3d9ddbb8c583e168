//! What an alarm is made of: the excess over normal traffic by attack vector, the marks of forged or
//! reflected packets, and what of it the host answers.
//!
//! Stands on [`crate::watch`] and knows nothing of verdicts.

pub(crate) mod answers;
pub(crate) mod connections;
pub(crate) mod excused;
pub(crate) mod exhibit;
pub(crate) mod matching;
pub(crate) mod rates;
pub(crate) mod reach;
pub(crate) mod shape;
pub mod signature;
pub(crate) mod signs;
pub(crate) mod vectors;
