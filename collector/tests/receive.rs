//! Real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use weir_collector::socket::{SliceSink, bind};
use weir_collector::{Config, Counters, ExporterConfig, Registry};
use weir_model::{ExporterStatus, Inventory, Slice};

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
    let inventory = Inventory::new(
        ["203.0.113.0/24".parse().unwrap()].into_iter().collect(),
        Default::default(),
        vec![],
    );
    let receivers = bind(&config, &Arc::new(inventory), &Arc::new(Registry::default())).unwrap();
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
