//! Flow exports at speed: datagrams made once, stamped and sent many times, to loopback only.
//!
//! Records are those of many hosts with ordinary ports and lengths. Only what must differ from one
//! datagram to the next is written again: sequence numbers and times.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use weir_model::{Direction, FlowProtocol, Fragment};
use weir_traffic::encode::sflow::{self, FlowSample};
use weir_traffic::encode::template::{self, Contents, SamplingStyle, Version};
use weir_traffic::encode::{Flow, frame, netflow_v5};
use weir_traffic::{Origin, Packet, Rng};

/// Datagrams handed to the kernel at once.
const BATCH: usize = 64;

/// Longest run, so that nothing is forgotten running.
pub const SECONDS_MAX: f64 = 300.0;

/// Milliseconds between the router's start and its datagrams; constant, as record stamps are
/// relative to it.
const UPTIME_MS: u64 = 3_600_000;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Protocol.
    pub protocol: FlowProtocol,
    /// Destinations: the first so many addresses from 10.0.0.0 on.
    pub hosts: u32,
    /// Records or samples in a datagram.
    pub records: usize,
    /// One in how many packets was looked at.
    pub sampling: u32,
}

impl Shape {
    /// As routers fill their datagrams.
    pub const fn new(protocol: FlowProtocol, hosts: u32) -> Self {
        let records = match protocol {
            FlowProtocol::NetflowV5 => 30,
            FlowProtocol::NetflowV9 => 24,
            FlowProtocol::Ipfix => 20,
            FlowProtocol::Sflow => 7,
        };
        Self { protocol, hosts, records, sampling: 1 }
    }
}

/// Datagrams ready to be stamped.
#[derive(Debug)]
struct Pool {
    shape: Shape,
    datagrams: Vec<Vec<u8>>,
    /// Templates and options, sent first and again each second.
    templates: Option<Vec<u8>>,
    next: usize,
    sequence: u32,
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

const fn host(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number))
}

fn flow(rng: &mut Rng, dst: u32, now_ms: u64) -> Flow {
    let packets = u64::from(rng.between(1, 5));
    let length = rng.between(60, 1400);
    Flow {
        src: IpAddr::V4(Ipv4Addr::from_bits(0xac10_0000 + rng.below(50_000))),
        dst: host(dst),
        src_port: rng.between(1024, 65_535),
        dst_port: [25_565, 28_015, 30_120, 443][rng.below(4) as usize],
        protocol: if rng.below(3) == 0 { 6 } else { 17 },
        tcp_flags: 0x18,
        icmp_type: 0,
        icmp_code: 0,
        packets,
        bytes: packets * u64::from(length),
        length_min: length,
        length_max: length,
        ttl_min: 57,
        ttl_max: 57,
        fragment: Fragment::None,
        first_ms: now_ms.saturating_sub(900),
        last_ms: now_ms.saturating_sub(10),
        input_if: 1,
        output_if: 2,
    }
}

fn sample(rng: &mut Rng, dst: u32, sampling: u32) -> FlowSample {
    let flow = flow(rng, dst, 0);
    let packet = Packet {
        at_us: rng.bits(),
        count: 1,
        src: flow.src,
        dst: flow.dst,
        src_port: flow.src_port,
        dst_port: flow.dst_port,
        protocol: flow.protocol,
        tcp_flags: flow.tcp_flags,
        icmp_type: 0,
        icmp_code: 0,
        // Long enough for a full header, so that all samples have one size.
        length: flow.length_max.max(128),
        ttl: 57,
        fragment: Fragment::None,
        direction: Direction::Inbound,
        origin: Origin::Benign,
    };
    let mut header = Vec::with_capacity(128);
    frame::ethernet(&mut header, &packet, 128);
    FlowSample {
        sequence: 0,
        source: 1,
        rate: sampling,
        pool: 0,
        drops: 0,
        input_if: 1,
        output_if: 2,
        frame_length: u32::from(packet.length) + 18,
        header,
    }
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The agent that sFlow datagrams name.
const AGENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Pool {
    fn new(shape: Shape, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let now = now_ms();
        let boot_ms = now.saturating_sub(UPTIME_MS);
        let header = |version| template::Header {
            version,
            now_ms: now,
            boot_ms,
            sequence: 0,
            domain: 1,
            sampling: shape.sampling,
            style: SamplingStyle::Domain,
            extremes: true,
        };
        // Every host once, in an order without use to a cache, but not more datagrams than fit it twice.
        let count = (shape.hosts as usize / shape.records + 1).clamp(64, 16_384);
        // A step that shares no factor with their number meets all of them before any again.
        let hosts = u64::from(shape.hosts.max(1));
        let step = (0x9e37_79b1..).find(|step| gcd(*step, hosts) == 1).unwrap_or(1);
        let first = u64::from(rng.below(shape.hosts));
        let target = |n: u64| (first + n * step) % hosts;
        let targets: Vec<u32> = (0..(count * shape.records) as u64)
            .map(|n| u32::try_from(target(n)).unwrap_or(0))
            .collect();
        let mut flows = |chunk: &[u32]| -> Vec<Flow> {
            chunk.iter().map(|d| flow(&mut rng, *d, now)).collect()
        };
        let version = match shape.protocol {
            FlowProtocol::Ipfix => Version::Ipfix,
            _ => Version::V9,
        };
        let mut templates = None;
        let datagrams = match shape.protocol {
            FlowProtocol::NetflowV5 => targets
                .chunks(shape.records)
                .map(|chunk| {
                    let header = netflow_v5::Header {
                        now_ms: now,
                        boot_ms,
                        sequence: 0,
                        engine: 0,
                        sampling: u16::try_from(shape.sampling).unwrap_or(0),
                    };
                    netflow_v5::datagram(&header, &flows(chunk))
                })
                .collect(),
            FlowProtocol::NetflowV9 | FlowProtocol::Ipfix => {
                let both = Contents { templates: true, sampling: true };
                templates = Some(template::datagram(&header(version), both, &[]).0);
                targets
                    .chunks(shape.records)
                    .map(|chunk| {
                        template::datagram(&header(version), Contents::default(), &flows(chunk)).0
                    })
                    .collect()
            }
            FlowProtocol::Sflow => targets
                .chunks(shape.records)
                .map(|chunk| {
                    let samples: Vec<FlowSample> =
                        chunk.iter().map(|d| sample(&mut rng, *d, shape.sampling)).collect();
                    sflow::datagram(AGENT, 0, 0, &samples, &[])
                })
                .collect(),
        };
        Self { shape, datagrams, templates, next: 0, sequence: 0 }
    }

    /// Writes times and sequence numbers into a datagram.
    fn stamp(shape: &Shape, datagram: &mut [u8], sequence: &mut u32, now_ms: u64) {
        let records = u32::try_from(shape.records).unwrap_or(0);
        let secs = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX);
        let mut put = |at: usize, value: u32| {
            datagram[at..at + 4].copy_from_slice(&value.to_be_bytes());
        };
        match shape.protocol {
            FlowProtocol::NetflowV5 => {
                put(8, secs);
                put(12, u32::try_from(now_ms % 1000 * 1_000_000).unwrap_or(0));
                put(16, *sequence);
                *sequence = sequence.wrapping_add(records);
            }
            FlowProtocol::NetflowV9 => {
                put(8, secs);
                put(12, *sequence);
                *sequence = sequence.wrapping_add(1);
            }
            FlowProtocol::Ipfix => {
                put(4, secs);
                put(8, *sequence);
                *sequence = sequence.wrapping_add(records);
                // Records hold absolute times, start and end after addresses and counters.
                let (first, last) = ((now_ms - 900).to_be_bytes(), (now_ms - 10).to_be_bytes());
                for record in datagram[20..].chunks_mut(template::IPFIX_RECORD_LEN_V4) {
                    let at = template::IPFIX_TIMES_AT;
                    if let Some(times) = record.get_mut(at..at + 16) {
                        times[..8].copy_from_slice(&first);
                        times[8..].copy_from_slice(&last);
                    }
                }
            }
            FlowProtocol::Sflow => {
                put(16, sequence.wrapping_div(records.max(1)));
                put(20, u32::try_from(now_ms % 1_000_000_000).unwrap_or(0));
                let len = (datagram.len() - 28) / shape.records.max(1);
                for sample in datagram[28..].chunks_mut(len) {
                    *sequence = sequence.wrapping_add(1);
                    sample[8..12].copy_from_slice(&sequence.to_be_bytes());
                    let pool = sequence.wrapping_mul(shape.sampling);
                    sample[20..24].copy_from_slice(&pool.to_be_bytes());
                }
            }
        }
    }
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sent {
    /// Records or samples.
    pub records: u64,
    /// Datagrams, those of templates included.
    pub datagrams: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// Exporters that send as fast as they are told.
#[derive(Debug)]
pub struct Generator {
    pools: Vec<Pool>,
    sockets: Vec<UdpSocket>,
}

impl Generator {
    /// `exporters` senders at 127.0.1.1 and following, all towards `to`.
    ///
    /// # Errors
    /// When `to` is not loopback, or a socket cannot be had.
    pub fn new(shape: Shape, exporters: u8, to: SocketAddr, seed: u64) -> io::Result<Self> {
        if !to.ip().is_loopback() {
            let text = "traffic goes to loopback only";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut sockets = Vec::new();
        let mut pools = Vec::new();
        for number in 1..=exporters.max(1) {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 1, number), 0))?;
            socket.connect(to)?;
            sockets.push(socket);
            pools.push(Pool::new(shape, seed.wrapping_add(u64::from(number))));
        }
        Ok(Self { pools, sockets })
    }

    /// Sends for `seconds` at `records_per_sec`, or as fast as the kernel takes it when that is 0.
    ///
    /// # Errors
    /// What the socket says, except that nobody listens.
    pub fn run(&mut self, records_per_sec: f64, seconds: f64) -> io::Result<Sent> {
        let seconds = seconds.min(SECONDS_MAX);
        let start = Instant::now();
        let mut sent = Sent::default();
        let mut headers: MultiHeaders<SockaddrStorage> = MultiHeaders::preallocate(BATCH, None);
        let mut templates_due = start;
        let mut turn = 0;
        loop {
            let now = Instant::now();
            let elapsed = (now - start).as_secs_f64();
            if elapsed >= seconds {
                break;
            }
            if now >= templates_due {
                self.send_templates(&mut sent)?;
                templates_due = now + Duration::from_secs(1);
            }
            let due = elapsed * records_per_sec - sent.records as f64;
            let records = self.pools[turn].shape.records;
            let batch = if records_per_sec == 0.0 {
                BATCH
            } else if due < records as f64 {
                std::thread::yield_now();
                continue;
            } else {
                // Small at low rates, so that a second's records do not come in one clump.
                (1..=BATCH).rev().find(|n| (*n * records) as f64 <= due).unwrap_or(1)
            };
            self.send(turn, batch, &mut headers, &mut sent)?;
            turn = (turn + 1) % self.pools.len();
        }
        sent.seconds = start.elapsed().as_secs_f64();
        Ok(sent)
    }

    fn send_templates(&mut self, sent: &mut Sent) -> io::Result<()> {
        for (pool, socket) in self.pools.iter_mut().zip(&self.sockets) {
            if let Some(templates) = &mut pool.templates {
                let mut own = pool.sequence;
                let no_records = Shape { records: 0, ..pool.shape };
                Pool::stamp(&no_records, &mut templates[..20], &mut own, now_ms());
                if pool.shape.protocol == FlowProtocol::NetflowV9 {
                    pool.sequence = own;
                } else {
                    // The options record is a data record.
                    pool.sequence = pool.sequence.wrapping_add(1);
                }
                match socket.send(templates) {
                    Ok(_) => sent.datagrams += 1,
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        turn: usize,
        batch: usize,
        headers: &mut MultiHeaders<SockaddrStorage>,
        sent: &mut Sent,
    ) -> io::Result<()> {
        const NOWHERE: [Option<SockaddrStorage>; BATCH] = [None; BATCH];
        const NOTHING: [ControlMessage<'static>; 0] = [];
        let pool = &mut self.pools[turn];
        let batch = batch.min(pool.datagrams.len() - pool.next);
        let range = pool.next..pool.next + batch;
        let now = now_ms();
        for datagram in &mut pool.datagrams[range.clone()] {
            Pool::stamp(&pool.shape, datagram, &mut pool.sequence, now);
        }
        pool.next = if range.end == pool.datagrams.len() { 0 } else { range.end };
        let mut left: Vec<[io::IoSlice<'_>; 1]> =
            pool.datagrams[range].iter().map(|d| [io::IoSlice::new(d)]).collect();
        let socket = self.sockets[turn].as_raw_fd();
        while !left.is_empty() {
            let addresses = &NOWHERE[..left.len()];
            let result =
                sendmmsg(socket, headers, left.iter(), addresses, NOTHING, MsgFlags::empty());
            match result.map(Iterator::count) {
                Ok(count) => {
                    sent.datagrams += count as u64;
                    sent.records += (count * pool.shape.records) as u64;
                    left.drain(..count);
                }
                // Nobody listens: what was sent before went nowhere, which is not ours to judge.
                Err(Errno::ECONNREFUSED | Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS) => std::thread::yield_now(),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {

    use std::sync::Arc;

    use weir_collector::{Config, ExporterConfig, Registry, Shard};
    use weir_model::{Inventory, Millis, PrefixSet};

    use super::*;

    #[test]
    fn every_host_is_met_once_before_any_again() {
        let mut shape = Shape::new(FlowProtocol::NetflowV5, 3001);
        shape.records = 10;
        let pool = Pool::new(shape, 3);
        let records = pool.datagrams.iter().flat_map(|d| d[24..].chunks_exact(48));
        let mut met: Vec<u32> = records
            .map(|r| u32::from_be_bytes([r[4], r[5], r[6], r[7]]) - 0x0a00_0000)
            .take(3001)
            .collect();
        met.sort_unstable();
        assert!(met.into_iter().eq(0..3001));
    }

    /// The collector finds every record, once, in the present, and no gap in the sequence.
    #[test]
    fn what_is_sent_is_what_a_collector_reads() {
        for protocol in [
            FlowProtocol::NetflowV5,
            FlowProtocol::NetflowV9,
            FlowProtocol::Ipfix,
            FlowProtocol::Sflow,
        ] {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let to = socket.local_addr().unwrap();
            let mut generator = Generator::new(Shape::new(protocol, 1000), 1, to, 7).unwrap();
            let sent = generator.run(2000.0, 0.05).unwrap();
            assert!(sent.records >= 18, "{protocol:?}: {sent:?}");

            let mut config = Config::default();
            config.exporters.push(ExporterConfig::new("127.0.0.0/8".parse().unwrap()));
            let nets: PrefixSet = ["10.0.0.0/16".parse().unwrap()].into_iter().collect();
            let inventory = Arc::new(Inventory::new(nets, PrefixSet::default(), Vec::new()));
            let mut shard = Shard::new(0, &config, inventory, Arc::new(Registry::default()));
            let mut records = 0;
            let mut buffer = [0; 2000];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let now = now_ms();
                let see = |record: &weir_model::FlowRecord| {
                    records += 1;
                    assert!(now.abs_diff(record.end.0) < 1000, "{protocol:?}: {record:?}");
                };
                shard.records(from, &buffer[..len], Millis(now), see).unwrap();
            }
            assert_eq!(records, sent.records, "{protocol:?}");
            let status = shard.exporters();
            assert_eq!(status[0].lost, 0, "{protocol:?}: {status:?}");
        }
    }

    #[test]
    fn nothing_is_ever_sent_to_the_world() {
        let to = "192.0.2.1:2055".parse().unwrap();
        let shape = Shape::new(FlowProtocol::NetflowV5, 10);
        assert!(Generator::new(shape, 1, to, 1).is_err());
    }
}
