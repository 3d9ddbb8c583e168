//! The scenario suite: plays its cases through the whole decision path in virtual time, or writes
//! them to disk for `weir score`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use weir::score::{heading, rows, totals};
use weir_config::Config;
use weir_tests::scenario;
use weir_traffic::score::summarise;
use weir_traffic::suite::{self, Feed};

const HELP: &str = "\
scenarios [--feed FEED] [--seed N] [--seeds N] [--write DIR] [--decisions] [ID...]
  --feed FEED   sflow-64, sflow-1000 (default), netflow-v5, netflow-v9, ipfix-100, ipfix-100-1s, all
  --seed N      first seed (default 1)
  --seeds N     this many seeds (default 1)
  --write DIR   write the cases to DIR instead, for `weir score DIR`
  --decisions   show what was decided
  ID            A1 to A26, B1 to B20, T10, T2, T1.2; all A and B but B20 (a day) when none is named";

#[derive(Default)]
struct Options {
    feeds: Vec<Feed>,
    seed: u64,
    seeds: u64,
    write: Option<PathBuf>,
    decisions: bool,
    ids: Vec<String>,
}

fn options() -> Option<Options> {
    let mut options = Options { seed: 1, seeds: 1, ..Options::default() };
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

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Some(options) = options() else {
        writeln!(out, "{HELP}")?;
        std::process::exit(2);
    };
    let config = Config::default();
    let wanted = |case: &&suite::Case| {
        let named = options.ids.iter().any(|id| id.eq_ignore_ascii_case(case.id));
        named || (options.ids.is_empty() && case.id != "B20" && !case.id.starts_with('T'))
    };
    let mut scores = Vec::new();
    if options.write.is_none() {
        writeln!(out, "{}", heading())?;
    }
    for feed in &options.feeds {
        for seed in options.seed..options.seed + options.seeds {
            for case in suite::cases().chain(suite::timed()).filter(wanted) {
                if let Some(dir) = &options.write {
                    scenario::write(case, *feed, seed, dir)?;
                    continue;
                }
                let outcome = scenario::run(case, *feed, seed, &config);
                writeln!(out, "{}", rows(&outcome.score))?;
                if options.decisions {
                    for line in &outcome.decisions {
                        writeln!(out, "    {line}")?;
                    }
                }
                scores.push(outcome.score);
            }
        }
    }
    if options.write.is_none() {
        writeln!(out, "{}", totals(&summarise(&scores)))?;
    }
    Ok(())
}
