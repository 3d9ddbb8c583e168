//! Hashes of content: the same in every shard, run and machine.

use std::net::IpAddr;

use weir_model::FlowRecord;

/// Finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
#[inline]
pub(super) const fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[inline]
fn fold(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(a) => u64::from(a.to_bits()),
        IpAddr::V6(a) => {
            let bits = a.to_bits().to_be_bytes();
            let (high, low) = bits.split_at(8);
            let word = |half: &[u8]| half.first_chunk().map_or(0, |w| u64::from_be_bytes(*w));
            mix(word(high)).wrapping_add(word(low))
        }
    }
}

/// Hash of an address, for shares of hosts.
#[inline]
pub(super) fn address_hash(address: IpAddr) -> u64 {
    mix(fold(address).wrapping_add(0x6a09_e667_f3bc_c909))
}

/// The bit of a source in the 64-bit linear-counting bitmaps.
#[inline]
pub(super) fn source_bit(source: IpAddr) -> u64 {
    1 << (mix(fold(source).wrapping_add(0x9e37_79b9_7f4a_7c15)) >> 58)
}

/// Hash of a flow by its ends.
#[inline]
pub(super) fn flow_hash(src: IpAddr, dst: IpAddr, ports: (u16, u16)) -> u64 {
    let ports = u64::from(ports.0) << 16 | u64::from(ports.1);
    mix((fold(src).rotate_left(32) ^ fold(dst))
        .wrapping_add(ports.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// Both halves of a product of 128 bits: with odd constants and xors around it, as good a mixer as
/// [`mix`] for half its price (the idea of wyhash, Wang Yi 2019).
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the halves of a product")]
const fn product(a: u64, b: u64) -> u64 {
    let wide = a as u128 * b as u128;
    (wide >> 64) as u64 ^ wide as u64
}

/// Hash of what a record says, without who said it.
#[inline]
pub(super) fn record_hash(r: &FlowRecord) -> u64 {
    const ODD: [u64; 4] = [
        0x2545_f491_4f6c_dd1d,
        0x9e37_79b9_7f4a_7c15,
        0xbf58_476d_1ce4_e5b9,
        0x94d0_49bb_1331_11eb,
    ];
    let ports = u64::from(r.src_port) << 48
        | u64::from(r.dst_port) << 32
        | u64::from(r.protocol) << 24
        | u64::from(r.tcp_flags) << 16
        | u64::from(r.icmp_type) << 8
        | u64::from(r.ttl);
    let addresses = fold(r.src).rotate_left(32) ^ fold(r.dst);
    let volume = r.bytes.rotate_left(24) ^ r.packets;
    let ends = product(addresses ^ ODD[0], ports ^ ODD[1]);
    let rest = product(volume ^ ODD[2], r.start.0 ^ ODD[3]);
    product(ends ^ ODD[1], rest ^ ODD[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A threshold on the hash chooses records: each of its upper bits must be as good as a coin, for
    /// records that differ in a single field by one.
    #[test]
    fn upper_bits_are_even_whichever_field_differs() {
        const RECORDS: u32 = 4096;
        let fields: [fn(&mut FlowRecord, u32); 6] = [
            |r, n| r.src = IpAddr::V4((0x0a00_0000 + n).into()),
            |r, n| r.dst = IpAddr::V4((0xc000_0200 + n).into()),
            |r, n| r.src_port = u16::try_from(n).unwrap(),
            |r, n| r.bytes = u64::from(n),
            |r, n| r.start.0 = u64::from(n),
            |r, n| r.src = IpAddr::V6((0x2001_0db8_u128 << 96 | u128::from(n)).into()),
        ];
        for (field, set) in fields.iter().enumerate() {
            let mut ones = [0_u32; 12];
            for n in 0..RECORDS {
                let mut record = FlowRecord::EMPTY;
                set(&mut record, n);
                let hash = record_hash(&record);
                for (bit, ones) in ones.iter_mut().enumerate() {
                    *ones += u32::from(hash >> (63 - bit) & 1 == 1);
                }
            }
            // Five standard deviations of 4,096 coins are 160.
            for (bit, ones) in ones.iter().enumerate() {
                assert!(ones.abs_diff(RECORDS / 2) < 160, "field {field}, bit {bit}: {ones}");
            }
        }
    }
}
