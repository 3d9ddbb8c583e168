//! Real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use support::*;
use weir_collector::socket::{SliceSink, bind};
use weir_collector::{Config, Counters, ExporterConfig, Registry};
use weir_model::{ExporterStatus, Slice};

struct Sink(mpsc::Sender<Slice>, mpsc::Sender<Counters>);

impl SliceSink for Sink {
    fn slice(&mut self, slice: Box<Slice>) -> Box<Slice> {
        let _ = self.0.send(*slice);
        Box::default()
    }

    fn health(&mut self, _: Vec<ExporterStatus>, counters: Counters) {
        let _ = self.1.send(counters);
    }
}

#[test]
fn datagrams_become_slices_and_the_last_one_is_handed_over() {
    let local: ipnet::IpNet = "127.0.0.1/32".parse().unwrap();
    let router = ExporterConfig::new(local);
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        exporters: vec![router],
        sockets_per_listener: 2,
        ..Config::default()
    };
    let receivers = bind(&config, &inventory(), &Arc::new(Registry::default())).unwrap();
    assert_eq!(receivers.len(), 2);
    let to = receivers[0].local_addr();
    assert_eq!(to, receivers[1].local_addr());

    let stop = Arc::new(AtomicBool::new(false));
    let (slices, arrived) = mpsc::channel();
    let (health, counted) = mpsc::channel();
    let threads: Vec<_> = receivers
        .into_iter()
        .map(|receiver| {
            let (stop, sink) = (Arc::clone(&stop), Sink(slices.clone(), health.clone()));
            std::thread::spawn(move || receiver.run(sink, &stop))
        })
        .collect();
    drop((slices, health));

    let mut datagram = vec![0_u8; 24 + 48];
    datagram[1] = 5;
    datagram[3] = 1;
    datagram[28..32].copy_from_slice(&[203, 0, 113, 1]);
    datagram[24 + 19] = 1;
    datagram[24 + 23] = 40;
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..100 {
        from.send_to(&datagram, to).unwrap();
    }
    let mut packets = 0;
    for slice in arrived.iter() {
        packets += slice.hosts.iter().map(|h| h.total().packets).sum::<u64>();
        if packets == 100 {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|t| t.join().unwrap());
    let last: Vec<_> = counted.iter().collect();
    assert_eq!(packets, 100);
    assert!(last.iter().all(|c| c.receive_buffer_given > 0));
    assert!(last.iter().any(|c| c.flows == 100));
}

#[test]
fn ipfix_over_tcp_keeps_its_framing_and_its_templates() {
    let local: ipnet::IpNet = "127.0.0.1/32".parse().unwrap();
    let config = Config {
        listen: Vec::new(),
        listen_tcp: vec!["127.0.0.1:0".parse().unwrap()],
        exporters: vec![ExporterConfig::new(local)],
        ..Config::default()
    };
    let receivers = bind(&config, &inventory(), &Arc::new(Registry::default())).unwrap();
    let to = receivers[0].local_addr();
    let stop = Arc::new(AtomicBool::new(false));
    let (slices, arrived) = mpsc::channel();
    let (health, counted) = mpsc::channel();
    let receiver = receivers.into_iter().next().unwrap();
    let thread = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || receiver.run(Sink(slices, health), &stop))
    };
    let fields = iana(&[(8, 4), (12, 4), (1, 4), (2, 4)]);
    let define = || ipfix(0, 1, &[set(2, &template(256, &fields))]);
    let record = bytes().raw(&[198, 51, 100, 1, 203, 0, 113, 7]).u32(100).u32(1).0;
    let data = || ipfix(0, 1, &[set(256, &record)]);
    let packets = |wanted: u64| {
        let mut sum = 0;
        while sum < wanted {
            let slice = arrived.recv().unwrap();
            sum += slice.hosts.iter().map(|h| h.total().packets).sum::<u64>();
        }
        sum
    };
    // Messages in pieces that have nothing to do with their bounds.
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in [define(), data(), data()].concat().chunks(7) {
        stream.write_all(piece).unwrap();
    }
    assert_eq!(packets(2), 2);
    // Another connection knows nothing of that template; nonsense ends it.
    let mut other = TcpStream::connect(to).unwrap();
    other.write_all(&data()).unwrap();
    other.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(other.read(&mut [0; 16]).unwrap_or(0), 0);
    stream.write_all(&data()).unwrap();
    assert_eq!(packets(1), 1);
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    let counters = counted.iter().last().unwrap();
    assert_eq!((counters.flows, counters.unknown_templates), (3, 1));
    assert_eq!(counters.errors.iter().sum::<u64>(), 1);
}

#[test]
fn workers_share_the_hosts_of_one_exporter() {
    let local: ipnet::IpNet = "127.0.0.1/32".parse().unwrap();
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        exporters: vec![ExporterConfig::new(local)],
        workers_per_socket: 3,
        ..Config::default()
    };
    let mut receivers = bind(&config, &inventory(), &Arc::new(Registry::default())).unwrap();
    let receiver = receivers.remove(0);
    let to = receiver.local_addr();
    let stop = Arc::new(AtomicBool::new(false));
    let (slices, arrived) = mpsc::channel();
    let (health, counted) = mpsc::channel();
    let thread = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || receiver.run(Sink(slices, health), &stop))
    };
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut packets = 0;
    let mut slots = Vec::new();
    let mut take = |slice: Slice| {
        slots.push(slice.slot);
        let mut hosts: Vec<_> = slice.hosts.iter().map(|h| (h.host, h.slot)).collect();
        let all = hosts.len();
        hosts.sort();
        hosts.dedup();
        assert_eq!(hosts.len(), all, "a host is one worker's");
        packets += slice.hosts.iter().map(|h| h.total().packets + h.outbound.packets).sum::<u64>();
        packets
    };
    // From one protected host to another: both sides count, each once.
    for n in 0..100_u8 {
        let record = |r: u8| v5_record([203, 0, 113, n], [203, 0, 113, 200 + r], 1, 5, 5);
        let records: Vec<_> = (0..30).map(record).collect();
        from.send_to(&v5(5, 1, u32::from(n) * 30, &records), to).unwrap();
    }
    for slice in arrived.iter() {
        if take(slice) == 100 * 30 * 10 * 2 {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    arrived.iter().for_each(|slice| {
        take(slice);
    });
    assert_eq!(packets, 60_000);
    assert!(slots.is_sorted_by(|a, b| a < b), "{slots:?}");
    let counters = counted.iter().last().unwrap();
    assert_eq!((counters.flows, counters.queue_drops), (3000, 0));
}
