//! weir's BGP: announces FlowSpec rules and black-hole routes to routers, and nothing else.
//!
//! [`guard`], [`flowspec`], [`wire`], [`fsm`] and [`rib`] are pure: octets, events and `now` in,
//! octets and actions out. [`speaker`] drives them over TCP. It never installs a received route:
//! UPDATEs are counted and dropped. Read [`speaker::run`] and [`rib::AdjRibOut`] first.

pub mod adapter;
pub mod bfd;
pub mod config;
pub mod flowspec;
pub mod fsm;
pub mod guard;
pub mod profile;
pub mod reach;
pub mod receiver;
pub mod rib;
pub mod rpki;
pub mod speaker;
pub mod wire;
