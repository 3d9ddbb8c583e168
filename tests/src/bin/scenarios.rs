//! The scenario suite: plays its cases through the whole decision path in virtual time, or writes
//! them to disk for `weir score`. And worlds drawn by seed, which nobody has seen before.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use weir::score::{heading, line, line_heading, rows, totals};
use weir_config::Config;
use weir_tests::scenario;
use weir_tests::worlds::{self, Played, Results};
use weir_traffic::score::{CaseScore, summarise};
use weir_traffic::suite::{self, Feed};
use weir_traffic::world::{Side, World};

const HELP: &str = "\
scenarios [--feed FEED] [--seed N] [--seeds N] [--jobs N] [--write DIR] [--decisions] [--table] [ID...]
  --feed FEED   sflow-64, sflow-1000 (default), netflow-v5, netflow-v9, ipfix-100, ipfix-100-1s, all
  --seed N      first seed (default 1)
  --seeds N     this many seeds (default 1)
  --jobs N      play this many cases at once (default 1)
  --write DIR   write the cases to DIR instead, for `weir score DIR`
  --decisions   show what was decided
  --table       end with one line of a table for each feed and seed
  ID            A1 to A26, B1 to B20, T10, T2, T1.2; all A and B but B20 (a day) when none is named

scenarios --worlds N [--seed S] [--feed FEED] [--benign|--attacks|--both] [--jobs N] [--table]
          [--append FILE --commit NAME]
scenarios --world SEED [--feed FEED] [--benign|--attacks|--both] [--decisions] [--write DIR]
  --worlds N    play the worlds of seeds S to S+N-1 (default 1); each that fails gets a line
  --world SEED  play one, with what is in it and all that was said and done
  --append FILE keep each world's result there, a line each; those there of this --commit are not
                played again, and the figures are of all
  --commit NAME what is measured, for --append
  --benign, --attacks, --both  ordinary worlds, worlds with an attack, of each seed both (default)
  --table       show a line of every world, not of failed ones only
  --feed FEED   also sflow-1, ipfix-100-10s (no lengths), sflow-1000-in, sflow-1-in,
                ipfix-100-10s-in (what comes in only), worlds (these five and sflow-1000)";

#[derive(Default)]
struct Options {
    feeds: Vec<Feed>,
    seed: u64,
    seeds: u64,
    write: Option<PathBuf>,
    decisions: bool,
    table: bool,
    jobs: usize,
    ids: Vec<String>,
    /// Worlds to draw.
    worlds: Option<u64>,
    /// The one world to show.
    world: Option<u64>,
    sides: Vec<Side>,
    /// Where results are kept, and what they are of.
    append: Option<PathBuf>,
    commit: String,
}

fn options() -> Option<Options> {
    let mut options = Options { seed: 1, seeds: 1, jobs: 1, ..Options::default() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--feed" => {
                let name = args.next()?;
                options.feeds = match name.as_str() {
                    "all" => Feed::ALL.to_vec(),
                    "worlds" => Feed::WORLDS.to_vec(),
                    name => vec![Feed::from_id(name)?],
                };
            }
            "--seed" => options.seed = args.next()?.parse().ok()?,
            "--seeds" => options.seeds = args.next()?.parse().ok()?,
            "--write" => options.write = Some(args.next()?.into()),
            "--jobs" => options.jobs = args.next()?.parse().ok().filter(|n| *n > 0)?,
            "--table" => options.table = true,
            "--worlds" => options.worlds = Some(args.next()?.parse().ok()?),
            "--world" => options.world = Some(args.next()?.parse().ok()?),
            "--append" => options.append = Some(args.next()?.into()),
            "--commit" => options.commit = args.next()?,
            "--benign" => options.sides = vec![Side::Benign],
            "--attacks" => options.sides = vec![Side::Attack],
            "--both" => options.sides = Side::ALL.to_vec(),
            "--decisions" => options.decisions = true,
            id => {
                suite::case(id)?;
                options.ids.push(arg);
            }
        }
    }
    if options.feeds.is_empty() {
        options.feeds.push(Feed::Sflow1000);
    }
    if options.sides.is_empty() {
        options.sides = Side::ALL.to_vec();
    }
    Some(options)
}

/// A case to be played.
type Job = (&'static suite::Case, Feed, u64);

/// Does `work` on all jobs, several at once, and hands each result to `show` in its turn.
fn at_once<J: Sync, R: Send>(
    threads: usize,
    jobs: &[J],
    work: impl Fn(&J) -> R + Sync,
    mut show: impl FnMut(R) -> io::Result<()>,
) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let (done, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (next, done, work) = (&next, done.clone(), &work);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { return };
                    if done.send((index, work(job))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let (mut early, mut shown) = (BTreeMap::new(), 0);
        for (index, result) in results {
            early.insert(index, result);
            while let Some(result) = early.remove(&shown) {
                show(result)?;
                shown += 1;
            }
        }
        Ok(())
    })
}

/// Plays the cases, several at once, and prints each in its turn.
fn play(options: &Options, jobs: &[Job], out: &mut impl io::Write) -> io::Result<Vec<CaseScore>> {
    let config = Config::default();
    let mut scores = Vec::new();
    at_once(
        options.jobs,
        jobs,
        |(case, feed, seed)| scenario::run(case, *feed, *seed, &config),
        |outcome| {
            writeln!(out, "{}", rows(&outcome.score))?;
            if options.decisions {
                for line in &outcome.decisions {
                    writeln!(out, "    {line}")?;
                }
            }
            scores.push(outcome.score);
            Ok(())
        },
    )?;
    Ok(scores)
}

/// Draws worlds, plays them, names those that failed, and adds up.
fn play_worlds(options: &Options, number: u64, out: &mut impl io::Write) -> io::Result<()> {
    let config = Config::default();
    let mut results = match &options.append {
        Some(path) => Some((Results::open(path, &options.commit)?, path)),
        None => None,
    };
    for feed in &options.feeds {
        for side in &options.sides {
            let mut played: Vec<Played> = match &results {
                Some((results, path)) => results.read(path, *feed, *side)?,
                None => Vec::new(),
            };
            let seeds: Vec<u64> = (options.seed..options.seed + number)
                .filter(|seed| !played.iter().any(|p| p.seed == *seed))
                .collect();
            if options.table {
                writeln!(out, "{}", heading())?;
            }
            at_once(
                options.jobs,
                &seeds,
                |seed| worlds::run(*seed, *feed, *side, &config),
                |mut world| {
                    if options.table {
                        writeln!(out, "{}", rows(&world.score))?;
                    }
                    if let Some(line) = world.failure(*feed) {
                        writeln!(out, "{line}")?;
                        out.flush()?;
                    }
                    world.events = Vec::new();
                    world.decisions = Vec::new();
                    if let Some((results, _)) = &mut results {
                        results.append(*feed, &world)?;
                    }
                    played.push(world);
                    Ok(())
                },
            )?;
            writeln!(out, "\n{}\n", worlds::figures(*feed, *side, &played))?;
        }
    }
    Ok(())
}

/// Shows one world: what is in it, what was said and done.
fn show_world(options: &Options, seed: u64, out: &mut impl io::Write) -> io::Result<()> {
    let config = Config::default();
    for feed in &options.feeds {
        for side in &options.sides {
            let world = World::draw(seed, *feed, *side);
            if let Some(dir) = &options.write {
                let title = world.happens.join(", ");
                scenario::write_scene(&world.scene, &title, &dir.join(&world.scene.name))?;
                continue;
            }
            write!(out, "{}", world.describe())?;
            let played = worlds::run(seed, *feed, *side, &config);
            for event in &played.events {
                let secs = (event.t_ms - scenario::EPOCH.0) as f64 / 1000.0;
                writeln!(out, "{secs:9.1} {}", serde_json::to_string(&event.what)?)?;
            }
            if options.decisions {
                for line in &played.decisions {
                    writeln!(out, "    {line}")?;
                }
            }
            writeln!(out, "{}\n{}", heading(), rows(&played.score))?;
            writeln!(out, "{}\n", played.failure(*feed).unwrap_or_else(|| "no fault".to_owned()))?;
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Some(options) = options() else {
        writeln!(out, "{HELP}")?;
        std::process::exit(2);
    };
    if let Some(seed) = options.world {
        return show_world(&options, seed, &mut out);
    }
    if let Some(number) = options.worlds {
        return play_worlds(&options, number, &mut out);
    }
    let wanted = |case: &&'static suite::Case| {
        let named = options.ids.iter().any(|id| id.eq_ignore_ascii_case(case.id));
        named || (options.ids.is_empty() && case.id != "B20" && !case.id.starts_with('T'))
    };
    let mut jobs: Vec<Job> = Vec::new();
    for feed in &options.feeds {
        for seed in options.seed..options.seed + options.seeds {
            let cases = suite::cases().chain(suite::timed()).filter(wanted);
            jobs.extend(cases.map(|case| (case, *feed, seed)));
        }
    }
    if let Some(dir) = &options.write {
        return jobs
            .iter()
            .try_for_each(|(case, feed, seed)| scenario::write(case, *feed, *seed, dir));
    }
    writeln!(out, "{}", heading())?;
    let scores = play(&options, &jobs, &mut out)?;
    writeln!(out, "{}", totals(&summarise(&scores)))?;
    if options.table {
        writeln!(out, "{}", line_heading())?;
        let together =
            |a: &(&Job, &CaseScore), b: &(&Job, &CaseScore)| a.0.1 == b.0.1 && a.0.2 == b.0.2;
        let all: Vec<(&Job, &CaseScore)> = jobs.iter().zip(&scores).collect();
        for group in all.chunk_by(together) {
            let (_, feed, seed) = group[0].0;
            let scores: Vec<CaseScore> = group.iter().map(|(_, score)| (*score).clone()).collect();
            writeln!(out, "{}", line(&format!("{}, {seed}", feed.id()), &summarise(&scores)))?;
        }
    }
    Ok(())
}
