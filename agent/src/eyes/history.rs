//! The last packets before an incident: always known, shown when one begins.

use std::collections::VecDeque;
use std::io;

use socket2::SockFilter;
use tokio::sync::{mpsc, oneshot};

use super::capture::SNAP;
use super::ring::{Packet, Ring, Seen};

/// Packets remembered of each second: 6000 in all, 900 KB.
pub const PER_SECOND: usize = 375;

/// Of these, for whatever comes first; the rest is for senders not seen in that second.
const FIRST: usize = 250;

/// Seconds remembered. A flood of 300,000 packets a second is known to the appliance after half a second and to
/// this node some moments later: what was before it has to be kept by time, not by number.
pub const SECONDS: u64 = 16;

/// Packets kept however old they are, where few come.
pub const PACKETS_MIN: usize = 1000;

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

/// What is kept of one second.
#[derive(Clone, Debug)]
struct Second {
    /// Seconds since 1970.
    at: u64,
    packets: Vec<Kept>,
    /// One bit for the senders and receivers of what was kept, by their hash.
    seen: [u64; 16],
}

/// The packets of the last seconds, thinned where many came: the first of each second and of each sender in it.
#[derive(Clone, Debug, Default)]
pub struct Last {
    seconds: VecDeque<Second>,
    count: usize,
}

impl Last {
    /// Remembers one more.
    pub fn push(&mut self, packet: &Packet<'_>) {
        let at = packet.nanos / 1_000_000_000;
        // A clock that is set back goes on in the newest second.
        if self.seconds.back().is_none_or(|newest| newest.at < at) {
            self.seconds.push_back(Second { at, packets: Vec::new(), seen: [0; 16] });
            self.forget(at);
        }
        let Some(second) = self.seconds.back_mut() else { return };
        if second.packets.len() >= PER_SECOND {
            return;
        }
        let hash = talk(packet.kept);
        let (word, bit) = (usize::from(hash >> 6 & 15), 1_u64 << (hash & 63));
        let seen = second.seen.get_mut(word).is_some_and(|bits| {
            let before = *bits & bit != 0;
            *bits |= bit;
            before
        });
        if second.packets.len() >= FIRST && seen {
            return;
        }
        let mut kept = Kept { nanos: packet.nanos, length: packet.length, octets: [0; _], used: 0 };
        let used = packet.kept.len().min(kept.octets.len());
        kept.octets[..used].copy_from_slice(&packet.kept[..used]);
        kept.used = u8::try_from(used).unwrap_or(0);
        second.packets.push(kept);
        self.count += 1;
    }

    /// Lets go of seconds that are old, as long as enough is left.
    fn forget(&mut self, now: u64) {
        while let Some(oldest) = self.seconds.front() {
            let left = self.count - oldest.packets.len();
            if now.saturating_sub(oldest.at) < SECONDS || left < PACKETS_MIN {
                return;
            }
            self.count = left;
            self.seconds.pop_front();
        }
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Kept> {
        self.seconds.iter().flat_map(|second| second.packets.iter().copied()).collect()
    }
}

/// A hash of who talks to whom: addresses and ports behind an Ethernet header, ten bits.
fn talk(frame: &[u8]) -> u16 {
    let range = match frame.get(12..14) {
        Some([0x86, 0xdd]) => 22..58,
        _ => 26..38,
    };
    let octets = frame.get(range).unwrap_or(frame);
    // FNV-1a: a few nanoseconds, and nobody gains by a collision but to be kept a little less often.
    let hash = octets
        .iter()
        .fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193));
    u16::try_from((hash ^ hash >> 16) & 0x3ff).unwrap_or(0)
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

    /// An Ethernet frame of UDP over IPv4 from a sender.
    fn frame(sender: u32) -> Vec<u8> {
        let mut octets = vec![0; 60];
        octets[12..14].copy_from_slice(&[8, 0]);
        octets[26..30].copy_from_slice(&sender.to_be_bytes());
        octets
    }

    /// A hundred packets a second of ten players for twenty seconds, then 1.4 s of a flood of 200,000 packets a
    /// second among them, each by a sender of its own or all by one; what is kept, and when the flood began.
    fn flooded(forged: bool) -> (Vec<Kept>, u64) {
        let mut last = Last::default();
        let start = 1_795_000_000_000_000_000_u64;
        let mut push = |nanos: u64, sender: u32| {
            last.push(&Packet { nanos: start + nanos, length: 60, kept: &frame(sender) });
        };
        for n in 0..2180_u64 {
            push(n * 10_000_000, u32::try_from(n % 10).unwrap());
            for k in 0..2000_u64 {
                if n >= 2040 {
                    let sender = if forged { n * 2000 + k } else { 0 };
                    push(n * 10_000_000 + k * 5000, 1000 + u32::try_from(sender).unwrap());
                }
            }
        }
        (last.all(), start + 20_400_000_000)
    }

    #[test]
    fn what_was_before_a_flood_of_200_000_packets_a_second_is_still_there() {
        for forged in [true, false] {
            let (all, flood) = flooded(forged);
            let most = PER_SECOND * usize::try_from(SECONDS + 1).unwrap();
            assert!(all.len() <= most, "{}", all.len());
            assert!(all.windows(2).all(|w| w[0].nanos <= w[1].nanos), "in order");
            let before = all.iter().filter(|k| k.nanos < flood).count();
            assert!(before >= 1000, "{before} packets from before");
            assert!(all[0].nanos + 10_000_000_000 <= flood, "ten seconds from before");
        }
        // Where one sender fills a second, the others are not lost.
        let (all, flood) = flooded(false);
        let player = |k: &&Kept| k.octets()[26..30] < 10_u32.to_be_bytes()[..];
        let during = all.iter().filter(|k| k.nanos >= flood + 600_000_000);
        assert!(during.filter(player).count() >= 9);
    }

    #[test]
    fn where_little_comes_a_thousand_are_kept_however_old() {
        let mut last = Last::default();
        for n in 0..5000_u64 {
            let kept = [7; 200];
            last.push(&Packet { nanos: n * 500_000_000, length: 200, kept: &kept });
        }
        let all = last.all();
        assert!((PACKETS_MIN..PACKETS_MIN + 10).contains(&all.len()), "{}", all.len());
        assert_eq!(all.last().unwrap().nanos, 4999 * 500_000_000);
        assert_eq!(all[0].octets().len(), 128);
    }
}
