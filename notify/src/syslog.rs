//! Syslog: one line a message (RFC 5424), over UDP (RFC 5426) or TCP with octet counting (RFC 6587 §3.4.1).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;

use weir_model::{DeliveryId, Millis, Outcome};

use crate::brief::Severity;
use crate::config::Channel;
use crate::desk::Reply;

/// Facility local0.
const FACILITY: u8 = 16;

/// Longest line, octets: what receivers take over UDP without fragments of more than they expect.
const LINE_MAX: usize = 8192;

/// How long a try may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A line and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// To report its reply under.
    pub id: DeliveryId,
    /// Its channel.
    pub channel: String,
    server: String,
    tcp: bool,
    line: String,
}

impl Line {
    pub(crate) fn new(
        id: DeliveryId,
        channel: &Channel,
        parts: &BTreeMap<String, String>,
        severity: Severity,
        now: Millis,
    ) -> Result<Self, String> {
        let value = |name: &str| channel.own.values.get(name).map_or("", String::as_str);
        let tcp = match value("protocol") {
            "udp" => false,
            "tcp" => true,
            other => return Err(format!("values.protocol: {other:?} is neither udp nor tcp")),
        };
        let level = match severity {
            Severity::Critical => 2,
            Severity::Error => 3,
            Severity::Warning => 4,
            Severity::Info => 6,
        };
        let text = parts.get("text").map_or("", String::as_str);
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut line = format!("<{}>1 {now} - weir - {id} - {text}", FACILITY * 8 + level);
        while line.len() > LINE_MAX {
            line.pop();
        }
        let (channel, server) = (channel.config.name.clone(), value("server").to_owned());
        Ok(Self { id, channel, server, tcp, line })
    }

    /// Sends the line; blocks.
    pub fn send(&self) -> Reply {
        match self.try_send() {
            // Nothing comes back by these ways: taken means that the network took it.
            Ok(()) => Outcome::Status(200).into(),
            Err(error) => Outcome::Failed(error.to_string()).into(),
        }
    }

    fn try_send(&self) -> std::io::Result<()> {
        let missing = || std::io::Error::other("the server's name has no address");
        let to = self.server.to_socket_addrs()?.next().ok_or_else(missing)?;
        if self.tcp {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.write_all(format!("{} {}", self.line.len(), self.line).as_bytes())?;
            return stream.shutdown(std::net::Shutdown::Write);
        }
        let own = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        UdpSocket::bind(own)?.send_to(self.line.as_bytes(), to).map(drop)
    }
}
