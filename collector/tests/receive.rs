//! Real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use support::*;
use weir_collector::socket::{Receiver, SliceSink, bind};
use weir_collector::{Config, Counters, ExporterConfig, Registry, ReplicateConfig, TlsConfig};
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

/// Whether a receiver has counted what is waited for.
type Enough = fn(&Counters) -> bool;
/// Packets in all slices, and the last counters.
type Sums = (u64, Counters);

/// A receiver on its own thread; what it hands on comes out of the channels.
struct Started {
    stop: Arc<AtomicBool>,
    arrived: mpsc::Receiver<Slice>,
    counted: mpsc::Receiver<Counters>,
    thread: std::thread::JoinHandle<()>,
}

fn start(receiver: Receiver) -> Started {
    let stop = Arc::new(AtomicBool::new(false));
    let (slices, arrived) = mpsc::channel();
    let (health, counted) = mpsc::channel();
    let thread = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || receiver.run(Sink(slices, health), &stop))
    };
    Started { stop, arrived, counted, thread }
}

/// A receiver that is ended once it has counted enough.
fn running(
    config: &Config,
    before: impl FnOnce(std::net::SocketAddr),
) -> (impl FnOnce(Enough) -> Sums, std::net::SocketAddr) {
    let receiver = bind(config, &inventory(), &Arc::new(Registry::default())).unwrap().remove(0);
    let to = receiver.local_addr();
    before(to);
    let Started { stop, arrived, counted, thread } = start(receiver);
    let end = move |enough: Enough| {
        // A slice that has something in it: what came before has been read.
        let packets = |slice: &Slice| slice.hosts.iter().map(|h| h.total().packets).sum::<u64>();
        let mut sum = 0;
        while sum == 0 {
            sum += packets(&arrived.recv().unwrap());
        }
        assert!(counted.iter().any(|counters| enough(&counters)));
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
        sum += arrived.iter().map(|slice| packets(&slice)).sum::<u64>();
        (sum, counted.iter().last().unwrap())
    };
    (end, to)
}

#[test]
fn one_socket_hears_both_families() {
    let listed = |net: &str| ExporterConfig::new(net.parse().unwrap());
    let config = Config {
        listen: vec!["[::]:0".parse().unwrap()],
        exporters: vec![listed("127.0.0.1/32"), listed("::1/128")],
        ..Config::default()
    };
    let record = || v5_record([198, 51, 100, 1], [203, 0, 113, 7], 1, 5, 5);
    let mut sent = 0;
    let (end, _) = running(&config, |to| {
        for from in ["127.0.0.1:0", "[::1]:0"] {
            // A machine without IPv6 has one family to hear.
            let Ok(socket) = UdpSocket::bind(from) else { continue };
            let target = (socket.local_addr().unwrap().ip(), to.port());
            socket.send_to(&v5(5, 1, 1, &[record()]), target).unwrap();
            sent += 1;
        }
    });
    let (packets, counters) = end(|_| true);
    assert!(sent > 0);
    assert_eq!((packets, counters.unlisted), (sent * 10, 0));
}

#[test]
fn what_the_kernel_drops_is_counted() {
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        exporters: vec![ExporterConfig::new("127.0.0.1/32".parse().unwrap())],
        receive_buffer_bytes: 65_536,
        ..Config::default()
    };
    let records = vec![v5_record([198, 51, 100, 1], [203, 0, 113, 7], 1, 5, 5); 30];
    let sent = 2000_u64;
    // Nobody reads yet: the buffer fills up.
    let (end, to) = running(&config, |to| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for n in 0..sent {
            let sequence = u32::try_from(n).unwrap() * 30;
            socket.send_to(&v5(5, 1, sequence, &records), to).unwrap();
        }
    });
    // The count comes with the next datagram that arrives once the socket is read.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (done, more) = mpsc::channel::<()>();
    let late = std::thread::spawn(move || {
        while more.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
            socket.send_to(&v5(5, 1, 0, &[]), to).unwrap();
        }
    });
    let (_, counters) = end(|counters| counters.socket_drops > 0);
    drop(done);
    late.join().unwrap();
    assert!(counters.socket_drops > 0, "{counters:?}");
    let read = counters.flows / 30;
    assert!(read < sent && counters.receive_buffer_given >= 65_536, "{counters:?}");
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
    let Started { stop, arrived, counted, thread } = start(receiver);
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

/// An authority, and certificates signed by it, as PEM files in a folder.
struct Certificates {
    folder: tempfile::TempDir,
    authority: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        Self { folder, authority, issuer }
    }

    /// Signs a certificate and writes it with its key.
    fn sign(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        (certificate, key)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// A client's side, with a certificate or without.
    fn client(&self, own: Option<(rcgen::Certificate, rcgen::KeyPair)>) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
                builder.with_client_auth_cert(vec![certificate.der().clone()], key.into()).unwrap()
            }
        }
    }
}

#[test]
fn ipfix_over_tls_takes_exporters_with_the_right_certificate() {
    let certificates = Certificates::new();
    certificates.sign("weir.example");
    let tls = TlsConfig {
        cert: certificates.path("weir.example.pem"),
        key: certificates.path("weir.example.key"),
        client_ca: Some(certificates.path("ca.pem")),
    };
    let config = Config {
        listen: Vec::new(),
        listen_tls: vec!["127.0.0.1:0".parse().unwrap()],
        tls: Some(tls),
        exporters: vec![ExporterConfig::new("127.0.0.1/32".parse().unwrap())],
        ..Config::default()
    };
    let registry = Arc::new(Registry::default());
    let none = Config { tls: None, ..config.clone() };
    let error = bind(&none, &inventory(), &registry).unwrap_err();
    assert!(error.to_string().contains("tls"), "{error}");
    let receiver = bind(&config, &inventory(), &registry).unwrap().remove(0);
    let to = receiver.local_addr();
    let Started { stop, arrived, counted, thread } = start(receiver);
    let connect = |own| {
        let client = Arc::new(certificates.client(own));
        let name = "weir.example".try_into().unwrap();
        let tls = rustls::ClientConnection::new(client, name).unwrap();
        rustls::StreamOwned::new(tls, TcpStream::connect(to).unwrap())
    };
    let define = ipfix(0, 1, &[set(2, &template(256, &iana(&[(8, 4), (12, 4), (1, 4), (2, 4)])))]);
    let record = bytes().raw(&[198, 51, 100, 1, 203, 0, 113, 7]).u32(100).u32(1).0;
    let many = vec![record; 1000].concat();
    let data = || ipfix(0, 1, &[set(256, &many)]);
    // Without a certificate, and without TLS: cut off.
    let mut stranger = connect(None);
    let _ = stranger.write_all(&define);
    assert!(stranger.read(&mut [0; 16]).is_err());
    let mut plain = TcpStream::connect(to).unwrap();
    plain.write_all(&define).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(answer.len() < 32, "an alert at most");
    // More than one TLS record holds, in pieces.
    let mut exporter = connect(Some(certificates.sign("router.example")));
    for piece in [define, data(), data(), data()].concat().chunks(9001) {
        exporter.write_all(piece).unwrap();
    }
    exporter.flush().unwrap();
    let mut packets = 0;
    while packets < 3000 {
        let slice = arrived.recv().unwrap();
        packets += slice.hosts.iter().map(|h| h.total().packets).sum::<u64>();
    }
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    let counters = counted.iter().last().unwrap();
    assert_eq!((counters.flows, counters.errors.iter().sum::<u64>()), (3000, 0));
}

#[test]
fn what_is_accepted_is_sent_on_and_what_strangers_send_is_not() {
    let beside = UdpSocket::bind("127.0.0.1:0").unwrap();
    let replicate = vec![ReplicateConfig { to: beside.local_addr().unwrap() }];
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        exporters: vec![ExporterConfig::new("127.0.0.1/32".parse().unwrap())],
        replicate,
        ..Config::default()
    };
    let receiver = bind(&config, &inventory(), &Arc::new(Registry::default())).unwrap().remove(0);
    let to = receiver.local_addr();
    let started = start(receiver);
    let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
    let router = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&[0, 5, 9, 9], to).unwrap();
    let record = v5_record([198, 51, 100, 1], [203, 0, 113, 7], 80, 900, 1000);
    let whole = v5(1000, 0, 0, &[record]);
    // What cannot be read is accepted as well: the other collector may know better.
    for datagram in [&whole[..], &[0, 77, 1, 2, 3]] {
        router.send_to(datagram, to).unwrap();
        let mut got = [0; 2000];
        let (len, from) = beside.recv_from(&mut got).unwrap();
        assert_eq!(&got[..len], datagram);
        assert_ne!(from, router.local_addr().unwrap(), "from weir's own address");
    }
    started.stop.store(true, Ordering::Relaxed);
    started.thread.join().unwrap();
    let last = started.counted.iter().last().unwrap();
    assert_eq!((last.replicated, last.replicate_drops, last.unlisted), (2, 0, 1));
}
