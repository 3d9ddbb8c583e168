//! A minute of one host or prefix: two columns of 60 values, each the difference from the one before, zigzag and
//! variable-length (7 bits an octet). A quiet host takes about 120 octets.

use weir_model::IpNet;

use super::{BLOCK_SECS, HostMinute};

pub(super) fn encode(minute: &HostMinute) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 * BLOCK_SECS);
    for column in [&minute.packets, &minute.bytes] {
        let mut last = 0_u64;
        for value in column {
            let step = value.wrapping_sub(last).cast_signed();
            let mut rest = (step.wrapping_shl(1) ^ (step >> 63)).cast_unsigned();
            while rest >= 0x80 {
                out.push(low(rest) | 0x80);
                rest >>= 7;
            }
            out.push(low(rest));
            last = *value;
        }
    }
    out
}

/// The lowest seven bits.
fn low(value: u64) -> u8 {
    u8::try_from(value & 0x7f).unwrap_or(0)
}

/// `None` when the body was not written by [`encode`].
pub(super) fn decode(net: IpNet, body: &[u8]) -> Option<HostMinute> {
    let mut octets = body.iter();
    let mut minute = HostMinute { net, packets: [0; BLOCK_SECS], bytes: [0; BLOCK_SECS] };
    for column in [&mut minute.packets, &mut minute.bytes] {
        let mut last = 0_u64;
        for value in column {
            let (mut coded, mut shift) = (0_u64, 0);
            loop {
                let octet = *octets.next()?;
                coded |= u64::from(octet & 0x7f).checked_shl(shift)?;
                if octet & 0x80 == 0 {
                    break;
                }
                shift += 7;
            }
            let step = (coded >> 1) ^ (coded & 1).wrapping_neg();
            last = last.wrapping_add(step);
            *value = last;
        }
    }
    octets.next().is_none().then_some(minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_and_damage_is_seen() {
        let net = "203.0.113.7/32".parse().unwrap();
        let mut minute = HostMinute { net, packets: [0; BLOCK_SECS], bytes: [0; BLOCK_SECS] };
        assert_eq!(encode(&minute).len(), 120);
        minute.packets[3] = u64::MAX;
        minute.packets[4] = 1;
        minute.bytes[59] = 1 << 40;
        let body = encode(&minute);
        assert_eq!(decode(net, &body), Some(minute));
        assert_eq!(decode(net, &body[1..]), None);
        assert_eq!(decode(net, &[0xff; 200]), None);
    }
}
