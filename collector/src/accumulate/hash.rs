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

/// Hash of what a record says, without who said it.
#[inline]
pub(super) fn record_hash(r: &FlowRecord) -> u64 {
    let ports = u64::from(r.src_port) << 48
        | u64::from(r.dst_port) << 32
        | u64::from(r.protocol) << 24
        | u64::from(r.tcp_flags) << 16
        | u64::from(r.icmp_type) << 8
        | u64::from(r.ttl);
    let addresses = fold(r.src).rotate_left(32) ^ fold(r.dst);
    let volume = r.bytes.rotate_left(24) ^ r.packets ^ r.start.0.rotate_left(40);
    mix(mix(addresses ^ 0x2545_f491_4f6c_dd1d).wrapping_add(ports) ^ mix(volume))
}
