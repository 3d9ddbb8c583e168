//! The `weir` command.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args as _, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tracing::warn;
use weir::daemon::{self, Daemon};
use weir::service::Manager;
use weir::{cli, demo, init, inspect, logging, manual, replay, score, text};
use weir_config::Config;
use weir_model::{IpNet, PrefixSet};

/// Flow collector and BGP mitigation engine.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a configuration: asks six questions, or takes flags
    Init(init::Options),
    /// Run weir until SIGTERM or SIGINT
    Run {
        /// Configuration file
        #[arg(long, default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
        /// Record every input of the core to this file, for `weir replay`
        #[arg(long)]
        record: Option<PathBuf>,
    },
    /// Check a configuration; exit code 0 if valid, 2 if not
    Check {
        /// Configuration file
        #[arg(long, default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
        /// Print the effective configuration: defaults included, secrets omitted
        #[arg(long)]
        dump: bool,
    },
    /// Replay a capture (flow datagrams or packets) or a recording, and print incidents
    Replay(Replay),
    /// Score weir, or another detector, on benchmark cases
    Score(Score),
    /// Decode flow datagrams: templates, sampling, records, errors
    Inspect(Inspect),
    /// Add, check and synchronise game panels
    #[command(subcommand)]
    Panel(cli::panel::Command),
    /// List node agents, or create a join token
    Agents {
        /// Configuration file
        #[arg(long, default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
        /// Print a join token for one node, valid for an hour
        #[arg(long)]
        token: bool,
        /// With --token: name that the node must use
        #[arg(long, requires = "token")]
        name: Option<String>,
        /// With --token: addresses of the node, for which rules move from routers to the node (hand_over)
        #[arg(long, requires = "token", value_delimiter = ',', value_name = "PREFIX,...")]
        addresses: Vec<IpNet>,
        /// Print JSON
        #[arg(long, conflicts_with = "token")]
        json: bool,
    },
    /// Run a demonstration: attack, detection, rule, withdrawal
    Demo {
        /// Seed of the generated traffic
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Restore a backup (weir must be stopped)
    Restore {
        /// Backup file
        file: PathBuf,
        /// Configuration file, which names the state file
        #[arg(long, default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
    },
    /// Remove weir's routes from the BGP daemons it controls (after a crash)
    Release {
        /// Configuration file
        #[arg(long, default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
    },
    /// Write manual pages and shell completions, for packages
    #[command(hide = true)]
    Manual {
        /// Directory to write to
        dir: PathBuf,
    },
    #[command(flatten)]
    Ask(cli::Ask),
}

#[derive(Debug, clap::Args)]
struct Replay {
    /// pcap, pcapng, or a .jsonl recording of `weir run --record`
    file: PathBuf,
    /// Configuration file [default: built-in defaults, every exporter accepted]
    #[arg(long)]
    config: Option<PathBuf>,
    /// Protected prefix, in addition to those of the configuration; may be repeated
    #[arg(long)]
    protect: Vec<IpNet>,
    /// Sampling rate 1:N, for packet captures and for exporters that report none
    #[arg(long, default_value_t = 1)]
    sampling: u32,
    /// Content of the capture
    #[arg(long, value_enum, default_value_t = KindArg::Auto)]
    kind: KindArg,
    /// Seconds of virtual time after the last frame
    #[arg(long, default_value_t = 60)]
    tail: u64,
    /// Print one JSON object per incident
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Score {
    /// Case (directory with input.pcap, world.json, truth.jsonl and mix.csv), or directory of cases
    dir: PathBuf,
    /// Configuration with thresholds and ladder; prefixes come from the case
    #[arg(long)]
    config: Option<PathBuf>,
    /// Score another detector: name of its events file in the directory of each case
    #[arg(long)]
    events: Option<PathBuf>,
    /// Write weir's events to a file of this name in the directory of each case
    #[arg(long)]
    write_events: Option<PathBuf>,
    /// Print one JSON object per case, then one for the total
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Inspect {
    /// pcap, pcapng, or files of one raw datagram each, read in order; - reads standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Configuration file, for its sampling rates
    #[arg(long)]
    config: Option<PathBuf>,
    /// Print one JSON object per line, the summary last
    #[arg(long)]
    json: bool,
    /// Compare with netflow_parser and sflow-parser
    #[arg(long)]
    oracle: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    /// Detect
    Auto,
    /// Flow datagrams of exporters
    Flows,
    /// Packets
    Packets,
}

/// The command line, with the options of [`cli::Common`] where a command asks a running weir.
fn command() -> clap::Command {
    let mut command = Cli::command();
    for name in &cli::names() {
        command = command.mut_subcommand(name, |own| {
            // Arguments of a struct bring its description along; each command keeps its own.
            let about = own.get_about().cloned().unwrap_or_default();
            let long = own.get_long_about().cloned();
            let own = cli::Common::augment_args(own).about(about);
            long.into_iter().fold(own, clap::Command::long_about)
        });
    }
    command
}

/// The arguments, and how the commands that ask a running weir reach it.
fn arguments() -> (Cli, cli::Common) {
    let matches = command().get_matches();
    let asking = cli::names();
    let parsed = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let common = matches
        .subcommand()
        .filter(|(name, _)| asking.iter().any(|asks| asks == name))
        .and_then(|(_, matches)| cli::Common::from_arg_matches(matches).ok())
        .unwrap_or_default();
    (parsed, common)
}

fn main() -> ExitCode {
    let (cli, common) = arguments();
    let outcome = match cli.command {
        Command::Ask(ask) => cli::run(&ask, &common),
        Command::Restore { file, config } => restore(&file, &config),
        Command::Run { config, record } => run(&config, record),
        Command::Check { config, dump } => check(&config, dump),
        Command::Replay(options) => replay_file(&options),
        Command::Score(options) => score_cases(options),
        Command::Inspect(options) => inspect_files(&options),
        Command::Panel(command) => cli::panel::run(&command),
        Command::Agents { config, token, name, addresses, json } => {
            let wanted = token.then_some((name.as_deref(), addresses.as_slice()));
            show_agents(&config, wanted, json)
        }
        Command::Release { config } => cli::release::run(&config),
        Command::Demo { seed } => demo::run(seed),
        Command::Init(options) => init::run(&options),
        Command::Manual { dir } => manual::write(&command(), &dir).map(|()| ExitCode::SUCCESS),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => match error.downcast_ref::<weir_config::ConfigError>() {
            // As compilers do: the place first, so that editors and people find it.
            Some(wrong) => {
                complain(&wrong.to_string());
                ExitCode::from(2)
            }
            None => {
                complain(&format!("weir: {error:#}"));
                ExitCode::FAILURE
            }
        },
    }
}

#[expect(clippy::print_stderr, reason = "the command's own error message")]
fn complain(message: &str) {
    eprintln!("{message}");
}

fn run(path: &std::path::Path, record: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (config, warnings) = weir_config::load(path)?;
    let level = logging::start(&config.log)?;
    for warning in warnings {
        warn!(%warning, "configuration");
    }
    let mut signals =
        signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]).context("signal handler")?;
    let file = Some(path.to_owned());
    let daemon = Daemon::start(&config, &daemon::Options { record, file, level })?;
    let (asked_tx, asked) = crossbeam_channel::bounded(1);
    let waiter = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            // The receiver is gone when a thread failed first.
            if asked_tx.send(signal).is_err() {
                return;
            }
        }
    });
    waiter.context("thread signals")?;
    let manager = Manager::of_environment();
    manager.ready();
    let mut seen = daemon.snapshot.load_full();
    loop {
        crossbeam_channel::select! {
            recv(asked) -> signal => match signal {
                Ok(SIGHUP) => {
                    manager.reloading();
                    daemon.reload();
                    manager.ready();
                }
                _ => {
                    manager.stopping();
                    daemon.stop();
                    return Ok(ExitCode::SUCCESS);
                }
            },
            recv(daemon.failed) -> thread => {
                anyhow::bail!("thread {} ended; weir stops", thread.unwrap_or_default())
            }
            // The core shows a new snapshot once a second: one that has not is stuck.
            default(manager.interval().unwrap_or(Duration::MAX)) => {
                let latest = daemon.snapshot.load_full();
                if !Arc::ptr_eq(&latest, &seen) {
                    seen = latest;
                    manager.alive();
                }
            }
        }
    }
}

fn restore(file: &std::path::Path, config: &std::path::Path) -> anyhow::Result<ExitCode> {
    let (config, _) = weir_config::load(config)?;
    cli::restore(file, &config.store.path, &cli::Client::new(config.api.socket))
}

fn check(path: &std::path::Path, dump: bool) -> anyhow::Result<ExitCode> {
    let (config, warnings) = weir_config::load(path)?;
    for warning in warnings {
        complain(&format!("{}: warning: {warning}", path.display()));
    }
    let inventory = config.inventory();
    let inventory = inventory.sparing(config.infrastructure(), &config.protect.touchable);
    for own in inventory.infrastructure.iter().filter(|_| !dump) {
        let (address, part) = (own.address, own.part.title());
        cli::say(&format!("never touched: {address}, {part} ({})", own.name))?;
    }
    if dump {
        cli::say(&weir_config::dump(&config)?)?;
    } else {
        cli::say(&format!("{}: ok", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn replay_file(args: &Replay) -> anyhow::Result<ExitCode> {
    let config = replay_config(args)?;
    let outcome = if args.file.extension().is_some_and(|e| e == "jsonl") {
        replay::recording(&args.file, &config)?
    } else {
        let options = replay::Options {
            kind: match args.kind {
                KindArg::Auto => replay::Kind::Auto,
                KindArg::Flows => replay::Kind::Flows,
                KindArg::Packets => replay::Kind::Packets,
            },
            sampling: args.sampling,
            tail_secs: args.tail,
        };
        // Hidden by itself where standard error is no terminal.
        let bar = ProgressBar::new(std::fs::metadata(&args.file).map_or(0, |m| m.len()));
        let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}")?;
        bar.set_style(style);
        let outcome =
            replay::capture(&args.file, &config, &options, &mut |read| bar.set_position(read))?;
        bar.finish_and_clear();
        outcome
    };
    if args.json {
        for incident in &outcome.incidents {
            cli::say(&serde_json::to_string(incident)?)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    for incident in &outcome.incidents {
        cli::say(text::incident(incident, outcome.start).trim_end())?;
    }
    cli::say(&format!(
        "{} frames, {} records, {} incidents",
        outcome.frames,
        outcome.records,
        outcome.incidents.len()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn score_cases(args: Score) -> anyhow::Result<ExitCode> {
    let config = match &args.config {
        Some(path) => weir_config::load(path)?.0,
        None => Config::default(),
    };
    let options =
        score::Options { events: args.events, write_events: args.write_events, json: args.json };
    let mut out = cli::Stdout::default();
    let failed = score::run(&args.dir, &config, &options, &mut out)?;
    failed.iter().for_each(|error| complain(&format!("weir: {error}")));
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn inspect_files(args: &Inspect) -> anyhow::Result<ExitCode> {
    let collector = match &args.config {
        Some(path) => weir_config::load(path)?.0.collector,
        None => weir_collector::Config::default(),
    };
    let mut out = std::io::BufWriter::new(cli::Stdout::default());
    let outcome = inspect::run(&args.files, &collector, args.json, args.oracle, &mut out)?;
    out.flush()?;
    outcome
        .notes
        .iter()
        .chain(&outcome.failures)
        .for_each(|text| complain(&format!("weir: {text}")));
    let failed = !outcome.failures.is_empty();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn replay_config(args: &Replay) -> anyhow::Result<Config> {
    let mut config = match &args.config {
        Some(path) => weir_config::load(path)?.0,
        None => {
            let mut config = Config::default();
            for all in ["0.0.0.0/0", "::/0"] {
                config.collector.exporters.push(weir_collector::ExporterConfig {
                    default_sampling: Some(args.sampling.max(1)),
                    ..weir_collector::ExporterConfig::new(all.parse()?)
                });
            }
            config
        }
    };
    let both = config.protect.prefixes.iter().chain(args.protect.iter().copied());
    config.protect.prefixes = both.collect::<PrefixSet>();
    anyhow::ensure!(
        !config.protect.prefixes.is_empty(),
        "no protected prefix: give --protect PREFIX"
    );
    Ok(config)
}

/// `token`: the name and the addresses that one is wanted for.
fn show_agents(
    config: &std::path::Path,
    token: Option<(Option<&str>, &[IpNet])>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let (config, _) = weir_config::load(config)?;
    let folder = daemon::agents_folder(&config);
    let mut out = cli::Stdout::default();
    if let Some((name, addresses)) = token {
        let agents = config.agents.context(
            "node agents are disabled: add [agents] to the configuration to enable them",
        )?;
        std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        let token = weir_agent::server::offer_token(&folder, name, addresses, daemon::now())?;
        let port = agents.listen.port();
        writeln!(out, "run on the node: weir-agent join https://<this appliance>:{port} {token}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let state = weir_agent::server::stored(&folder)?;
    if json {
        serde_json::to_writer_pretty(&mut out, &state.nodes)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    out.write_all(weir::agents::table(&state, daemon::now()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
