//! Commands that ask a running weir, over its local socket: no password for root, for the user weir runs
//! as, and for the group `weir`.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 weir answers but something is wrong
//! (`status`).

pub mod accounts;
mod adopt;
pub mod allow;
pub mod baseline;
mod client;
pub mod flows;
pub mod measure;
pub mod notify;
mod output;
pub mod overview;
pub mod panel;
mod peer;
pub mod policy;
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

/// Options of every command that asks a running weir.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Socket of the running weir
    #[arg(long, global = true, default_value = SOCKET)]
    pub socket: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Print CSV
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
    /// Show the state of weir in a few lines; exit code 3 if something is wrong
    Status,
    /// Watch incidents and the busiest hosts, refreshed every second (q quits)
    Top {
        /// Refresh this many times, then exit [default: until q is pressed]
        #[arg(long)]
        rounds: Option<u64>,
    },
    /// List, show, hold, step down, annotate incidents or report a false alarm
    Incidents {
        /// Subcommand [default: list]
        #[command(subcommand)]
        action: Option<respond::Incidents>,
    },
    /// List, add, approve or withdraw mitigations
    Mitigate {
        /// Subcommand [default: list]
        #[command(subcommand)]
        action: Option<respond::Mitigate>,
    },
    /// List notifications sent to webhooks, or send a test message
    Webhooks {
        /// Subcommand [default: log]
        #[command(subcommand)]
        action: Option<respond::Webhooks>,
    },
    /// List notification channels and their state, send tests, send again, mute
    Notify {
        /// Subcommand [default: list]
        #[command(subcommand)]
        action: Option<notify::Notify>,
    },
    /// Show or change runtime settings: channels, exclusions, groups, ladder, prefixes
    Settings {
        /// Subcommand [default: list]
        #[command(subcommand)]
        action: Option<settings::Settings>,
    },
    /// List allow lists, approve or reject a pending change, read a source now
    Allow {
        /// Subcommand [default: list]
        #[command(subcommand)]
        action: Option<allow::Allow>,
    },
    /// Reload the configuration file and apply the settings that need no restart
    Reload {
        /// Only print the difference, and which active mitigations would end
        #[arg(long)]
        check: bool,
    },
    /// Show or set the mitigation mode; approve and auto also release the brake
    Mode {
        /// observe, approve, auto; or file, to use the mode of the configuration file
        #[arg(value_parser = ["observe", "approve", "auto", "file"], hide_possible_values = true)]
        mode: Option<String>,
    },
    /// List the busiest hosts
    Hosts {
        /// Sort by packets instead of bits
        #[arg(long)]
        packets: bool,
        /// Maximum number of rows
        #[arg(long, default_value_t = 20)]
        limit: u16,
    },
    /// Query the archive of flow records: totals, top N, time series, records
    #[command(after_help = flows::HELP)]
    Flows(flows::Flows),
    /// Show, freeze, thaw or reset a host's baselines, or override a threshold
    #[command(subcommand_negates_reqs = true)]
    Baseline {
        /// Address of the host
        #[arg(required = true)]
        host: Option<std::net::IpAddr>,
        /// Subcommand [default: show]
        #[command(subcommand)]
        action: Option<baseline::Baseline>,
    },
    /// Show the policy of an address: each value and the group that sets it
    Policy {
        /// The address
        address: std::net::IpAddr,
    },
    /// List, show, add, change or remove groups (undo: `weir settings undo groups`)
    Group {
        /// Subcommand [default: list]
        #[command(subcommand)]
        action: Option<policy::Groups>,
    },
    /// List exporters, or forget what was learned about one
    Exporters {
        /// Subcommand [default: list]
        #[command(subcommand)]
        action: Option<overview::Exporters>,
    },
    /// List, show or test BGP peers, or resend routes that a peer rejected
    Bgp {
        /// Subcommand [default: list]
        #[command(subcommand)]
        action: Option<overview::Bgp>,
    },
    /// Create, list and remove API tokens
    Token {
        /// Subcommand [default: list]
        #[command(subcommand)]
        action: Option<accounts::TokenAction>,
    },
    /// Create, list, change and remove accounts
    User {
        /// Subcommand [default: list]
        #[command(subcommand)]
        action: Option<accounts::UserAction>,
    },
    /// Show the audit log, or verify that it is unaltered
    Audit {
        /// Subcommand [default: list]
        #[command(subcommand)]
        action: Option<state::AuditAction>,
    },
    /// Back up the state of a running weir; the file holds password hashes: protect it
    Backup {
        /// File to write; must not exist
        file: PathBuf,
        /// Include the traffic history of hosts, which may be large
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
            anyhow::bail!("top has no --json or --csv: use status, incidents or hosts")
        }
        Ask::Top { rounds } => top::top(&client, *rounds)?,
        Ask::Incidents { action } => respond::incidents(&client, &output, action.as_ref())?,
        Ask::Mitigate { action } => respond::mitigate(&client, &output, action.as_ref())?,
        Ask::Webhooks { action } => respond::webhooks(&client, &output, action.as_ref())?,
        Ask::Notify { action } => return notify::notify(&client, &output, action.as_ref()),
        Ask::Allow { action } => allow::allow(&client, &output, action.as_ref())?,
        Ask::Settings { action } => settings::settings(&client, &output, action.as_ref())?,
        Ask::Reload { check } => settings::reload(&client, &output, *check)?,
        Ask::Mode { mode } => respond::mode(&client, &output, mode.as_deref())?,
        Ask::Hosts { packets, limit } => overview::hosts(&client, &output, *packets, *limit)?,
        Ask::Flows(flows) => flows::flows(&client, &output, flows)?,
        Ask::Baseline { host, action } => {
            baseline::baseline(&client, &output, *host, action.as_ref())?;
        }
        Ask::Policy { address } => policy::policy(&client, &output, *address)?,
        Ask::Group { action } => policy::groups(&client, &output, action.as_ref())?,
        Ask::Exporters { action: None } => overview::exporters(&client, &output)?,
        Ask::Exporters { action: Some(overview::Exporters::Forget { name }) } => {
            overview::forget(&client, &output, name)?;
        }
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
