//! What a weir has learned that has been there for a while, made in virtual time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use weir::daemon::now;
use weir::replay::Player;
use weir_model::Inventory;
use weir_store::Store;
use weir_traffic::case::play;
use weir_traffic::exporter::{AgentConfig, ExporterSpec, Kind};
use weir_traffic::{Locals, Peers, Port, Rate, SECOND_US, Scene, Source, Variant, Via};

/// Minutes of ordinary play.
const MINUTES: u64 = 6;

/// Writes a state file that knows ordinary play on 10.10.10.10:30120: so many datagrams a second of
/// 128 octets.
///
/// # Panics
/// When the configuration makes no sense or the file cannot be written.
pub fn player(config: &str, state: &Path, packets_per_sec: f64) {
    let (config, _) = weir_config::parse(config).expect("a configuration");
    let secs = MINUTES * 60;
    let server = IpAddr::V4(Ipv4Addr::new(10, 10, 10, 10));
    let source = Source::new(
        "players",
        Rate::steady(0.0, secs as f64, packets_per_sec),
        Peers::Hosts(3),
        Locals::List(vec![server]),
        vec![Variant::udp(Port::Session, Port::Fixed(30120), (128, 128)).with_ttl(63, 63)],
    );
    let agent = AgentConfig { rate: 4, ..AgentConfig::default() };
    let scene = Scene {
        name: "ordinary-play".to_owned(),
        seed: 1,
        inventory: Inventory::default(),
        exporters: vec![ExporterSpec {
            name: "edge".to_owned(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            kind: Kind::Sflow(agent),
            clock_skew_ms: 0,
            faults: Vec::new(),
            inbound_only: false,
        }],
        via: Via::One,
        sources: vec![source],
        crowds: Vec::new(),
        attacks: Vec::new(),
        duration_us: secs * SECOND_US,
        learning_us: 0,
        tick_us: 10_000,
        train: 1,
        link_bits_per_sec: 1_000_000_000,
    };
    let end = now();
    let epoch = end - secs * 1000;
    let mut learner = Player::new(&config, epoch);
    let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_000);
    let played = play(&scene, epoch, |datagram| {
        let at = epoch + datagram.at_ms();
        if at < end {
            learner.until(at);
            learner.datagram(from, &datagram.payload);
        }
        Ok::<(), std::convert::Infallible>(())
    });
    let Ok(_) = played;
    learner.until(end);
    let learned = learner.core().detector().checkpoint();
    let body = postcard::to_stdvec(&learned).expect("plain data");
    let mut store = Store::open(state).expect("a state file");
    store.put_blob("detector-1", end, &body).expect("a state file");
}
