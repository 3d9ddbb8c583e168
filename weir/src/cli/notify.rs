//! `weir notify`: notification channels, and how it goes with them.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, escape};
use super::output::{As, Column, Output};

/// How long a test waits for what the service answers.
const PATIENCE: Duration = Duration::from_secs(25);

/// What to do with notification channels.
#[derive(Debug, Subcommand)]
pub enum Notify {
    /// List webhooks and channels with their state
    List,
    /// List undelivered messages
    Dead,
    /// List mutes
    Mutes,
    /// Send a test message and print the answer
    Test {
        /// Name of the channel
        name: String,
    },
    /// Send an undelivered message again
    Resend {
        /// Number of the message, from `weir notify dead`
        delivery: u64,
    },
    /// Mute channels for a while
    Mute {
        /// Only this channel
        #[arg(long)]
        channel: Option<String>,
        /// Only attacks on this group
        #[arg(long)]
        group: Option<String>,
        /// Duration in seconds; 0 ends the mute
        #[arg(long, default_value_t = 3600)]
        secs: u64,
    },
}

const CHANNELS: &[Column] = &[
    ("name", "/name", As::Text),
    ("service", "/service", As::Text),
    ("enabled", "/enabled", As::Text),
    ("waiting", "/waiting", As::Text),
    ("conversations", "/conversations", As::Text),
    ("failures", "/failures", As::Text),
    ("trouble", "/trouble", As::Text),
];

const DEAD: &[Column] = &[
    ("id", "/id", As::Text),
    ("to", "/to", As::Text),
    ("event", "/event", As::Text),
    ("at", "/at", As::Time),
    ("tries", "/tries", As::Text),
    ("why", "/why", As::Text),
];

const MUTES: &[Column] = &[
    ("channel", "/channel", As::Text),
    ("group", "/group", As::Text),
    ("until", "/until", As::Time),
    ("by", "/by", As::Text),
];

pub(super) fn notify(
    client: &Client,
    output: &Output,
    action: Option<&Notify>,
) -> anyhow::Result<ExitCode> {
    let all = || client.get("/api/v1/notify");
    match action.unwrap_or(&Notify::List) {
        Notify::List => output.list(&all()?["channels"], CHANNELS)?,
        Notify::Dead => output.list(&all()?["dead"], DEAD)?,
        Notify::Mutes => output.list(&all()?["mutes"], MUTES)?,
        Notify::Test { name } => return test(client, output, name),
        Notify::Resend { delivery } => {
            let path = format!("/api/v1/notify/dead/{delivery}/resend");
            let queued = client.ask("POST", &path, None)?;
            output.one(&queued, &format!("delivery {} is on its way", queued["delivery"]))?;
        }
        Notify::Mute { channel, group, secs } => {
            let body = json!({ "channel": channel, "group": group, "secs": secs });
            let after = client.ask("POST", "/api/v1/notify/mute", Some(&body))?;
            output.list(&after["mutes"], MUTES)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends a test and waits for what comes of it.
fn test(client: &Client, output: &Output, name: &str) -> anyhow::Result<ExitCode> {
    let path = format!("/api/v1/notify/channels/{}/test", escape(name));
    let queued = client.ask("POST", &path, None)?;
    let end = Instant::now() + PATIENCE;
    // Nobody sends on it: a wait between two looks.
    let (_keep, pause) = std::sync::mpsc::channel::<()>();
    loop {
        let log = client.get("/api/v1/deliveries")?;
        let list = log["deliveries"].as_array().map_or(&[][..], Vec::as_slice);
        if let Some(found) = list.iter().find(|entry| entry["id"] == queued["delivery"]) {
            let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
            let line = format!("{}: {}", text("outcome"), text("said"));
            output.one(found, line.trim_end_matches([' ', ':']))?;
            let taken = found["taken"] == Value::Bool(true);
            return Ok(if taken { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        if Instant::now() >= end {
            anyhow::bail!(
                "nothing yet: it is tried again; `weir webhooks` says what becomes of it"
            );
        }
        let _ = pause.recv_timeout(Duration::from_millis(200));
    }
}
