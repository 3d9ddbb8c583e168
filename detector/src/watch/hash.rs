//! Hashing of addresses and contents. Keys are bounded by what is protected or by sample sizes, so
//! that a fast mixing function does; and one of our own gives the same order of evidence for ever.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Mixes one word into a hash.
pub(crate) const fn mix(hash: u64, word: u64) -> u64 {
    let mut h = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^= h >> 32;
    h = h.wrapping_mul(0xd6e8_feb8_6659_fd93);
    h ^ (h >> 29)
}

/// The content hash of what has come `before` times already; that of the first is its own.
#[expect(clippy::cast_possible_truncation, reason = "half of a hash")]
pub(crate) const fn nth(hash: u32, before: u32) -> u32 {
    match before {
        0 => hash,
        _ => (mix(hash as u64, before as u64) >> 16) as u32,
    }
}

/// [`mix`] as a hasher.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = mix(self.0, u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0, word);
    }

    fn write_u32(&mut self, word: u32) {
        self.0 = mix(self.0, u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.0 = mix(self.0, word as u64);
    }
}

/// A map with [`Mixer`]; never iterated where order could show.
pub(crate) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;
