//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::catalog::Keep;
use crate::query::Limits;
use crate::server::Config;

/// Keep flow records and answer questions about them
#[derive(Debug, Parser)]
#[command(name = "weir-flows", version, max_term_width = 100)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Take records and answer questions until stopped
    Run(Run),
    /// Write manual pages and shell completions, for packages
    #[command(hide = true)]
    Manual {
        /// Directory
        dir: PathBuf,
    },
}

/// Writes manual pages and completions below a directory that is laid out like `/usr/share`.
///
/// # Errors
/// When a file cannot be written.
pub fn manual(dir: &std::path::Path) -> std::io::Result<()> {
    let pages = dir.join("man/man1");
    std::fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(Cli::command(), &pages)?;
    for (shell, place) in [
        (Shell::Bash, "bash-completion/completions"),
        (Shell::Zsh, "zsh/vendor-completions"),
        (Shell::Fish, "fish/vendor_completions.d"),
    ] {
        let folder = dir.join(place);
        std::fs::create_dir_all(&folder)?;
        let made = clap_complete::generate_to(shell, &mut Cli::command(), "weir-flows", &folder)?;
        if shell == Shell::Bash {
            // bash-completion loads a file of the command's own name.
            std::fs::rename(made, folder.join("weir-flows"))?;
        }
    }
    Ok(())
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// Directory of the archive
    #[arg(long, default_value = "/var/lib/weir-flows")]
    pub archive: PathBuf,
    /// Socket on which weir is awaited (`[flows] socket` of weir.toml)
    #[arg(long, default_value = "/run/weir-flows/flows.sock")]
    pub socket: PathBuf,
    /// Remove records that are older, days
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub keep_days: u32,
    /// Remove the oldest records beyond so much disk, gigabytes of 10^9 octets
    #[arg(long, default_value_t = 20.0, value_parser = gigabytes)]
    pub keep_gb: f64,
    /// Remove the oldest records when less room is left on the file system, gigabytes
    #[arg(long, default_value_t = 2.0, value_parser = gigabytes)]
    pub free_gb: f64,
    /// Time limit of a query, seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub query_secs: u32,
    /// Maximum number of groups and time steps that a query keeps in memory, some 200 octets each
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub query_groups: u32,
    /// Threads of a query
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub query_threads: u16,
}

fn gigabytes(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "a number".to_owned())?;
    if (0.0..=1e6).contains(&value) { Ok(value) } else { Err("0 to 1000000".to_owned()) }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 to 10^15, as checked"
)]
const fn octets(gigabytes: f64) -> u64 {
    (gigabytes * 1e9) as u64
}

impl From<Run> for Config {
    fn from(run: Run) -> Self {
        Self {
            archive: run.archive,
            socket: run.socket,
            keep: Keep {
                age_ms: u64::from(run.keep_days) * 86_400_000,
                octets: octets(run.keep_gb),
                free: octets(run.free_gb),
            },
            limits: Limits {
                time: Duration::from_secs(run.query_secs.into()),
                groups: usize::try_from(run.query_groups).unwrap_or(usize::MAX),
                threads: usize::from(run.query_threads),
            },
        }
    }
}
