//! sFlow version 5 as a host writes it (sflow_version_5.txt, §5): flow samples with the raw packet header.
//!
//! ```text
//! datagram  version:4 address-type:4 address:4|16 sub-agent:4 sequence:4 uptime:4 samples:4
//! sample    format=1:4 length:4 sequence:4 source:4 rate:4 pool:4 drops:4 input:4 output:4 records:4
//! record    format=1:4 length:4 protocol=1:4 frame-length:4 stripped:4 header-length:4 header (padded to 4)
//! ```

use std::net::IpAddr;

/// Octets of each packet that are sent.
pub const HEADER_MAX: usize = 128;

/// Samples in one datagram: seven of the longest headers stay below 1,472 octets.
pub const SAMPLES_MAX: usize = 7;

/// One sampled packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Interface it came in by.
    pub input: u32,
    /// The Ethernet frame's beginning, at most [`HEADER_MAX`] octets.
    pub header: Vec<u8>,
    /// Octets of the whole frame without its check sequence.
    pub frame_length: u32,
}

/// What is counted over the life of the sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams sent.
    pub datagrams: u32,
    /// Samples taken.
    pub samples: u32,
    /// Samples that the kernel took and had no room for: the pool grows by them all the same, so that the
    /// collector can make up for them.
    pub dropped: u32,
}

/// What an interface has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its speed, bits a second; 0 when not known.
    pub speed_bps: u64,
    /// Octets received.
    pub in_octets: u64,
    /// Packets received.
    pub in_packets: u32,
}

/// Writes one datagram of at most [`SAMPLES_MAX`] samples.
pub fn datagram(
    agent: IpAddr,
    uptime_ms: u32,
    rate: u32,
    samples: &[Sample],
    counters: &mut Counters,
) -> Vec<u8> {
    let samples = &samples[..samples.len().min(SAMPLES_MAX)];
    let mut out = header(agent, uptime_ms, samples.len(), counters);
    for sample in samples {
        counters.samples = counters.samples.wrapping_add(1);
        flow_sample(&mut out, sample, rate, counters);
    }
    out
}

/// Writes a datagram with what an interface has counted (if_counters) and how it is called (port_name).
pub fn interface_datagram(
    agent: IpAddr,
    uptime_ms: u32,
    sequence: u32,
    interface: &Interface,
    counters: &mut Counters,
) -> Vec<u8> {
    const COUNTERS_SAMPLE: u32 = 2;
    const IF_COUNTERS: u32 = 1;
    const PORT_NAME: u32 = 1005;
    const ETHERNET: u32 = 6;
    const FULL_DUPLEX: u32 = 1;
    const UP: u32 = 3;
    let mut out = header(agent, uptime_ms, 1, counters);
    let mut words = |words: &[u32]| words.iter().for_each(|w| out.extend(w.to_be_bytes()));
    let halves = |n: u64| [(n >> 32) as u32, (n & 0xffff_ffff) as u32];
    let name = &interface.name.as_bytes()[..interface.name.len().min(64)];
    let padded = name.len().next_multiple_of(4);
    let body = 12 + 8 + 88 + 8 + 4 + padded;
    words(&[COUNTERS_SAMPLE, length(body), sequence, interface.index & 0x00ff_ffff, 2]);
    words(&[IF_COUNTERS, 88, interface.index, ETHERNET]);
    words(&halves(interface.speed_bps));
    words(&[FULL_DUPLEX, UP]);
    words(&halves(interface.in_octets));
    // Packets received, then what a mirror port has no use for.
    words(&[interface.in_packets]);
    words(&[0; 13]);
    words(&[PORT_NAME, length(4 + padded), length(name.len())]);
    out.extend(name);
    out.resize(out.len() + padded - name.len(), 0);
    out
}

/// The beginning of a datagram with so many samples.
fn header(agent: IpAddr, uptime_ms: u32, samples: usize, counters: &mut Counters) -> Vec<u8> {
    let mut out = Vec::with_capacity(1472);
    let mut word = |value: u32| out.extend(value.to_be_bytes());
    word(5);
    match agent {
        IpAddr::V4(v4) => {
            word(1);
            word(u32::from(v4));
        }
        IpAddr::V6(v6) => {
            word(2);
            v6.octets().chunks_exact(4).for_each(|w| {
                word(u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
            });
        }
    }
    word(0);
    counters.datagrams = counters.datagrams.wrapping_add(1);
    word(counters.datagrams);
    word(uptime_ms);
    word(length(samples));
    out
}

fn flow_sample(out: &mut Vec<u8>, sample: &Sample, rate: u32, counters: &Counters) {
    const FLOW_SAMPLE: u32 = 1;
    const RAW_HEADER: u32 = 1;
    const ETHERNET: u32 = 1;
    const FCS: u32 = 4;
    const UNKNOWN_OUTPUT: u32 = 0;
    let header = &sample.header[..sample.header.len().min(HEADER_MAX)];
    let padded = header.len().next_multiple_of(4);
    let record = length(16 + padded);
    let words = [
        FLOW_SAMPLE,
        record + 8 + 32,
        counters.samples,
        sample.input & 0x00ff_ffff,
        rate,
        counters.samples.wrapping_add(counters.dropped).wrapping_mul(rate),
        counters.dropped,
        sample.input,
        UNKNOWN_OUTPUT,
        1,
        RAW_HEADER,
        record,
        ETHERNET,
        sample.frame_length + FCS,
        FCS,
        length(header.len()),
    ];
    words.iter().for_each(|w| out.extend(w.to_be_bytes()));
    out.extend(header);
    out.resize(out.len() + padded - header.len(), 0);
}

fn length(octets: usize) -> u32 {
    u32::try_from(octets).unwrap_or(u32::MAX)
}

/// Octets of the whole frame, as its IP header says: the kernel hands over the beginning only.
pub fn frame_length(frame: &[u8]) -> Option<u32> {
    const ETHERNET: usize = 14;
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let (kind, at) = match word(12)? {
        0x8100 | 0x88a8 => (word(16)?, ETHERNET + 4),
        kind => (kind, ETHERNET),
    };
    let ip = match kind {
        0x0800 => u32::from(word(at + 2)?),
        0x86dd => u32::from(word(at + 4)?) + 40,
        _ => return None,
    };
    Some(ip + length(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_laid_out_as_the_document_says() {
        let mut counters = Counters::default();
        let sample = Sample { input: 2, header: vec![0xaa; 61], frame_length: 1514 };
        let agent = "192.0.2.9".parse().unwrap();
        let out = datagram(agent, 7, 100, &[sample.clone(), sample], &mut counters);
        let word = |at: usize| u32::from_be_bytes(out[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4), word(8)), (5, 1, 0xc000_0209));
        assert_eq!((word(16), word(20), word(24)), (1, 7, 2));
        assert_eq!((word(28), word(32)), (1, 120), "a flow sample and its length");
        assert_eq!((word(44), word(48)), (100, 100), "rate and pool");
        assert_eq!((word(80), word(84), word(88)), (1518, 4, 61));
        assert_eq!(out.len(), 28 + 2 * (8 + 120));
        assert_eq!(counters, Counters { datagrams: 1, samples: 2, dropped: 0 });
    }

    #[test]
    fn the_longest_datagram_fits_an_ethernet_frame() {
        let sample = Sample { input: 2, header: vec![0; 200], frame_length: 1514 };
        let agent = "2001:db8::1".parse().unwrap();
        let out = datagram(agent, 0, 1, &vec![sample; 99], &mut Counters::default());
        assert!(out.len() <= 1452, "{}", out.len());
    }

    #[test]
    fn counters_of_an_interface_have_their_places() {
        let interface = Interface {
            index: 7,
            name: "eth1".to_owned(),
            speed_bps: 10_000_000_000,
            in_octets: 5_000_000_001,
            in_packets: 9,
        };
        let agent = "192.0.2.9".parse().unwrap();
        let out = interface_datagram(agent, 7, 3, &interface, &mut Counters::default());
        let word = |at: usize| u32::from_be_bytes(out[at..at + 4].try_into().unwrap());
        assert_eq!((word(24), word(28), word(36), word(40)), (1, 2, 3, 7));
        assert_eq!(word(32) as usize, out.len() - 36, "the length of the sample");
        assert_eq!((word(48), word(52), word(56)), (1, 88, 7));
        assert_eq!((word(64), word(68)), (2, 1_410_065_408), "speed");
        assert_eq!((word(80), word(84), word(88)), (1, 705_032_705, 9), "octets and packets");
        assert_eq!((word(144), word(148), word(152)), (1005, 8, 4));
        assert_eq!(&out[156..], b"eth1");
    }

    #[test]
    fn lengths_come_from_the_ip_header() {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[16..18].copy_from_slice(&1500u16.to_be_bytes());
        assert_eq!(frame_length(&frame), Some(1514));
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[18..20].copy_from_slice(&100u16.to_be_bytes());
        assert_eq!(frame_length(&frame), Some(154));
        assert_eq!(frame_length(&frame[..10]), None);
    }
}
