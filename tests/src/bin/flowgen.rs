//! Sends flow exports over loopback at a rate, or receives and counts them.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weir_model::FlowProtocol;
use weir_tests::load::{Generator, Shape};

const HELP: &str = "\
flowgen PROTOCOL ADDRESS:PORT [--rate R] [--seconds S] [--hosts N] [--exporters N] [--sampling N] [--seed N]
flowgen sink ADDRESS:PORT [--seconds S]
  PROTOCOL  netflow-v5, netflow-v9, ipfix or sflow
  --rate    records (samples) a second; 0 = as fast as possible (default)
  --seconds how long, at most 300 (default 3)
  --hosts   destinations from 10.0.0.0 on (default 65536)
Prints what was sent or received as one JSON object. Sends to loopback only.";

fn main() -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    let (Some(what), Some(Ok(address))) = (words.next(), words.next().map(|a| a.parse())) else {
        return usage();
    };
    let address: SocketAddr = address;
    let (mut rate, mut seconds, mut hosts, mut exporters, mut sampling, mut seed) =
        (0.0, 3.0, 65_536, 1, 1, 1);
    while let Some(word) = words.next() {
        let Some(value) = words.next().and_then(|v| v.parse::<f64>().ok()) else { return usage() };
        let whole = format!("{value:.0}");
        match word.as_str() {
            "--rate" => rate = value,
            "--seconds" => seconds = value,
            "--hosts" => hosts = whole.parse().unwrap_or(hosts),
            "--exporters" => exporters = whole.parse().unwrap_or(exporters),
            "--sampling" => sampling = whole.parse().unwrap_or(sampling),
            "--seed" => seed = whole.parse().unwrap_or(seed),
            _ => return usage(),
        }
    }
    let protocol = match what.as_str() {
        "netflow-v5" => FlowProtocol::NetflowV5,
        "netflow-v9" => FlowProtocol::NetflowV9,
        "ipfix" => FlowProtocol::Ipfix,
        "sflow" => FlowProtocol::Sflow,
        "sink" => return sink(address, seconds),
        _ => return usage(),
    };
    let shape = Shape { sampling, ..Shape::new(protocol, hosts) };
    let sent = Generator::new(shape, exporters, address, seed)?.run(rate, seconds)?;
    writeln!(
        io::stdout(),
        "{{\"records\":{},\"datagrams\":{},\"seconds\":{:.3}}}",
        sent.records,
        sent.datagrams,
        sent.seconds
    )
}

fn usage() -> io::Result<()> {
    writeln!(io::stderr(), "{HELP}")?;
    Err(io::ErrorKind::InvalidInput.into())
}

/// A socket that only receives: what any collector is measured against.
fn sink(address: SocketAddr, seconds: f64) -> io::Result<()> {
    use nix::sys::socket::{
        MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt, sockopt,
    };
    use std::os::fd::AsRawFd as _;

    let socket = std::net::UdpSocket::bind(address)?;
    // Beyond the system's limit where we may, up to it where not.
    if setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &(16 << 20))?;
    }
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut buffers = vec![[0_u8; 2048]; 64];
    let mut headers: MultiHeaders<SockaddrStorage> = MultiHeaders::preallocate(64, None);
    let (mut datagrams, mut octets) = (0_u64, 0_u64);
    while Instant::now() < end {
        let mut slices: Vec<[io::IoSliceMut<'_>; 1]> =
            buffers.iter_mut().map(|b| [io::IoSliceMut::new(b)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let Ok(received) =
            recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None)
        else {
            continue;
        };
        for message in received {
            datagrams += 1;
            octets += message.bytes as u64;
        }
    }
    writeln!(io::stdout(), "{{\"datagrams\":{datagrams},\"octets\":{octets}}}")
}
