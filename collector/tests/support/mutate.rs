//! Damage drawn from a seed, so that a failure comes back.

use super::*;

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Sound datagrams of every protocol.
pub fn seeds() -> Vec<Vec<u8>> {
    let fields = [(8, 4), (12, 4), (4, 1), (1, 4), (2, 4), (21, 4), (22, 4), (48, 1), (315, 65535)];
    let inner = ethernet(0x0800, &ipv4(17, [1, 2, 3, 4], [203, 0, 113, 7], &udp(1, 2, &[0; 9])));
    let head = bytes().raw(&[198, 51, 100, 1, 203, 0, 113, 7, 17]).u32(1000).u32(10);
    let record = head.u32(900).u32(800).u8(1).u8(40).raw(&inner[..40]).0;
    let options = options_template(300, 1, &iana(&[(302, 2), (305, 4), (306, 4), (311, 8)]));
    let data = |id| {
        [
            set(id, &template(256, &iana(&fields))),
            set(256, &[record.clone(), record.clone()].concat()),
            set(id + 1, &options),
            set(300, &bytes().u16(1).u32(1).u32(9).u64(0x3f50_624d_d2f1_a9fc).0),
        ]
    };
    let v6 = ipv6(43, 1, 2, &bytes().raw(&[4, 0, 0, 0, 0, 0, 0, 0]).raw(&inner[14..]).0);
    let samples = [
        flow_sample(1, 10, 10, &[raw_header(1, 100, &inner), tlv(3, &[0; 32])]),
        flow_sample(2, 10, 20, &[raw_header(1, 100, &ethernet(0x86dd, &v6))]),
        flow_sample(3, 10, 30, &[raw_header(1, 100, &ethernet(0x8847, &[0, 0, 1, 1, 0, 0, 0, 0]))]),
        tlv(2, &bytes().u32(1).u32(3).u32(1).raw(&tlv(1, &[1; 88])).0),
    ];
    let record = v5_record([1, 2, 3, 4], [203, 0, 113, 7], 30120, 1, 2);
    vec![
        v5(5, 0x4010, 1, &[record.clone(), record]),
        v9(1000, 1, 1, &data(0)),
        ipfix(1, 1, &data(2)),
        [ipfix(1, 1, &data(2)), ipfix(3, 2, &data(2))].concat(),
        sflow(1, &samples),
    ]
}

/// Damages a datagram in up to five places.
pub fn mutate(rng: &mut Rng, datagram: &mut Vec<u8>) {
    for _ in 0..=rng.below(4) {
        let at = rng.below(datagram.len());
        match rng.below(6) {
            0 => datagram[at] ^= 1 << rng.below(8),
            1 => datagram[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5)],
            2 => datagram.truncate(at.max(1)),
            3 => {
                let value = (rng.next() as u16).to_be_bytes();
                let end = (at + 2).min(datagram.len());
                datagram[at..end].copy_from_slice(&value[..end - at]);
            }
            4 => {
                let piece = datagram[at..(at + 1 + rng.below(40)).min(datagram.len())].to_vec();
                let into = rng.below(datagram.len());
                datagram.splice(into..into, piece);
            }
            _ => {
                let end = (at + 4).min(datagram.len());
                datagram[at..end].fill(0xff);
            }
        }
    }
}
