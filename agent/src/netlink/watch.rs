//! Word from the kernel that somebody changed nftables.
//!
//! The messages of one transaction are followed by one that ends it. Whose it was is told by its content: an own
//! transaction makes and removes a chain with a name of its own ([`super::mark`]). The process that the kernel
//! names is for people only: it is counted in the first PID namespace, and an agent in a container knows its
//! children by other numbers.

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The mark that it bears, if any.
    pub mark: Option<String>,
    /// The process that made it, as the first PID namespace counts.
    pub by: Option<u32>,
    /// Messages were lost: there may have been a change, and nobody knows whose.
    pub lost: bool,
}

/// A subscription to changes of one table.
#[derive(Debug)]
pub struct Watch {
    /// A netlink socket: tokio waits for any datagram socket alike, and this type needs no unsafe.
    socket: UnixDatagram,
    table: String,
    /// The transaction under way, as far as it has been read.
    open: Option<Change>,
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
        Ok(Self { socket, table: table.to_owned(), open: None })
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
                    if let Some(change) = read(&self.table, &mut self.open, datagram) {
                        return Ok(change);
                    }
                }
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    self.open = None;
                    return Ok(Change { lost: true, ..Change::default() });
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn read(table: &str, open: &mut Option<Change>, datagram: &[u8]) -> Option<Change> {
    const TABLE_NAME: u16 = 1;
    const CHAIN_NAME: u16 = 3;
    const PROCESS: u16 = 2;
    let mut done = None;
    for message in Messages(datagram) {
        let attributes = message.attributes();
        match message.kind {
            message::NEW_GENERATION => {
                let by = attributes.number32(PROCESS);
                done = open.take().map(|change| Change { by, ..change }).or(done);
            }
            // A counter that was read out is no change.
            message::NEW_OBJECT => (),
            kind if (message::NEW_TABLE..=message::DEL_OBJECT).contains(&kind) => {
                if attributes.text(TABLE_NAME) != Some(table) {
                    continue;
                }
                let change = open.get_or_insert_default();
                let chain = attributes.text(CHAIN_NAME).filter(|_| kind == message::NEW_CHAIN);
                if let Some(mark) = chain.and_then(|name| name.strip_prefix(super::MARK)) {
                    change.mark = Some(mark.to_owned());
                }
            }
            _ => (),
        }
    }
    done
}
