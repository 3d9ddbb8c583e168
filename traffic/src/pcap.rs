//! Captures: classic pcap with microseconds, little-endian, each UDP payload in an IP packet of its
//! own (link type 101, raw IP).

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use weir_model::Millis;

use crate::encode::{Put, checksum};

/// Link type of packets that begin with the IP header.
pub const LINKTYPE_RAW: u32 = 101;

/// Writes a capture.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    packet: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a capture of raw IP packets.
    ///
    /// # Errors
    /// What the underlying writer says.
    pub fn new(out: W) -> io::Result<Self> {
        Self::with_link_type(out, LINKTYPE_RAW)
    }

    /// Begins a capture of another link type.
    ///
    /// # Errors
    /// What the underlying writer says.
    pub fn with_link_type(mut out: W, link_type: u32) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
        header.extend_from_slice(&2u16.to_le_bytes());
        header.extend_from_slice(&4u16.to_le_bytes());
        header.extend_from_slice(&[0; 8]); // time zone and accuracy: by custom 0
        header.extend_from_slice(&65_535u32.to_le_bytes());
        header.extend_from_slice(&link_type.to_le_bytes());
        out.write_all(&header)?;
        Ok(Self { out, packet: Vec::new() })
    }

    /// A UDP datagram captured `us` microseconds after `epoch`.
    ///
    /// # Errors
    /// What the underlying writer says; addresses of two families are invalid input.
    pub fn datagram(
        &mut self,
        epoch: Millis,
        us: u64,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
    ) -> io::Result<()> {
        let mut packet = std::mem::take(&mut self.packet);
        packet.clear();
        encapsulate(&mut packet, from, to, payload)?;
        let result = self.frame(epoch, us, &packet);
        self.packet = packet;
        result
    }

    /// A frame of the capture's link type, whole.
    ///
    /// # Errors
    /// What the underlying writer says.
    pub fn frame(&mut self, epoch: Millis, us: u64, frame: &[u8]) -> io::Result<()> {
        let at_us = epoch.0.saturating_mul(1000).saturating_add(us);
        let secs = u32::try_from(at_us / 1_000_000).unwrap_or(u32::MAX);
        let rest = u32::try_from(at_us % 1_000_000).unwrap_or(0);
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        for word in [secs, rest, len, len] {
            self.out.write_all(&word.to_le_bytes())?;
        }
        self.out.write_all(frame)
    }

    /// Flushes and gives the writer back.
    ///
    /// # Errors
    /// What the underlying writer says.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// An IP packet around a UDP payload, both checksums right.
fn encapsulate(
    out: &mut Vec<u8>,
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
) -> io::Result<()> {
    let invalid = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
    let udp_len = u16::try_from(payload.len() + 8).map_err(|_| invalid("payload too long"))?;
    match (from.ip(), to.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            out.put8(0x45);
            out.put8(0);
            let total = udp_len.checked_add(20).ok_or_else(|| invalid("payload too long"))?;
            out.put16(total);
            out.put32(0x0000_4000); // identification 0, don't fragment
            out.put8(64);
            out.put8(17);
            out.put16(0);
        }
        (IpAddr::V6(_), IpAddr::V6(_)) => {
            out.put32(0x6000_0000);
            out.put16(udp_len);
            out.put8(17);
            out.put8(64);
        }
        _ => return Err(invalid("addresses of two families")),
    }
    let addresses = out.len();
    out.put_ip(from.ip());
    out.put_ip(to.ip());
    let udp = out.len();
    if from.is_ipv4() {
        let sum = checksum(&[&out[..udp]]);
        out.patch16(10, usize::from(sum));
    }
    out.put16(from.port());
    out.put16(to.port());
    out.put16(udp_len);
    out.put16(0);
    out.extend_from_slice(payload);
    let pseudo = [0, 17, udp_len.to_be_bytes()[0], udp_len.to_be_bytes()[1]];
    let sum = checksum(&[&out[addresses..udp], &pseudo, &out[udp..]]);
    // A sum of zero is sent as all ones (RFC 768).
    out.patch16(udp + 6, usize::from(if sum == 0 { u16::MAX } else { sum }));
    Ok(())
}
