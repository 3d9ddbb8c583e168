//! Fits the detector's confidence model to the scenario suite, or shows how well it holds.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use weir::score::config_for;
use weir_collector::{Registry, Shard};
use weir_config::Config;
use weir_detector::Detector;
use weir_detector::confidence::{COEFFICIENTS, FEATURES, NAMES};
use weir_model::{Millis, Slice};
use weir_tests::calibration::{
    Bin, Observation, calibration_error, fit, observations, reliability,
};
use weir_tests::scenario::EPOCH;
use weir_traffic::case::{play, world_of};
use weir_traffic::suite::{self, Case, Feed};

const HELP: &str = "\
fit [--feed FEED] [--seed N] [--seeds N] [--jobs N] [--check] [ID...]
  --feed FEED   sflow-64, sflow-1000, netflow-v5, netflow-v9, ipfix-100, ipfix-100-1s, several of them
                with commas between, or all (default)
  --seed N      first seed (default 1)
  --seeds N     this many seeds (default 1)
  --jobs N      play this many cases at once (default 1)
  --check       fit nothing: show how well weir's own coefficients hold
  ID            A1 to A26, B1 to B19; all of them when none is named";

/// A case to be played.
type Job = (&'static Case, Feed, u64);

struct Options {
    jobs: Vec<Job>,
    at_once: usize,
    check: bool,
}

fn options() -> Option<Options> {
    let (mut feeds, mut seed, mut seeds) = (Feed::ALL.to_vec(), 1_u64, 1_u64);
    let (mut at_once, mut check, mut ids) = (1, false, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--feed" => match args.next()?.as_str() {
                "all" => feeds = Feed::ALL.to_vec(),
                names => feeds = names.split(',').map(Feed::from_id).collect::<Option<_>>()?,
            },
            "--seed" => seed = args.next()?.parse().ok()?,
            "--seeds" => seeds = args.next()?.parse().ok()?,
            "--jobs" => at_once = args.next()?.parse().ok().filter(|n| *n > 0)?,
            "--check" => check = true,
            id => ids.push(suite::case(id)?.id),
        }
    }
    let wanted = |case: &&'static Case| match ids.as_slice() {
        [] => case.id != "B20",
        ids => ids.contains(&case.id),
    };
    let jobs = feeds
        .into_iter()
        .flat_map(|feed| (seed..seed + seeds).map(move |seed| (feed, seed)))
        .flat_map(|(feed, seed)| suite::cases().filter(wanted).map(move |case| (case, feed, seed)))
        .collect();
    Some(Options { jobs, at_once, check })
}

/// What is judged in a case: shard and detector in virtual time.
///
/// # Panics
/// When the case's own services make no configuration.
fn judge((case, feed, seed): Job) -> Vec<Observation> {
    let scene = case.scene(feed, seed);
    let world = world_of(&scene, case.title, EPOCH);
    let config = config_for(&world, &Config::default()).expect("the suite's services are ports");
    let inventory = Arc::new(config.inventory());
    let registry = Arc::new(Registry::default());
    let mut shard = Shard::new(0, &config.collector, Arc::clone(&inventory), registry);
    let mut detector = Detector::new(config.detector, inventory);
    let (mut slice, mut said) = (Slice::default(), Vec::new());
    let mut judged = detector.take_judged();
    let mut slot = EPOCH.slot();
    let mut until = |shard: &mut Shard, to: u64| {
        while slot < to {
            shard.seal(slot, &mut slice);
            slot += 1;
            detector.slice(&slice);
            said.clear();
            detector.advance(Millis::from_slot(slot), &mut said);
            judged.extend(detector.take_judged());
        }
    };
    let played = play(&scene, EPOCH, |datagram| {
        let at = EPOCH + datagram.at_ms();
        until(&mut shard, at.slot());
        let from = SocketAddr::new(scene.exporters[datagram.exporter].address, 50_000);
        // The shard keeps what stood before a damage and counts the rest.
        let _ = shard.datagram(from, &datagram.payload, at);
        Ok::<(), std::convert::Infallible>(())
    });
    let Ok((truths, _)) = played;
    until(&mut shard, (EPOCH + world.seconds * 1000).slot());
    observations(&scene.name, &judged, &truths)
}

/// Plays all, several at once; in the order of the list.
fn play_all(jobs: &[Job], at_once: usize) -> Vec<(Feed, Vec<Observation>)> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((index, job)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, jobs.get(i)?)))
                {
                    let found = judge(*job);
                    if let Ok(mut done) = done.lock() {
                        done.insert(index, (job.1, found));
                    }
                }
            });
        }
    });
    done.into_inner().map(|done| done.into_values().collect()).unwrap_or_default()
}

/// Reliability of what would be told, in all and for each feed.
fn show(
    played: &[(Feed, Vec<Observation>)],
    coefficients: &[f64; FEATURES],
    out: &mut impl io::Write,
) -> io::Result<()> {
    let least = f64::from(weir_detector::Config::default().report_confidence);
    let of = |feed: Option<Feed>, one_way: bool| -> [Bin; 10] {
        let chosen: Vec<Observation> = played
            .iter()
            .filter(|(f, _)| feed.is_none_or(|feed| feed == *f))
            .flat_map(|(_, found)| found.iter().filter(|o| o.one_way == one_way).cloned())
            .collect();
        reliability(&chosen, coefficients, least)
    };
    writeln!(
        out,
        "| confidence | targets judged | mean confidence | attacks |\n|---|---|---|---|"
    )?;
    let all = of(None, false);
    for (at, bin) in all.iter().enumerate().filter(|(_, bin)| bin.count > 0) {
        let (from, to) = (at * 10, at * 10 + 9);
        let (said, was) = (bin.said * 100.0, bin.was * 100.0);
        writeln!(out, "| {from}-{to} | {} | {said:.1} | {was:.1} % |", bin.count)?;
    }
    writeln!(out, "\n| feed | targets judged | calibration error |\n|---|---|---|")?;
    let row = |name: &str, bins: &[Bin]| {
        let count: usize = bins.iter().map(|b| b.count).sum();
        format!("| {name} | {count} | {:.3} |", calibration_error(bins))
    };
    let mut feeds: Vec<Feed> = played.iter().map(|(feed, _)| *feed).collect();
    feeds.dedup();
    for feed in feeds {
        writeln!(out, "{}", row(feed.id(), &of(Some(feed), false)))?;
    }
    writeln!(out, "{}", row("all", &all))?;
    writeln!(out, "{}", row("all, answers not seen", &of(None, true)))
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Some(options) = options() else {
        writeln!(out, "{HELP}")?;
        std::process::exit(2);
    };
    let played = play_all(&options.jobs, options.at_once);
    if options.check {
        return show(&played, &COEFFICIENTS, &mut out);
    }
    let all: Vec<Observation> =
        played.iter().flat_map(|(_, found)| found.iter().cloned()).collect();
    let found = fit(&all).map(|c| (c * 100.0).round() / 100.0);
    writeln!(out, "| feature | coefficient |\n|---|---|")?;
    for (name, coefficient) in NAMES.iter().zip(found) {
        writeln!(out, "| {name} | {coefficient} |")?;
    }
    writeln!(out, "\n    {found:?}\n")?;
    show(&played, &found, &mut out)
}
