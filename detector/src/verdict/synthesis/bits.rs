//! Packets as columns of bits: a conjunction is an `and`.

use crate::watch::packets::Packet;

/// Most packets of one kind that a search looks at.
pub(super) const BITS: usize = 512;
/// One bit a packet.
pub(super) type Bits = [u64; BITS / 64];
/// What is in both.
pub(super) const fn and(a: &Bits, b: &Bits) -> Bits {
    let mut out = [0; BITS / 64];
    let mut i = 0;
    while i < BITS / 64 {
        out[i] = a[i] & b[i];
        i += 1;
    }
    out
}

/// How many are on.
pub(super) fn ones(bits: &Bits) -> u32 {
    bits.iter().map(|w| w.count_ones()).sum()
}

/// Indices of the bits that are on.
pub(super) fn each(bits: &Bits) -> impl Iterator<Item = usize> + '_ {
    bits.iter().enumerate().flat_map(|(word, &bits)| {
        let mut rest = bits;
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let bit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            Some(word * 64 + bit)
        })
    })
}

/// Adds the bits of one set to another.
pub(super) fn or(into: &mut Bits, bits: &Bits) {
    for (mine, theirs) in into.iter_mut().zip(bits) {
        *mine |= theirs;
    }
}

/// The packets for which something holds.
pub(super) fn mark<'p>(
    packets: impl Iterator<Item = &'p Packet>,
    holds: impl Fn(&Packet) -> bool,
) -> Bits {
    let mut bits = [0; BITS / 64];
    for (i, packet) in packets.take(BITS).enumerate() {
        if holds(packet) {
            bits[i / 64] |= 1 << (i % 64);
        }
    }
    bits
}
