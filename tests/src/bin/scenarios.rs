//! The scenario suite: plays its cases through the whole decision path in virtual time, or writes
//! them to disk for `weir score`.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use weir::score::{heading, line, line_heading, rows, totals};
use weir_config::Config;
use weir_tests::scenario;
use weir_traffic::score::{CaseScore, summarise};
use weir_traffic::suite::{self, Feed};

const HELP: &str = "\
scenarios [--feed FEED] [--seed N] [--seeds N] [--jobs N] [--write DIR] [--decisions] [--table] [ID...]
  --feed FEED   sflow-64, sflow-1000 (default), netflow-v5, netflow-v9, ipfix-100, ipfix-100-1s, all
  --seed N      first seed (default 1)
  --seeds N     this many seeds (default 1)
  --jobs N      play this many cases at once (default 1)
  --write DIR   write the cases to DIR instead, for `weir score DIR`
  --decisions   show what was decided
  --table       end with one line of a table for each feed and seed
  ID            A1 to A26, B1 to B20, T10, T2, T1.2; all A and B but B20 (a day) when none is named";

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
                    name => vec![Feed::from_id(name)?],
                };
            }
            "--seed" => options.seed = args.next()?.parse().ok()?,
            "--seeds" => options.seeds = args.next()?.parse().ok()?,
            "--write" => options.write = Some(args.next()?.into()),
            "--jobs" => options.jobs = args.next()?.parse().ok().filter(|n| *n > 0)?,
            "--table" => options.table = true,
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
    Some(options)
}

/// A case to be played.
type Job = (&'static suite::Case, Feed, u64);

/// Plays the cases, several at once, and prints each in its turn.
fn play(options: &Options, jobs: &[Job], out: &mut impl io::Write) -> io::Result<Vec<CaseScore>> {
    let config = Config::default();
    let next = AtomicUsize::new(0);
    let (done, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            let (next, done, config) = (&next, done.clone(), &config);
            scope.spawn(move || {
                while let Some((index, (case, feed, seed))) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, jobs.get(i)?)))
                {
                    let outcome = scenario::run(case, *feed, *seed, config);
                    if done.send((index, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut early = BTreeMap::new();
        let mut scores = Vec::new();
        for (index, outcome) in results {
            early.insert(index, outcome);
            while let Some(outcome) = early.remove(&scores.len()) {
                writeln!(out, "{}", rows(&outcome.score))?;
                if options.decisions {
                    for line in &outcome.decisions {
                        writeln!(out, "    {line}")?;
                    }
                }
                scores.push(outcome.score);
            }
        }
        Ok(scores)
    })
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Some(options) = options() else {
        writeln!(out, "{HELP}")?;
        std::process::exit(2);
    };
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
