//! The last packets before an incident: always known, shown when one begins.

use std::io;

use socket2::SockFilter;
use tokio::sync::{mpsc, oneshot};

use super::capture::SNAP;
use super::ring::{Packet, Ring, Seen};

/// Packets remembered.
pub const PACKETS: usize = 1000;

/// Blocks of 64 KiB: 2 MiB, thirty milliseconds of 300,000 small packets a second.
const BLOCKS: usize = 32;

/// How old a packet may be before it is known, milliseconds. Longer means fewer wake-ups of an idle node.
const LINGER_MS: u32 = 250;

/// A packet that was kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// When, nanoseconds since 1970.
    pub nanos: u64,
    /// Octets on the wire.
    pub length: u32,
    octets: [u8; SNAP as usize],
    used: u8,
}

impl Kept {
    /// What was kept of it.
    pub fn octets(&self) -> &[u8] {
        self.octets.get(..usize::from(self.used)).unwrap_or_default()
    }
}

/// The last packets, the oldest overwritten first.
#[derive(Clone, Debug, Default)]
pub struct Last {
    packets: Vec<Kept>,
    next: usize,
}

impl Last {
    /// Remembers one more.
    pub fn push(&mut self, packet: &Packet<'_>) {
        let mut kept = Kept { nanos: packet.nanos, length: packet.length, octets: [0; _], used: 0 };
        let used = packet.kept.len().min(kept.octets.len());
        kept.octets[..used].copy_from_slice(&packet.kept[..used]);
        kept.used = u8::try_from(used).unwrap_or(0);
        match self.packets.get_mut(self.next) {
            Some(place) => *place = kept,
            None => self.packets.push(kept),
        }
        self.next = (self.next + 1) % PACKETS;
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Kept> {
        let (newer, older) = self.packets.split_at(self.next.min(self.packets.len()));
        [older, newer].concat()
    }
}

/// What is asked of the history.
pub type Question = oneshot::Sender<(Vec<Kept>, Seen)>;

/// Follows the packets that come in by an interface until nobody asks any more.
///
/// # Errors
/// What the kernel says; CAP_NET_RAW is needed.
pub async fn follow(interface: u32, mut questions: mpsc::Receiver<Question>) -> io::Result<()> {
    let mut ring = Ring::open(interface, &incoming(), BLOCKS, LINGER_MS)?;
    let mut last = Last::default();
    loop {
        tokio::select! {
            done = ring.next(|packet| last.push(&packet)) => drop(done?),
            question = questions.recv() => {
                let Some(question) = question else { return Ok(()) };
                let seen = ring.seen()?;
                // Who asked may be gone.
                let _ = question.send((last.all(), seen));
            }
        }
    }
}

/// The beginning of every packet that does not leave by the interface.
fn incoming() -> [SockFilter; 4] {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const PACKET_TYPE: u32 = 0xffff_f004;
    const OUTGOING: u32 = 4;
    let op = |code, k, jt, jf| SockFilter::new(code, jt, jf, k);
    [
        op(LOAD_WORD, PACKET_TYPE, 0, 0),
        op(JUMP_EQUAL, OUTGOING, 1, 0),
        op(RETURN, SNAP, 0, 0),
        op(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thousand_are_in_their_order() {
        let mut last = Last::default();
        for n in 0..2500_u64 {
            let kept = [7; 200];
            last.push(&Packet { nanos: n, length: 200, kept: &kept });
            let all = last.all();
            assert_eq!(all.len(), PACKETS.min(usize::try_from(n).unwrap() + 1));
            assert_eq!(all.last().unwrap().nanos, n);
        }
        let all = last.all();
        assert!(all.windows(2).all(|w| w[1].nanos == w[0].nanos + 1));
        assert_eq!(all[0].octets().len(), 128);
    }
}
