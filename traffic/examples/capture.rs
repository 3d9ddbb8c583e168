//! Writes the demonstration's datagrams as a capture: `cargo run -p weir-traffic --example capture
//! FILE [SEED]`.

use std::fs::File;
use std::io::{self, BufWriter};
use std::net::SocketAddr;

use weir_model::Millis;
use weir_traffic::{Scene, pcap};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or(io::ErrorKind::InvalidInput)?;
    let seed = args.next().and_then(|s| s.parse().ok()).unwrap_or(1);
    let scene = Scene::demo(seed);
    let epoch = Millis::from_secs(1_800_000_000);
    let mut out = pcap::Writer::new(BufWriter::new(File::create(file)?))?;
    for datagram in scene.stream(epoch) {
        let spec = &scene.exporters[datagram.exporter];
        let from = SocketAddr::new(spec.address, 50_000);
        let to = SocketAddr::new([192, 0, 2, 250].into(), spec.port());
        out.datagram(epoch, datagram.at_us, from, to, &datagram.payload)?;
    }
    out.finish()?;
    Ok(())
}
