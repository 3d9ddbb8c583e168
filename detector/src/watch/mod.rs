//! What every protected host and prefix carries, and what is normal for it: slices come in, windows
//! are filled, baselines are learned, the present's packets are kept, and alarms go up.
//!
//! Nothing here knows of evidence or verdicts.

pub(crate) mod aside;
pub(crate) mod baseline;
pub(crate) mod calm;
pub(crate) mod cell;
pub(crate) mod cusum;
pub(crate) mod expected;
pub(crate) mod familiar;
pub(crate) mod foreknown;
pub(crate) mod hash;
pub(crate) mod host;
pub(crate) mod intake;
pub(crate) mod memory;
pub(crate) mod metric;
pub(crate) mod own;
pub(crate) mod packets;
pub(crate) mod pool;
pub(crate) mod prior;
pub(crate) mod rules;
pub(crate) mod season;
pub(crate) mod seconds;
pub(crate) mod series;
pub(crate) mod silent;
pub(crate) mod table;
pub(crate) mod totals;
pub(crate) mod two_way;
pub(crate) mod vanished;
pub(crate) mod wide;
pub(crate) mod window;
