//! The archive's program.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;
use weir_flows::cli::{Action, Cli, manual};
use weir_flows::server::{Config, Server};

/// How often the threads are looked at.
const LOOK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let outcome = match Cli::parse().command {
        Action::Run(run) => serve(&run.into()),
        Action::Manual { dir } => manual(&dir).map_err(anyhow::Error::from),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: &Config) -> anyhow::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let (told, asked) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        // Only the first counts; who waits for it may have ended.
        let _ = told.send(signals.forever().next());
    })?;
    let server =
        Server::start(config).with_context(|| format!("archive {}", config.archive.display()))?;
    loop {
        if asked.recv_timeout(LOOK).is_ok() {
            info!("stopping");
            server.stop();
            return Ok(());
        }
        if server.has_failed() {
            // The service manager starts it again; the log says what happened.
            anyhow::bail!("a thread ended by itself");
        }
    }
}
