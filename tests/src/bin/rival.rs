//! FastNetMon on cases in the case format, in real time: leaves `events.fastnetmon.jsonl` (as
//! shipped) and `events.fastnetmon-tuned.jsonl` in each, for `weir score`.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use weir::score::Case;
use weir_detector::Floors;
use weir_tests::fastnetmon::Setting;
use weir_tests::rival::{self, Options, SECONDS_MAX};

const HELP: &str = "\
rival [--jobs N] [--lead SECONDS] [--average SECONDS] [--sampling N] DIR...
Needs root (a namespace for each case) and the package fastnetmon; takes as long as the cases do.
  DIR                a case, or a directory of cases
  --jobs N           play this many cases at once (default 8)
  --lead SECONDS     play the last seconds of learning (default 25); it learns nothing
  --average SECONDS  what the tuned setting averages over (default 1); for flow caches their longest timeout
  --sampling N       one packet in N is seen by flow caches, where the export does not say it (default 1)";

struct Arguments {
    jobs: usize,
    average: u32,
    options: Options,
    dirs: Vec<PathBuf>,
}

fn arguments() -> Option<Arguments> {
    let options = Options { lead_secs: 25, seconds_max: SECONDS_MAX, sampling: 1 };
    let mut all = Arguments { jobs: 8, average: 1, options, dirs: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--jobs" => all.jobs = args.next()?.parse().ok().filter(|n| *n > 0)?,
            "--lead" => all.options.lead_secs = args.next()?.parse().ok()?,
            "--average" => all.average = args.next()?.parse().ok().filter(|n| *n > 0)?,
            "--sampling" => all.options.sampling = args.next()?.parse().ok().filter(|n| *n > 0)?,
            flag if flag.starts_with('-') => return None,
            _ => all.dirs.push(arg.into()),
        }
    }
    (!all.dirs.is_empty()).then_some(all)
}

/// Plays one case, writes its events, and says so in a line.
fn play(dir: &Path, settings: &[Setting], options: &Options) -> anyhow::Result<String> {
    let world = Case::world(dir)?;
    let played = rival::play(dir, &world, settings, options)?;
    let played = played.context("needs root, iproute2 and fastnetmon")?;
    let mut line = format!("{:28} {:>7} datagrams", world.name, played.datagrams);
    line += &format!(", at most {} ms late", played.late.as_millis());
    for run in &played.runs {
        let mut text = String::new();
        for event in &run.events {
            text += &serde_json::to_string(event)?;
            text.push('\n');
        }
        let path = dir.join(format!("events.{}.jsonl", run.name));
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        line += &format!("; {}: {} bans", run.name, run.bans());
        if run.dropped > 0 {
            line += &format!(", {} datagrams dropped", run.dropped);
        }
    }
    if played.cut {
        line += "; its end was left out";
    }
    Ok(line)
}

fn main() -> anyhow::Result<()> {
    let Some(arguments) = arguments() else {
        writeln!(io::stderr(), "{HELP}")?;
        std::process::exit(2);
    };
    // Delays are measured: nothing else on the machine may hold up the player or FastNetMon.
    let own = std::process::id().to_string();
    std::process::Command::new("renice").args(["-n", "-20", "-p", &own]).output()?;
    let settings = [Setting::shipped(), Setting::tuned(&Floors::default(), arguments.average)];
    let mut dirs = Vec::new();
    for dir in &arguments.dirs {
        dirs.extend(Case::find(dir)?);
    }
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.min(dirs.len()) {
            scope.spawn(|| {
                while let Some(dir) = dirs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let line = play(dir, &settings, &arguments.options).unwrap_or_else(|error| {
                        let line = format!("{}: {error:#}", dir.display());
                        failed.lock().unwrap_or_else(|e| e.into_inner()).push(line.clone());
                        line
                    });
                    // Standard output may be gone; the files are what counts.
                    let _ = writeln!(io::stdout(), "{line}");
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(|e| e.into_inner());
    anyhow::ensure!(failed.is_empty(), "{} cases were not played", failed.len());
    Ok(())
}
