//! The command line.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::config::{Config, Identity, Token};
use crate::daemon::{self, Ask, Status};
use crate::doctor;
use crate::enforcer;
use crate::link::{Client, Url};
use crate::protocol::{Join, Joined};

/// Node agent of weir: applies its rules on the node itself.
#[derive(Debug, Parser)]
#[command(name = "weir-agent", version)]
pub struct Cli {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join an appliance (once)
    Join {
        /// Address of the appliance's agent listener, such as <https://weir.example.net:8444>
        url: String,
        /// One-time token, from `weir agents --token`
        token: String,
        /// Name of this node [default: host name]
        #[arg(long)]
        name: Option<String>,
        /// Replace a node of the same name that is up; its agent must join again
        #[arg(long)]
        replace: bool,
    },
    /// Run until stopped
    Run {
        /// Run without privileges: read the counters of /proc only
        #[arg(long)]
        limited: bool,
    },
    /// Show the state of the running agent
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List rules: active, staged and refused
    Rules {
        /// Apply staged rules
        #[arg(long)]
        apply: bool,
    },
    /// Remove all rules and keep them removed
    Flush {
        /// Undo a flush: apply rules again
        #[arg(long)]
        resume: bool,
    },
    /// Find problems that keep the agent from working
    Doctor,
    /// Leave the appliance: remove all rules and the identity
    Leave,
    /// Request a test rule from the appliance and wait until it is active
    Test,
}

/// Carries out what was asked; returns what is to be printed.
///
/// # Errors
/// With what went wrong, for people.
pub async fn run(cli: Cli) -> anyhow::Result<String> {
    let config = Config::load(cli.config.as_deref())?;
    match cli.command {
        Command::Join { url, token, name, replace } => {
            join(&config, &url, &token, name, replace).await
        }
        Command::Run { limited } => daemon::run(config, limited).await.map(|()| String::new()),
        Command::Status { json } => {
            let status = ask(&config, &Ask::Status).await?;
            if json { Ok(serde_json::to_string_pretty(&status)?) } else { Ok(show(&status)) }
        }
        Command::Rules { apply } => {
            let asked = if apply { Ask::Apply } else { Ask::Status };
            Ok(rules(&ask(&config, &asked).await?))
        }
        Command::Flush { resume } => flush(&config, resume).await,
        Command::Doctor => {
            let running = daemon::ask(&config.run, &Ask::Status).await.ok();
            doctor::examine(&config, running.as_ref())
        }
        Command::Leave => leave(&config).await,
        Command::Test => {
            let status = ask(&config, &Ask::Test).await?;
            let answer = status.answer.unwrap_or_default();
            if answer.starts_with("the rule") { Ok(answer) } else { anyhow::bail!(answer) }
        }
    }
}

async fn ask(config: &Config, question: &Ask) -> anyhow::Result<Status> {
    let socket = daemon::socket_path(&config.run);
    daemon::ask(&config.run, question).await.with_context(|| {
        format!(
            "cannot reach the agent at {}: is the service running? (systemctl status weir-agent)",
            socket.display()
        )
    })
}

async fn join(
    config: &Config,
    url: &str,
    token: &str,
    name: Option<String>,
    replace: bool,
) -> anyhow::Result<String> {
    // A token is good once: that the answer cannot be kept is found out before it is used.
    Identity::probe(&config.state)?;
    let token = Token::parse(token).context("not a join token")?;
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.unwrap_or_else(|| host().trim().to_owned());
    let mut client = Client::new(Url::parse(url)?, &token.authority, None)?;
    let join = Join {
        token: token.secret.clone(),
        name,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        addresses: doctor::addresses()?,
        replace,
    };
    let body = serde_json::to_vec(&join)?;
    let reply = client.ask("POST", "/v1/agents/join", None, body).await?;
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    anyhow::ensure!(reply.status == 200, "the appliance answers {}: {text}", reply.status);
    let joined: Joined = serde_json::from_str(&text)?;
    let identity = Identity {
        url: url.to_owned(),
        authority: token.authority,
        node: joined.node,
        bearer: joined.bearer,
        signing_key: joined.signing_key,
    };
    identity.save(&config.state)?;
    // What another appliance wanted is not this one's.
    let _ = std::fs::remove_file(config.state.join("snapshot.json"));
    Ok(format!("joined as {}; next: systemctl enable --now weir-agent", identity.node))
}

async fn flush(config: &Config, resume: bool) -> anyhow::Result<String> {
    let question = if resume { Ask::Resume } else { Ask::Flush };
    if let Ok(status) = daemon::ask(&config.run, &question).await {
        return Ok(rules(&status));
    }
    anyhow::ensure!(!resume, "no agent is running");
    enforcer::open(config.backend)?.clear()?;
    Ok("no agent is running; its table was removed".to_owned())
}

async fn leave(config: &Config) -> anyhow::Result<String> {
    let identity = Identity::load(&config.state)?;
    let told = async {
        let mut client = daemon_client(&identity)?;
        let reply = client.ask("POST", "/v1/agents/leave", None, Vec::new()).await?;
        anyhow::ensure!(reply.status < 300, "the appliance answers {}", reply.status);
        anyhow::Ok(())
    };
    let told = told.await;
    // A running agent would take a table that is gone for another program's doing: it clears and ends itself.
    let running = daemon::ask(&config.run, &Ask::Leave).await.is_ok();
    for file in ["identity.json", "snapshot.json", "events.jsonl", "calm.json"] {
        let _ = std::fs::remove_file(config.state.join(file));
    }
    let cleared = match running {
        true => Ok(()),
        false => enforcer::open(config.backend).and_then(|mut e| e.clear()),
    };
    let mut text = format!("{} has left; next: systemctl disable --now weir-agent", identity.node);
    if let Err(error) = told {
        let _ = write!(text, "\nthe appliance could not be told: {error}");
    }
    if let Err(error) = cleared {
        let _ = write!(text, "\nthe table could not be removed: {error}");
    }
    Ok(text)
}

fn daemon_client(identity: &Identity) -> anyhow::Result<Client> {
    let bearer = Some(identity.bearer.clone());
    Ok(Client::new(Url::parse(&identity.url)?, &identity.authority, bearer)?)
}

/// A status for people.
fn show(s: &Status) -> String {
    let link =
        s.link.as_deref().map_or_else(|| "connected".to_owned(), |why| format!("down: {why}"));
    let mut text = format!(
        "node      {}\nappliance {} ({link})\nversion   {}.{}, lease {} s\nlevel     {}\nable to   {}\n",
        s.node,
        s.appliance,
        s.version.0,
        s.version.1,
        s.lease_secs,
        s.level,
        s.abilities.join(", "),
    );
    if let Some(why) = &s.not_taken {
        let _ = writeln!(text, "refused   the appliance's last document: {why}");
    }
    if s.skew_ms != 0 {
        let ahead = if s.skew_ms > 0 { "ahead of" } else { "behind" };
        let secs = s.skew_ms.unsigned_abs() / 1000;
        let _ = writeln!(
            text,
            "clock     {secs} s {ahead} the appliance's, by which times are counted"
        );
    }
    for missing in &s.missing {
        let _ = writeln!(text, "missing   {missing}");
    }
    if s.paused {
        text.push_str("flushed   no rule is active until weir-agent flush --resume\n");
    }
    let _ = writeln!(text, "players   {} learned", s.learned);
    for service in &s.services {
        let _ = writeln!(
            text,
            "service   {} {}/{}: {} packets in, {} out",
            service.service.address,
            service.service.protocol,
            service.service.port,
            service.received.packets,
            service.answered.packets
        );
    }
    text + &rules(s)
}

fn rules(s: &Status) -> String {
    if s.rules.is_empty() {
        return "no rules".to_owned();
    }
    let line = |r: &crate::protocol::RuleReport| {
        let state = serde_json::to_string(&r.state).unwrap_or_default();
        format!(
            "rule      {} {}: {} dropped, {} passed{}",
            r.id,
            state.trim_matches('"'),
            r.dropped.packets,
            r.passed.packets,
            r.why.as_deref().map(|w| format!(" ({w})")).unwrap_or_default()
        )
    };
    s.rules.iter().map(line).collect::<Vec<_>>().join("\n")
}
