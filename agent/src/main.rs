//! The node agent's program.

use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

/// EX_CONFIG of sysexits.h.
const NOT_JOINED: u8 = 78;

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(weir_agent::cli::run(weir_agent::cli::Cli::parse())));
    match outcome {
        Ok(text) => say(&text, false),
        Err(error) => {
            let code = say(&format!("{error:#}"), true);
            // The service is not started again for this (RestartPreventExitStatus).
            if error.is::<weir_agent::config::NotJoined>() {
                ExitCode::from(NOT_JOINED)
            } else {
                code
            }
        }
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the command's answer")]
fn say(text: &str, failed: bool) -> ExitCode {
    let text = text.trim_end();
    if failed {
        eprintln!("{text}");
        return ExitCode::FAILURE;
    }
    if !text.is_empty() {
        println!("{text}");
    }
    ExitCode::SUCCESS
}
