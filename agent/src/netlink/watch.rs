//! Word from the kernel that somebody changed nftables.
//!
//! The messages of one transaction are followed by one that names the process behind it, so weir's own changes
//! can be told from others'.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};
use tokio::net::UnixDatagram;

use super::attr::Messages;
use super::{RECEIVE, message};

/// Multicast group 7, NFNLGRP_NFTABLES.
const GROUP_NFTABLES: u32 = 1 << 6;

/// A transaction that touched the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The process that made it; `None` when messages were lost and nobody knows.
    pub by: Option<u32>,
}

/// A subscription to changes of one table.
#[derive(Debug)]
pub struct Watch {
    /// A netlink socket: tokio waits for any datagram socket alike, and this type needs no unsafe.
    socket: UnixDatagram,
    table: String,
    touched: bool,
}

impl Watch {
    /// Subscribes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(table: &str) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP_NFTABLES))?;
        let socket = UnixDatagram::from_std(std::os::unix::net::UnixDatagram::from(socket))?;
        Ok(Self { socket, table: table.to_owned(), touched: false })
    }

    /// Waits for the next transaction that touches the table.
    ///
    /// # Errors
    /// What the kernel says; lost messages are a change by nobody, not an error.
    pub async fn next(&mut self) -> io::Result<Change> {
        let mut buffer = vec![0; RECEIVE];
        loop {
            match self.socket.recv(&mut buffer).await {
                Ok(length) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    if let Some(change) = read(&self.table, &mut self.touched, datagram) {
                        return Ok(change);
                    }
                }
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    self.touched = false;
                    return Ok(Change { by: None });
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn read(table: &str, touched: &mut bool, datagram: &[u8]) -> Option<Change> {
    const TABLE_NAME: u16 = 1;
    const PROCESS: u16 = 2;
    let mut change = None;
    for message in Messages(datagram) {
        match message.kind {
            message::NEW_GENERATION => {
                let by = message.attributes().number32(PROCESS);
                change = std::mem::take(touched).then_some(Change { by }).or(change);
            }
            // A counter that was read out is no change.
            message::NEW_OBJECT => (),
            kind if (message::NEW_TABLE..=message::DEL_OBJECT).contains(&kind) => {
                *touched |= message.attributes().text(TABLE_NAME) == Some(table);
            }
            _ => (),
        }
    }
    change
}
