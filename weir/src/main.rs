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
use weir::{cli, demo, inspect, logging, replay, score, text};
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
    /// Run the appliance until SIGTERM or SIGINT
    Run {
        /// Configuration file
        #[arg(long, default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
        /// Write every input of the core to this file, for `weir replay`
        #[arg(long)]
        record: Option<PathBuf>,
    },
    /// Check a configuration: exit code 0 when it can be used, 2 when not
    Check {
        /// Configuration file
        #[arg(long, default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
        /// Print the configuration in force, defaults included, secrets left out
        #[arg(long)]
        dump: bool,
    },
    /// Play a capture (flow datagrams or raw packets) or a recording, in virtual time
    Replay(Replay),
    /// Play scenario cases in virtual time and score what weir decides
    Score(Score),
    /// Show what is in flow datagrams: templates, sampling and its source, records, errors
    Inspect(Inspect),
    /// Game panels: look at one, see how their synchronisation stands
    #[command(subcommand)]
    Panel(cli::panel::Command),
    /// Agents on nodes: list them, or print a join token
    Agents {
        /// Configuration file
        #[arg(long, default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
        /// Print a token with which one node may join within an hour
        #[arg(long)]
        token: bool,
        /// With --token: the only name that may be joined under
        #[arg(long, requires = "token")]
        name: Option<String>,
        /// With --token: the node's addresses; routers are relieved (hand_over) of these alone
        #[arg(long, requires = "token", value_delimiter = ',', value_name = "PREFIX,...")]
        addresses: Vec<IpNet>,
        /// As JSON
        #[arg(long, conflicts_with = "token")]
        json: bool,
    },
    /// Show the main job on embedded defaults: attack, detection, rule, withdrawal
    Demo {
        /// Seed of the generated traffic
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Put a backup in the place of the state file; weir must not run
    Restore {
        /// The backup
        file: PathBuf,
        /// Configuration file, which names the state file
        #[arg(long, default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
    },
    /// Take weir's routes out of the BGP daemons it drives, after a weir that was killed
    Release {
        /// Configuration file
        #[arg(long, default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
    },
    #[command(flatten)]
    Ask(cli::Ask),
}

#[derive(Debug, clap::Args)]
struct Replay {
    /// pcap, pcapng, or a .jsonl recording of `weir run --record`
    file: PathBuf,
    /// Configuration file; without it, defaults apply and every exporter is listed
    #[arg(long)]
    config: Option<PathBuf>,
    /// Protected prefix, may be repeated; adds to those of the configuration
    #[arg(long)]
    protect: Vec<IpNet>,
    /// One in how many packets was looked at (for raw packets, and for exporters that do not say)
    #[arg(long, default_value_t = 1)]
    sampling: u32,
    /// What the frames are
    #[arg(long, value_enum, default_value_t = KindArg::Auto)]
    kind: KindArg,
    /// Virtual seconds that pass after the last frame
    #[arg(long, default_value_t = 60)]
    tail: u64,
    /// One JSON object an incident
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Score {
    /// A case (a directory with input.pcap, world.json, truth.jsonl and mix.csv), or a directory of cases
    dir: PathBuf,
    /// Configuration whose thresholds and ladder apply; what is protected comes from the case
    #[arg(long)]
    config: Option<PathBuf>,
    /// Score another defender: the name of a file of events in each case's directory
    #[arg(long)]
    events: Option<PathBuf>,
    /// Write what weir said and did to a file of this name in each case's directory
    #[arg(long)]
    write_events: Option<PathBuf>,
    /// One JSON object a case, and a last one for the total
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Inspect {
    /// pcap, pcapng, or files of one raw datagram each, read in order; - is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Configuration file, for the sampling rates set by the operator
    #[arg(long)]
    config: Option<PathBuf>,
    /// One JSON object a line, the summary last
    #[arg(long)]
    json: bool,
    /// Add what netflow_parser and sflow-parser make of each datagram
    #[arg(long)]
    oracle: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    /// Look and see
    Auto,
    /// Datagrams of exporters
    Flows,
    /// The packets themselves
    Packets,
}

/// The command line, and how the commands that ask a running weir reach it.
fn arguments() -> (Cli, cli::Common) {
    let (mut command, asking) = (Cli::command(), cli::names());
    for name in &asking {
        command = command.mut_subcommand(name, |own| {
            // Arguments of a struct bring its description along; each command keeps its own.
            let about = own.get_about().cloned().unwrap_or_default();
            let long = own.get_long_about().cloned();
            let own = cli::Common::augment_args(own).about(about);
            long.into_iter().fold(own, clap::Command::long_about)
        });
    }
    let matches = command.get_matches();
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
        "name what is protected: --protect PREFIX"
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
        let agents = config.agents.context("there is no [agents] section: none are awaited")?;
        std::fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        let token = weir_agent::server::offer_token(&folder, name, addresses, daemon::now())?;
        let port = agents.listen.port();
        writeln!(out, "on the node: weir-agent join https://<this appliance>:{port} {token}")?;
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
