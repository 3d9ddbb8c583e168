//! Commands that ask a running weir, over its local socket: no password for root, for the user weir runs
//! as, and for the group `weir`.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 weir answers but something is wrong
//! (`status`).

pub mod accounts;
mod adopt;
pub mod baseline;
mod client;
mod output;
pub mod overview;
pub mod panel;
mod peer;
pub mod release;
pub mod respond;
pub mod settings;
pub mod state;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

pub use client::Client;
pub use output::{Form, Output, Stdout, say};

/// How to reach weir, and how to answer.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Socket of the running weir
    #[arg(long, global = true, default_value = SOCKET)]
    pub socket: PathBuf,
    /// Answer as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Answer as CSV
    #[arg(long, global = true, conflicts_with = "json")]
    pub csv: bool,
}

impl Default for Common {
    fn default() -> Self {
        Self { socket: PathBuf::from(SOCKET), json: false, csv: false }
    }
}

/// Where a weir listens unless it is configured otherwise.
const SOCKET: &str = "/run/weir/api.sock";

/// Names of the commands that ask a running weir.
pub fn names() -> Vec<String> {
    let all = Ask::augment_subcommands(clap::Command::new("ask"));
    all.get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

impl Common {
    fn client(&self) -> Client {
        Client::new(self.socket.clone())
    }

    const fn output(&self) -> Output {
        Output::new(match (self.json, self.csv) {
            (true, _) => Form::Json,
            (_, true) => Form::Csv,
            _ => Form::Table,
        })
    }
}

/// What can be asked of a running weir.
#[derive(Debug, Subcommand)]
pub enum Ask {
    /// Show the whole in a few lines: exit code 3 when something is wrong
    Status,
    /// Watch incidents and hosts in the whole terminal, refreshed every second; q ends it
    Top {
        /// Refresh so many times, then end; for ever when absent
        #[arg(long)]
        rounds: Option<u64>,
    },
    /// List incidents, show one, or say something about it
    Incidents {
        /// What exactly; lists when absent
        #[command(subcommand)]
        action: Option<respond::Incidents>,
    },
    /// List, add, approve or withdraw mitigations
    Mitigate {
        /// What exactly; lists when absent
        #[command(subcommand)]
        action: Option<respond::Mitigate>,
    },
    /// Show what webhooks were told, or send a test message
    Webhooks {
        /// What exactly; the log when absent
        #[command(subcommand)]
        action: Option<respond::Webhooks>,
    },
    /// Show or change what may be set while weir runs: channels, exclusions, groups, ladder,
    /// prefixes
    Settings {
        /// What exactly; lists when absent
        #[command(subcommand)]
        action: Option<settings::Settings>,
    },
    /// Read the configuration file again and put in force what can change while weir runs
    Reload {
        /// Only print the difference, and what would happen to measures in force
        #[arg(long)]
        check: bool,
    },
    /// Show or change how far weir acts by itself; more than observe lifts the brake
    Mode {
        /// observe, approve, auto; or file, for what the configuration says
        mode: Option<String>,
    },
    /// List the busiest hosts
    Hosts {
        /// By packets instead of bits
        #[arg(long)]
        packets: bool,
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: u16,
    },
    /// Show a host's baselines and thresholds, or freeze, thaw, reset or override them
    #[command(subcommand_negates_reqs = true)]
    Baseline {
        /// Its address
        #[arg(required = true)]
        host: Option<std::net::IpAddr>,
        /// What exactly; shows when absent
        #[command(subcommand)]
        action: Option<baseline::Baseline>,
    },
    /// List exporters
    Exporters,
    /// List BGP peers, show or test one, or have what it was spared sent again
    Bgp {
        /// What exactly; lists when absent
        #[command(subcommand)]
        action: Option<overview::Bgp>,
    },
    /// Make, list and remove bearer tokens
    Token {
        /// What exactly; lists when absent
        #[command(subcommand)]
        action: Option<accounts::TokenAction>,
    },
    /// Make, list, change and remove accounts
    User {
        /// What exactly; lists when absent
        #[command(subcommand)]
        action: Option<accounts::UserAction>,
    },
    /// Show who did what, or check that nobody changed it
    Audit {
        /// What exactly; lists when absent
        #[command(subcommand)]
        action: Option<state::AuditAction>,
    },
    /// Write a backup of the state; it holds password hashes, keep it like a key
    Backup {
        /// File to write, must not exist
        file: PathBuf,
        /// The history of hosts as well, which may be large
        #[arg(long)]
        history: bool,
    },
}

/// Asks, prints, and says with which code to end.
///
/// # Errors
/// When weir does not answer, or refuses.
pub fn run(ask: &Ask, common: &Common) -> anyhow::Result<ExitCode> {
    let (client, output) = (common.client(), common.output());
    match ask {
        Ask::Status => return overview::status(&client, &output),
        Ask::Top { .. } if common.json || common.csv => {
            anyhow::bail!(
                "top draws on a terminal: ask status, incidents or hosts with --json or --csv"
            )
        }
        Ask::Top { rounds } => top::top(&client, *rounds)?,
        Ask::Incidents { action } => respond::incidents(&client, &output, action.as_ref())?,
        Ask::Mitigate { action } => respond::mitigate(&client, &output, action.as_ref())?,
        Ask::Webhooks { action } => respond::webhooks(&client, &output, action.as_ref())?,
        Ask::Settings { action } => settings::settings(&client, &output, action.as_ref())?,
        Ask::Reload { check } => settings::reload(&client, &output, *check)?,
        Ask::Mode { mode } => respond::mode(&client, &output, mode.as_deref())?,
        Ask::Hosts { packets, limit } => overview::hosts(&client, &output, *packets, *limit)?,
        Ask::Baseline { host, action } => {
            baseline::baseline(&client, &output, *host, action.as_ref())?;
        }
        Ask::Exporters => overview::exporters(&client, &output)?,
        Ask::Bgp { action: None } => overview::peers(&client, &output)?,
        Ask::Bgp { action: Some(overview::Bgp::Test { name }) } => {
            return overview::probe(&client, &output, name);
        }
        Ask::Bgp { action: Some(overview::Bgp::Show { name }) } => {
            peer::show(&client, &output, name)?;
        }
        Ask::Bgp { action: Some(overview::Bgp::Lift { name, route, all: _ }) } => {
            peer::lift(&client, &output, name, route.as_deref())?;
        }
        Ask::Token { action } => accounts::tokens(&client, &output, action.as_ref())?,
        Ask::User { action } => accounts::users(&client, &output, action.as_ref())?,
        Ask::Audit { action } => return state::audit(&client, &output, action.as_ref()),
        Ask::Backup { file, history } => state::backup(&client, &output, file, *history)?,
    }
    Ok(ExitCode::SUCCESS)
}

pub use state::restore;
