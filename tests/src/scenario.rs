//! One case of the suite, from packets to score, in virtual time.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use weir::score::{Defender, config_for};
use weir_config::Config;
use weir_model::Millis;
use weir_traffic::Scene;
use weir_traffic::case::{play, world_of};
use weir_traffic::pcap;
use weir_traffic::score::{self, CaseScore, Event};
use weir_traffic::suite::{Case, Feed};

/// Time 0 of all scenes.
pub const EPOCH: Millis = Millis::from_secs(1_800_000_000);

/// What a case came to.
#[derive(Debug)]
pub struct Outcome {
    /// Its score.
    pub score: CaseScore,
    /// What weir said and did.
    pub events: Vec<Event>,
    /// What it decided, a line each.
    pub decisions: Vec<String>,
}

/// Plays and scores a case.
///
/// # Panics
/// When the case's own services make no configuration.
pub fn run(case: &Case, feed: Feed, seed: u64, config: &Config) -> Outcome {
    let scene = case.scene(feed, seed);
    let world = world_of(&scene, case.title, EPOCH);
    let config = config_for(&world, config).expect("the suite's services are ports");
    let mut defender = Defender::new(&config, EPOCH);
    let played = play(&scene, EPOCH, |datagram| {
        let from = SocketAddr::new(scene.exporters[datagram.exporter].address, 50_000);
        defender.datagram(EPOCH + datagram.at_ms(), from, &datagram.payload);
        Ok::<(), std::convert::Infallible>(())
    });
    let Ok((truths, mix)) = played;
    defender.until(EPOCH + world.seconds * 1000);
    let events = defender.events().to_vec();
    let decisions = defender
        .finish()
        .decisions
        .iter()
        .map(|d| {
            let at = d.at.since(EPOCH) as f64 / 1000.0;
            format!("{at:9.1} {} {}: {}", d.target, d.action, d.detail)
        })
        .collect();
    Outcome { score: score::score(&world, &truths, &mix, &events), events, decisions }
}

/// Writes a case to a directory of its name in `dir`, for `weir score`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(case: &Case, feed: Feed, seed: u64, dir: &Path) -> io::Result<()> {
    let scene = case.scene(feed, seed);
    write_scene(&scene, case.title, &dir.join(&scene.name))
}

/// Writes a scene to a directory as a case.
///
/// # Errors
/// When a file cannot be written.
pub fn write_scene(scene: &Scene, title: &str, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let create = |name: &str| File::create(dir.join(name)).map(BufWriter::new);
    let world = world_of(scene, title, EPOCH);
    serde_json::to_writer_pretty(create("world.json")?, &world)?;
    let mut capture = pcap::Writer::new(create("input.pcap")?)?;
    let (truths, mix) = play(scene, EPOCH, |datagram| {
        let spec = &scene.exporters[datagram.exporter];
        let from = SocketAddr::new(spec.address, 50_000);
        let to = SocketAddr::new([192, 0, 2, 250].into(), spec.port());
        capture.datagram(EPOCH, datagram.at_us, from, to, &datagram.payload)
    })?;
    capture.finish()?;
    let mut lines = create("truth.jsonl")?;
    for truth in truths {
        serde_json::to_writer(&mut lines, &truth)?;
        writeln!(lines)?;
    }
    lines.flush()?;
    let mut rows = create("mix.csv")?;
    mix.write(&mut rows)?;
    rows.flush()
}
