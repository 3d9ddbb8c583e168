//! Drawn worlds, played and counted: what a detector does on days that it was not made for.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use weir::score::{Defender, config_for};
use weir_config::Config;
use weir_traffic::Rng;
use weir_traffic::case::{play, world_of};
use weir_traffic::score::{self, CaseScore, Event, Loss, Losses, Stratum, summarise};
use weir_traffic::suite::Feed;
use weir_traffic::world::{Side, World};

use crate::scenario::EPOCH;

/// A world in which less of the ordinary traffic arrives than this share of what arrives without
/// defence has failed.
const GOODPUT_KEPT: f64 = 0.995;

/// What a world came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Played {
    /// The world's seed.
    pub seed: u64,
    /// Which side of it.
    pub side: Side,
    /// What happens in it.
    pub happens: Vec<String>,
    /// Hosts that have behaviours.
    pub hosts: usize,
    /// Its score.
    pub score: CaseScore,
    /// What measures took from ordinary traffic.
    pub losses: Losses,
    /// What weir said and did; not kept on disk.
    #[serde(skip)]
    pub events: Vec<Event>,
    /// What it decided, a line each; not kept on disk.
    #[serde(skip)]
    pub decisions: Vec<String>,
}

/// Plays and scores the world of a seed.
///
/// # Panics
/// When the world's own services make no configuration.
pub fn run(seed: u64, feed: Feed, side: Side, config: &Config) -> Played {
    let World { scene, hosts, happens, .. } = World::draw(seed, feed, side);
    let world = world_of(&scene, &happens.join(", "), EPOCH);
    let config = config_for(&world, config).expect("a world's services are ports");
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
    let score = score::score(&world, &truths, &mix, &events);
    let losses = score::losses(&world, &truths, &mix, &events);
    Played { seed, side, happens, hosts: hosts.len(), score, losses, events, decisions }
}

impl Played {
    /// What is wrong with it, in words; empty when all is well.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let s = &self.score;
        let mut fault = |wrong: bool, what: String| {
            if wrong {
                faults.push(what);
            }
        };
        let missed = s.attacks.iter().filter(|a| a.delay_flow_ms.is_none()).count();
        fault(missed > 0, "missed".to_owned());
        fault(s.false_announcements > 0, format!("{} false announcements", s.false_announcements));
        fault(s.false_incidents > 0, format!("{} false incidents", s.false_incidents));
        fault(self.worse_than_nothing(), "goodput below doing nothing".to_owned());
        fault(
            s.goodput.tool < GOODPUT_KEPT * s.goodput.none,
            format!("goodput {:.4} ({:.4} without defence)", s.goodput.tool, s.goodput.none),
        );
        let cover = s.attacks.iter().filter(|a| !a.alert_suffices).filter_map(|a| a.coverage);
        let cover = cover.fold(1.0, f64::min);
        fault(cover < 0.9, format!("coverage {:.1} %", cover * 100.0));
        for (stratum, loss) in &self.losses.strata {
            let name = match stratum {
                Stratum::NewConnections => "new connections".to_owned(),
                Stratum::Service { address, protocol, port } => {
                    format!("{address} port {port}/{protocol}")
                }
                Stratum::Rest => "the rest".to_owned(),
            };
            let share = loss.share();
            fault(share > 0.01, format!("{:.1} % of {name} cut", share * 100.0));
        }
        faults
    }

    /// Whether less arrives than if nobody had done anything.
    pub fn worse_than_nothing(&self) -> bool {
        self.score.goodput.tool < self.score.goodput.none - 1e-6
    }

    /// Points less ten for each false announcement, at least -100.
    pub fn points(&self) -> f64 {
        (self.score.points - 10.0 * self.score.false_announcements as f64).max(-100.0)
    }

    /// A line that says how to play it alone and what was wrong; none when all is well.
    pub fn failure(&self, feed: Feed) -> Option<String> {
        let faults = self.faults();
        (!faults.is_empty()).then(|| {
            format!(
                "--world {} --{} --feed {}: {}: {}",
                self.seed,
                if self.side == Side::Benign { "benign" } else { "attacks" },
                feed.id(),
                self.happens.join(" + "),
                faults.join(", ")
            )
        })
    }
}

/// A line of a file of results.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// What was measured: a commit.
    of: String,
    /// Over which feed.
    feed: String,
    #[serde(flatten)]
    played: Played,
}

/// Results that outlive a run: a line for each world, so that hours of worlds are played in parts.
#[derive(Debug)]
pub struct Results {
    file: File,
    of: String,
}

impl Results {
    /// Opens a file of results of `of`, a commit.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(path: &Path, of: &str) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, of: of.to_owned() })
    }

    /// What is there already of one side over a feed, of the same commit.
    ///
    /// # Errors
    /// When it cannot be read or a line makes no sense.
    pub fn read(&self, path: &Path, feed: Feed, side: Side) -> io::Result<Vec<Played>> {
        let mut list = Vec::new();
        for line in BufReader::new(File::open(path)?).lines() {
            let line: Line = serde_json::from_str(&line?)?;
            if line.of == self.of && line.feed == feed.id() && line.played.side == side {
                list.push(line.played);
            }
        }
        Ok(list)
    }

    /// Appends a world.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&mut self, feed: Feed, played: &Played) -> io::Result<()> {
        let (of, feed) = (self.of.clone(), feed.id().to_owned());
        let mut line = serde_json::to_string(&Line { of, feed, played: played.clone() })?;
        line.push('\n');
        // In one piece: whoever is stopped in between leaves whole lines.
        self.file.write_all(line.as_bytes())
    }
}

/// A share of a count with its interval (Wilson, 95 %).
fn share(part: usize, whole: usize) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let (n, p, z) = (whole as f64, part as f64 / whole as f64, 1.96);
    let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let reach = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    format!("{p:.3} ({:.3} to {:.3})", (middle - reach).max(0.0), (middle + reach).min(1.0))
}

/// A mean with its interval: 2.5 % and 97.5 % of a thousand means of worlds drawn again.
fn mean(values: &[f64]) -> String {
    if values.is_empty() {
        return "-".to_owned();
    }
    let of = |sum: f64| sum / values.len() as f64;
    let mut rng = Rng::new(values.len() as u64);
    let limit = u32::try_from(values.len()).unwrap_or(u32::MAX);
    let mut again: Vec<f64> = (0..1000)
        .map(|_| of(values.iter().map(|_| values[rng.below(limit) as usize]).sum()))
        .collect();
    again.sort_by(f64::total_cmp);
    format!("{:.1} ({:.1} to {:.1})", of(values.iter().sum()), again[25], again[974])
}

/// Octets cut of a stratum, whole and in the worst world.
fn stratum_line(played: &[Played], name: &str, of: fn(&Stratum) -> bool) -> String {
    let (mut sum, mut worst) = (Loss::default(), 0.0f64);
    for world in played {
        for (_, loss) in world.losses.strata.iter().filter(|(s, _)| of(s)) {
            sum.add(loss);
            worst = worst.max(loss.share());
        }
    }
    format!("{name} {:.3} %, worst {:.1} %", sum.share() * 100.0, worst * 100.0)
}

/// The figures of some worlds of one side over one feed, in words.
pub fn figures(feed: Feed, side: Side, played: &[Played]) -> String {
    let mut out = String::new();
    let Some(first) = played.iter().map(|p| p.seed).min() else { return out };
    let last = played.iter().map(|p| p.seed).max().unwrap_or(first);
    let scores: Vec<CaseScore> = played.iter().map(|p| p.score.clone()).collect();
    let sum = summarise(&scores);
    let hours = played.iter().map(|p| p.score.seconds as f64 / 3600.0).sum::<f64>();
    let host_hours =
        played.iter().map(|p| p.hosts as f64 * p.score.seconds as f64 / 3600.0).sum::<f64>();
    let million = |value: f64| value / host_hours * 1e6;
    let (mut whole, mut ruled) = (Loss::default(), Loss::default());
    for world in played {
        whole.add(&world.losses.whole);
        ruled.add(&world.losses.ruled);
    }
    let count = |what: fn(&Played) -> bool| played.iter().filter(|p| what(p)).count();
    let worlds = played.len();
    let _ = writeln!(
        out,
        "{}, {}, seeds {first} to {last}: {worlds} worlds, {hours:.1} world-hours, {host_hours:.1} host-hours",
        feed.id(),
        side.id()
    );
    let _ = writeln!(
        out,
        "  false announcements {} in {} worlds, share {}; {:.1} a hundred world-hours, {:.0} per million host-hours",
        sum.false_announcements,
        count(|p| p.score.false_announcements > 0),
        share(count(|p| p.score.false_announcements > 0), worlds),
        sum.false_announcements as f64 / hours * 100.0,
        million(sum.false_announcements as f64)
    );
    let _ = writeln!(
        out,
        "  false incidents {} in {} worlds, share {}; {:.0} per million host-hours; calibration error {:.3}",
        sum.false_incidents,
        count(|p| p.score.false_incidents > 0),
        share(count(|p| p.score.false_incidents > 0), worlds),
        million(sum.false_incidents as f64),
        sum.calibration_error
    );
    let _ = writeln!(
        out,
        "  benign octets cut {:.4} % of all, {:.2} % while measures stood; {:.0} GB per million host-hours",
        whole.share() * 100.0,
        ruled.share() * 100.0,
        million(whole.cut) / 1e9
    );
    let _ = writeln!(
        out,
        "  by stratum: {}; {}; {}",
        stratum_line(played, "new connections", |s| *s == Stratum::NewConnections),
        stratum_line(played, "declared services", |s| matches!(s, Stratum::Service { .. })),
        stratum_line(played, "rest", |s| *s == Stratum::Rest)
    );
    let _ = writeln!(
        out,
        "  goodput below doing nothing in {} worlds, share {}; below {} % of it in {}",
        count(Played::worse_than_nothing),
        share(count(Played::worse_than_nothing), worlds),
        GOODPUT_KEPT * 100.0,
        count(|p| p.score.goodput.tool < GOODPUT_KEPT * p.score.goodput.none)
    );
    if side == Side::Attack {
        let found = |p: &&Played| p.score.attacks.iter().all(|a| a.delay_flow_ms.is_some());
        let _ = writeln!(
            out,
            "  recall {}; wrong family {:.1} %; verdict after {:.2} s, 95 % {:.2} s; announced after {:.2} s, 95 % {:.2} s",
            share(played.iter().filter(found).count(), worlds),
            sum.wrong_family * 100.0,
            sum.delay_flow_ms.median / 1000.0,
            sum.delay_flow_ms.p95 / 1000.0,
            sum.delay_announce_ms.median / 1000.0,
            sum.delay_announce_ms.p95 / 1000.0
        );
        let _ = writeln!(
            out,
            "  coverage: median {:.1} %, 5 % {:.1} %; normal traffic hit: median {:.2} %, 95 % {:.2} %, worst {:.1} %",
            sum.coverage.median * 100.0,
            sum.coverage.p95 * 100.0,
            sum.collateral.median * 100.0,
            sum.collateral.p95 * 100.0,
            sum.collateral.worst * 100.0
        );
    }
    let plain: Vec<f64> = played.iter().map(|p| p.score.points).collect();
    let less: Vec<f64> = played.iter().map(Played::points).collect();
    let _ = write!(
        out,
        "  points {}; less ten for each false announcement {}",
        mean(&plain),
        mean(&less)
    );
    out
}
