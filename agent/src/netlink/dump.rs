//! Questions to nftables: chains, sets, elements, counters of one table.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::attr::{Attributes, HEADER, Messages, push_text};
use super::{NFPROTO_INET, RECEIVE, message};
use crate::enforcer::Count;

/// Longest that the kernel may take to answer, seconds.
const ANSWER_SECS: i64 = 2;

/// Most datagrams of one dump: 100,000 elements take about 400.
const DATAGRAMS_MAX: usize = 4096;

/// Flags of a request.
const REQUEST: u16 = 0x001;
const DUMP: u16 = 0x300;

/// One element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its key as the kernel has it: each part padded to four octets.
    pub key: Vec<u8>,
    /// Its counter, when the set counts.
    pub count: Count,
}

/// A connection to nftables in this network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens it. Needs no privilege; asking does (CAP_NET_ADMIN).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECS, 0))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; RECEIVE] })
    }

    /// Names of the chains of a table; empty when there is no such table.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn chains(&mut self, table: &str) -> io::Result<Vec<String>> {
        self.names(message::GET_CHAIN, message::NEW_CHAIN, 3, table)
    }

    /// Names of the sets and maps of a table; empty when there is no such table.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn sets(&mut self, table: &str) -> io::Result<Vec<String>> {
        let mut names = self.names(message::GET_SET, message::NEW_SET, 2, table)?;
        // Anonymous sets of rules.
        names.retain(|n| !n.starts_with("__"));
        Ok(names)
    }

    /// Named counters of a table.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counters(&mut self, table: &str) -> io::Result<Vec<(String, Count)>> {
        const NAME: u16 = 2;
        const DATA: u16 = 4;
        let mut found = Vec::new();
        self.dump(message::GET_OBJECT, &[(1, table)], |kind, attributes| {
            if kind != message::NEW_OBJECT || attributes.text(1) != Some(table) {
                return;
            }
            if let (Some(name), Some(data)) = (attributes.text(NAME), attributes.nested(DATA)) {
                found.push((name.to_owned(), count(data)));
            }
        })?;
        Ok(found)
    }

    /// Elements of a set with their counters; empty when there is no such set.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn elements(&mut self, table: &str, set: &str) -> io::Result<Vec<Element>> {
        const ELEMENTS: u16 = 3;
        let mut found = Vec::new();
        self.dump(message::GET_ELEMENT, &[(1, table), (2, set)], |kind, attributes| {
            if kind != message::NEW_ELEMENT {
                return;
            }
            let list = attributes.nested(ELEMENTS).into_iter().flatten();
            found.extend(list.filter_map(|(_, value)| element(Attributes(value))));
        })?;
        Ok(found)
    }

    /// How many transactions nftables has seen in this network namespace, of any table: equal numbers mean that
    /// nothing has changed in between.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn generation(&mut self) -> io::Result<u32> {
        const NUMBER: u16 = 1;
        let mut found = None;
        self.ask(message::GET_GENERATION, REQUEST, &[], |kind, attributes| {
            if kind == message::NEW_GENERATION {
                found = attributes.number32(NUMBER);
            }
        })?;
        found.ok_or_else(|| io::Error::other("no generation"))
    }

    fn names(
        &mut self,
        question: u16,
        answer: u16,
        name: u16,
        table: &str,
    ) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        self.dump(question, &[(1, table)], |kind, attributes| {
            if kind == answer && attributes.text(1) == Some(table) {
                names.extend(attributes.text(name).map(str::to_owned));
            }
        })?;
        Ok(names)
    }

    /// Sends one dump request and feeds each answer to `each`. That a table or set is absent is an empty
    /// answer, not an error.
    fn dump(
        &mut self,
        kind: u16,
        text: &[(u16, &str)],
        each: impl FnMut(u16, Attributes<'_>),
    ) -> io::Result<()> {
        self.ask(kind, REQUEST | DUMP, text, each)
    }

    /// Sends one request. What is no dump has one answer.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        text: &[(u16, &str)],
        mut each: impl FnMut(u16, Attributes<'_>),
    ) -> io::Result<()> {
        const ABSENT: i32 = -2;
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = vec![0; HEADER];
        for (kind, value) in text {
            push_text(&mut request, *kind, value);
        }
        let length = u32::try_from(request.len()).unwrap_or(u32::MAX);
        request[..4].copy_from_slice(&length.to_ne_bytes());
        request[4..6].copy_from_slice(&kind.to_ne_bytes());
        request[6..8].copy_from_slice(&flags.to_ne_bytes());
        request[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        request[16] = NFPROTO_INET;
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        for _ in 0..DATAGRAMS_MAX {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            for message in Messages(self.buffer.get(..length).unwrap_or_default()) {
                match message.kind {
                    message::DONE => return Ok(()),
                    message::ERROR => {
                        let code = message.body.get(..4).and_then(|b| b.try_into().ok());
                        return match code.map(i32::from_ne_bytes) {
                            Some(0 | ABSENT) | None => Ok(()),
                            Some(code) => Err(io::Error::from_raw_os_error(-code)),
                        };
                    }
                    kind => each(kind, message.attributes()),
                }
            }
            if flags & DUMP == 0 {
                return Ok(());
            }
        }
        Err(io::Error::other("the dump does not end"))
    }
}

fn element(attributes: Attributes<'_>) -> Option<Element> {
    const KEY: u16 = 1;
    const VALUE: u16 = 1;
    const EXPRESSION: u16 = 7;
    const EXPRESSIONS: u16 = 11;
    let key = attributes.nested(KEY)?.find(VALUE)?.to_vec();
    let expression = attributes
        .nested(EXPRESSION)
        .or_else(|| attributes.nested(EXPRESSIONS)?.next().map(|(_, first)| Attributes(first)));
    let count = expression
        .filter(|e| e.text(1) == Some("counter"))
        .and_then(|e| e.nested(2))
        .map(count)
        .unwrap_or_default();
    Some(Element { key, count })
}

fn count(data: Attributes<'_>) -> Count {
    Count {
        bytes: data.number64(1).unwrap_or_default(),
        packets: data.number64(2).unwrap_or_default(),
    }
}
