//! Packets as an attacker makes them: any source, any shape.

use std::net::IpAddr;

/// A packet to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    /// Octets after the transport header.
    pub(crate) payload: usize,
    /// IPv4 flags and offset field.
    pub(crate) fragment: u16,
}

impl Packet {
    pub(crate) fn udp(src: IpAddr, dst: IpAddr, dst_port: u16) -> Self {
        Self { src, dst, protocol: 17, src_port: 40_000, dst_port, payload: 32, fragment: 0 }
    }

    pub(crate) fn syn(src: IpAddr, dst: IpAddr, dst_port: u16, src_port: u16) -> Self {
        Self { src, dst, protocol: 6, src_port, dst_port, payload: 0, fragment: 0 }
    }

    /// The packet from its IP header on.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let length = u16::try_from(transport.len()).unwrap();
        let mut out = Vec::new();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                out.extend([0x45, 0]);
                out.extend((length + 20).to_be_bytes());
                out.extend([0, 1]);
                out.extend(self.fragment.to_be_bytes());
                out.extend([64, self.protocol, 0, 0]);
                out.extend(src.octets());
                out.extend(dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                out.extend([0x60, 0, 0, 0]);
                out.extend(length.to_be_bytes());
                out.extend([self.protocol, 64]);
                out.extend(src.octets());
                out.extend(dst.octets());
            }
            _ => panic!("one family"),
        }
        out.extend(transport);
        out
    }

    fn transport(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.src_port.to_be_bytes());
        out.extend(self.dst_port.to_be_bytes());
        let sum_at = if self.protocol == 6 {
            out.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
            16
        } else {
            out.extend(u16::try_from(8 + self.payload).unwrap().to_be_bytes());
            out.extend([0, 0]);
            6
        };
        out.resize(out.len() + self.payload, 0x55);
        let sum = self.checksum(&out);
        out[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
        out
    }

    fn checksum(&self, transport: &[u8]) -> u16 {
        let mut sum = u32::from(self.protocol) + u32::try_from(transport.len()).unwrap();
        let mut add = |octets: &[u8]| {
            for pair in octets.chunks(2) {
                sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            }
        };
        for address in [self.src, self.dst] {
            match address {
                IpAddr::V4(a) => add(&a.octets()),
                IpAddr::V6(a) => add(&a.octets()),
            }
        }
        add(transport);
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }
}
