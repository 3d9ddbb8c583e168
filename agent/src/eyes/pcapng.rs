//! Captures as files that every tool reads: pcapng (draft-ietf-opsawg-pcapng §4), little-endian, one Ethernet
//! interface, nanoseconds.

/// Magic of little-endian files.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// A file in the making.
#[derive(Clone, Debug)]
pub struct Pcapng {
    out: Vec<u8>,
}

impl Pcapng {
    /// Begins a file about one interface; `comment` says what it is a capture of.
    pub fn new(interface: &str, snap: u32, comment: &str) -> Self {
        let mut file = Self { out: Vec::new() };
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_le_bytes());
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, 1, comment.as_bytes());
        option(&mut body, 4, concat!("weir-agent ", env!("CARGO_PKG_VERSION")).as_bytes());
        file.block(SECTION_HEADER, &body);
        let mut body = vec![1, 0, 0, 0];
        body.extend(snap.to_le_bytes());
        option(&mut body, 2, interface.as_bytes());
        // Resolution: ten to the minus ninth.
        option(&mut body, 9, &[9]);
        file.block(INTERFACE, &body);
        file
    }

    /// Adds a packet: when, what was kept of it, how long it was.
    pub fn packet(&mut self, nanos: u64, kept: &[u8], length: u32) {
        let mut body = vec![0; 4];
        body.extend(high_low(nanos));
        body.extend(length_of(kept).to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(kept);
        body.resize(body.len().next_multiple_of(4), 0);
        self.block(PACKET, &body);
    }

    /// Ends the file with what was received and what the kernel had no room for.
    #[must_use]
    pub fn finish(mut self, nanos: u64, received: u64, dropped: u64) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend(high_low(nanos));
        option(&mut body, 4, &received.to_le_bytes());
        option(&mut body, 5, &dropped.to_le_bytes());
        self.block(STATISTICS, &body);
        self.out
    }

    /// Octets so far.
    pub const fn len(&self) -> usize {
        self.out.len()
    }

    /// Never: a file begins with its headers.
    pub const fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    fn block(&mut self, kind: u32, body: &[u8]) {
        let has_options = matches!(kind, SECTION_HEADER | INTERFACE | STATISTICS);
        let end: &[u8] = if has_options { &[0; 4] } else { &[] };
        let length = length_of(body) + length_of(end) + 12;
        self.out.extend(kind.to_le_bytes());
        self.out.extend(length.to_le_bytes());
        self.out.extend(body);
        self.out.extend(end);
        self.out.extend(length.to_le_bytes());
    }
}

/// A timestamp as pcapng has it: the high half first.
fn high_low(nanos: u64) -> [u8; 8] {
    let octets = nanos.to_le_bytes();
    let mut out = [0; 8];
    out[..4].copy_from_slice(&octets[4..]);
    out[4..].copy_from_slice(&octets[..4]);
    out
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(1000)];
    body.extend(code.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn length_of(octets: &[u8]) -> u32 {
    u32::try_from(octets.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_says_its_length_twice() {
        let mut file = Pcapng::new("eth0", 128, "incident 5");
        file.packet(1_795_000_000_123_456_789, &[1, 2, 3, 4, 5], 60);
        let file = file.finish(1_795_000_001_000_000_000, 1, 7);
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let (mut at, mut kinds) = (0, Vec::new());
        while at < file.len() {
            let length = usize::try_from(word(at + 4)).unwrap();
            assert_eq!(length % 4, 0);
            assert_eq!(word(at + length - 4), word(at + 4));
            kinds.push(word(at));
            at += length;
        }
        assert_eq!(kinds, [SECTION_HEADER, INTERFACE, PACKET, STATISTICS]);
    }
}
