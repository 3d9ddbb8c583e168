//! Puts together the datagrams that IP cut to pieces, as the receiver's kernel does.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use super::udp::{Datagram, Fragment, datagram, fragment, udp};

/// Datagrams of which pieces wait at once; more than a receiver's kernel holds of one sender.
const WAITING_MAX: usize = 64;

/// Octets of the longest datagram.
const DATAGRAM_MAX: usize = 65_535;

/// The datagrams of a capture's frames, in the order in which they became whole.
#[derive(Debug, Default)]
pub struct Datagrams {
    /// The oldest first.
    waiting: VecDeque<Pieces>,
    whole: Vec<u8>,
    lost: u64,
}

/// What has come of one datagram.
#[derive(Debug)]
struct Pieces {
    of: (IpAddr, IpAddr, u32),
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Its length, known with the last piece.
    length: Option<usize>,
}

impl Datagrams {
    /// The datagram in `frame`, or the one that it makes whole.
    pub fn take<'a>(&'a mut self, link: u32, frame: &'a [u8]) -> Option<Datagram<'a>> {
        match fragment(link, frame) {
            None => datagram(link, frame),
            Some(piece) => self.add(&piece),
        }
    }

    /// Pieces whose datagram has not become whole so far.
    pub fn left(&self) -> u64 {
        self.lost + self.waiting.iter().map(Pieces::count).sum::<u64>()
    }

    fn add(&mut self, piece: &Fragment<'_>) -> Option<Datagram<'_>> {
        let at = match self.waiting.iter().position(|pieces| pieces.of == piece.of) {
            Some(at) => at,
            None => {
                if self.waiting.len() >= WAITING_MAX
                    && let Some(oldest) = self.waiting.pop_front()
                {
                    self.lost += oldest.count();
                }
                let pieces = BTreeMap::new();
                self.waiting.push_back(Pieces { of: piece.of, pieces, length: None });
                self.waiting.len() - 1
            }
        };
        let pieces = self.waiting.get_mut(at)?;
        pieces.add(piece);
        if !pieces.is_whole() {
            return None;
        }
        let Pieces { of: (from, to, _), pieces, .. } = self.waiting.remove(at)?;
        self.whole.clear();
        self.whole.extend(pieces.into_values().flatten());
        udp(from, to, &self.whole)
    }
}

impl Pieces {
    /// One that comes twice counts once, as the first one said it.
    fn add(&mut self, piece: &Fragment<'_>) {
        let end = piece.offset + piece.length;
        if end > DATAGRAM_MAX {
            return;
        }
        if !piece.more {
            self.length = Some(end);
        }
        self.pieces.entry(piece.offset).or_insert_with(|| piece.data.to_vec());
    }

    /// Whether the pieces follow each other without gap or overlap.
    fn is_whole(&self) -> bool {
        let mut end = 0;
        let follow = self.pieces.iter().all(|(offset, data)| {
            let follows = *offset == end;
            end += data.len();
            follows
        });
        follow && self.length == Some(end)
    }

    fn count(&self) -> u64 {
        self.pieces.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: u32 = 101;

    /// A datagram from 192.0.2.1:2055 in pieces of at most `size` octets, a multiple of 8.
    fn cut(id: u8, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
        let mut segment = vec![0x08, 0x07, 0x08, 0x08];
        segment.extend(u16::try_from(payload.len() + 8).unwrap().to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(payload);
        let last = segment.len().div_ceil(size) - 1;
        let packet = |(n, piece): (usize, &[u8])| {
            let more = if n < last { 0x2000 } else { 0 };
            let bits = u16::try_from(n * size / 8).unwrap() | more;
            let total = u16::try_from(piece.len() + 20).unwrap().to_be_bytes();
            let [high, low] = bits.to_be_bytes();
            let mut packet = vec![0x45, 0, total[0], total[1], 0, id, high, low, 64, 17, 0, 0];
            packet.extend([192, 0, 2, 1, 192, 0, 2, 2]);
            packet.extend(piece);
            packet
        };
        segment.chunks(size).enumerate().map(packet).collect()
    }

    fn payloads(frames: &[Vec<u8>]) -> (Vec<Vec<u8>>, u64) {
        let mut datagrams = Datagrams::default();
        let found = frames.iter().filter_map(|f| Some(datagrams.take(RAW, f)?.payload.to_vec()));
        let found = found.collect();
        (found, datagrams.left())
    }

    #[test]
    fn pieces_are_put_together_in_any_order() {
        let text: Vec<u8> = (0..=250).collect();
        let pieces = cut(1, &text, 64);
        assert_eq!(pieces.len(), 5);
        assert_eq!(payloads(&pieces), (vec![text.clone()], 0));
        let mut turned = pieces.clone();
        turned.reverse();
        turned.insert(2, turned[1].clone());
        assert_eq!(payloads(&turned), (vec![text.clone()], 0), "one of them twice");
        let mut mixed = Vec::new();
        for (a, b) in pieces.into_iter().zip(cut(2, &text[1..], 64)) {
            mixed.extend([a, b]);
        }
        assert_eq!(payloads(&mixed), (vec![text.clone(), text[1..].to_vec()], 0));
    }

    #[test]
    fn what_is_not_whole_is_counted() {
        let mut pieces = cut(1, &[7; 200], 64);
        pieces.remove(1);
        assert_eq!(payloads(&pieces), (vec![], 3));
        let mut short = cut(1, &[7; 200], 64);
        short[0].truncate(60);
        assert_eq!(payloads(&short), (vec![], 4), "cut off by the capture");
        let many: Vec<Vec<u8>> = (0..200).map(|id| cut(id, &[7; 200], 64).remove(0)).collect();
        assert_eq!(payloads(&many), (vec![], 200));
    }
}
