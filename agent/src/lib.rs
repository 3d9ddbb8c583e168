//! weir's node agent: the same matches that routers get, applied where the packets land.
//!
//! It dials the appliance, takes signed snapshots of what is wanted ([`protocol`]), puts them in force with
//! nftables before conntrack and NAT ([`enforcer`]), and reports what it sees. The kernel holds the leases: a
//! dead agent or appliance leaves nothing behind. It never runs a command from the network and never touches
//! another program's table. Read [`rules::Rule`] and [`enforcer::Program`] first.

pub mod cli;
pub mod config;
pub mod contain;
pub mod controller;
pub mod daemon;
mod doctor;
pub mod enforcer;
pub mod eyes;
pub mod levels;
pub mod link;
pub mod mirror;
pub mod netlink;
pub mod protocol;
pub mod rules;
pub mod safety;
pub mod server;
