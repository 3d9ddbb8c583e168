//! Reading nftables from the kernel without starting a program: a dump costs tens of microseconds where
//! `nft -j list` costs five milliseconds, and that every second.
//!
//! Only reading: changes go through nft, one transaction each.

mod attr;
mod dump;
mod watch;

use std::io;

use ring::rand::{SecureRandom as _, SystemRandom};

pub use dump::{Element, Netlink};
pub use watch::{Change, Watch};

/// Octets of one receive: the kernel fills at most 32 KiB a dump message batch.
const RECEIVE: usize = 64 * 1024;

/// How the name of the chain begins that marks an own transaction.
const MARK: &str = "by_";

/// A mark for the transactions of one program: random, so that two agents do not take each other's for their own.
///
/// # Errors
/// When there is no randomness.
pub fn mark() -> io::Result<String> {
    let mut octets = [0; 8];
    SystemRandom::new().fill(&mut octets).map_err(|_| io::Error::other("no randomness"))?;
    Ok(crate::protocol::hex(&octets))
}

/// What a transaction begins with so that it bears a mark. Nothing of it stays.
pub fn marked(table: &str, mark: &str) -> String {
    format!(
        "add table inet {table}\nadd chain inet {table} {MARK}{mark}\ndelete chain inet {table} {MARK}{mark}\n"
    )
}

/// The nftables family `inet`.
const NFPROTO_INET: u8 = 1;

/// Message types of nftables (uapi linux/netfilter/nf_tables.h), within subsystem 10.
mod message {
    const SUBSYSTEM: u16 = 10 << 8;
    pub(super) const NEW_TABLE: u16 = SUBSYSTEM;
    pub(super) const NEW_CHAIN: u16 = SUBSYSTEM | 3;
    pub(super) const GET_CHAIN: u16 = SUBSYSTEM | 4;
    pub(super) const NEW_SET: u16 = SUBSYSTEM | 9;
    pub(super) const GET_SET: u16 = SUBSYSTEM | 10;
    pub(super) const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
    pub(super) const GET_ELEMENT: u16 = SUBSYSTEM | 13;
    pub(super) const NEW_GENERATION: u16 = SUBSYSTEM | 15;
    pub(super) const GET_GENERATION: u16 = SUBSYSTEM | 16;
    pub(super) const NEW_OBJECT: u16 = SUBSYSTEM | 18;
    pub(super) const GET_OBJECT: u16 = SUBSYSTEM | 19;
    pub(super) const DEL_OBJECT: u16 = SUBSYSTEM | 20;
    /// Generic: a refusal or an acknowledgement.
    pub(super) const ERROR: u16 = 2;
    /// Generic: the end of a dump.
    pub(super) const DONE: u16 = 3;
}
