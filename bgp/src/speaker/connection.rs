//! One TCP connection: octets in and out, bounded, never waited for.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, Ready};
use tokio::net::TcpStream;
use weir_model::{Millis, Observed};

use crate::wire::{Framer, Message, Notification};

/// Octets queued above which no further route is written. KEEPALIVEs queue behind at most this.
const QUEUE_MAX: usize = 64 * 1024;

/// Octets read at once.
const READ: usize = 16 * 1024;

/// How long a closing connection is given to take its last words.
const LINGER: Duration = Duration::from_secs(2);

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    framer: Framer,
    queue: VecDeque<u8>,
    queued: u64,
    written: u64,
    /// Reports that become true once so many octets are written.
    reports: VecDeque<(u64, Observed)>,
    /// Octets are queued and none has gone since.
    stalled_since: Option<Millis>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        // Small messages that must not wait for each other; without it they only go slower.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            framer: Framer::default(),
            queue: VecDeque::new(),
            queued: 0,
            written: 0,
            reports: VecDeque::new(),
            stalled_since: None,
        }
    }

    /// Waits until there is something to read or room to write.
    pub(super) async fn ready(&self) -> io::Result<Ready> {
        let interest = if self.queue.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        self.stream.ready(interest).await
    }

    pub(super) fn send(&mut self, now: Millis, octets: &[u8]) {
        self.queue.extend(octets);
        self.queued += octets.len() as u64;
        self.stalled_since.get_or_insert(now);
    }

    /// Remembers a report for when everything queued so far is written.
    pub(super) fn report_when_written(&mut self, report: Observed) {
        self.reports.push_back((self.queued, report));
    }

    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < QUEUE_MAX
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.queue.is_empty()
    }

    /// Since when nothing could be written, if so.
    pub(super) const fn stalled_since(&self) -> Option<Millis> {
        self.stalled_since
    }

    /// Writes what the socket takes; appends the reports that became true.
    pub(super) fn write(
        &mut self,
        now: Millis,
        reports: &mut VecDeque<Observed>,
    ) -> io::Result<()> {
        while !self.queue.is_empty() {
            match self.stream.try_write(self.queue.as_slices().0) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.queue.drain(..n);
                    self.written += n as u64;
                    self.stalled_since = Some(now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.queue.is_empty() {
            self.stalled_since = None;
        }
        while self.reports.front().is_some_and(|(at, _)| *at <= self.written) {
            reports.extend(self.reports.pop_front().map(|(_, report)| report));
        }
        Ok(())
    }

    /// Reads what is there. `Ok(false)` at the end of the stream.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        let mut octets = [0; READ];
        match self.stream.try_read(&mut octets) {
            Ok(0) => Ok(false),
            Ok(n) => {
                self.framer.push(&octets[..n]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(super) fn next_message(&mut self) -> Result<Option<Message>, Notification> {
        self.framer.next_message()
    }

    /// Writes the last words and waits for the peer to hang up: a connection dropped with octets
    /// unread resets, and the NOTIFICATION is lost on the way.
    pub(super) async fn linger(mut self) {
        let farewell = async {
            let (head, tail) = self.queue.as_slices();
            self.stream.write_all(head).await?;
            self.stream.write_all(tail).await?;
            self.stream.shutdown().await?;
            let mut sink = [0; READ];
            while self.stream.read(&mut sink).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }
}
