//! `weir panel`: look at a game panel before it is configured, and see how it stands afterwards.

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Subcommand;
use weir_config::Config;
use weir_panel::PanelConfig;
use weir_panel::client::Timeouts;
use weir_panel::config::Mode;
use weir_panel::runner::{self, PanelState, Setup, Summary};

use super::Client;

/// How long a single look may wait for a panel that asks to wait.
const PATIENCE: Duration = Duration::from_secs(90);

/// Unmapped allocations that are printed; the counts are complete.
const UNMAPPED_PRINTED_MAX: usize = 20;

/// `weir panel ...`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a panel and a key, show what would be mapped, and print the section to configure
    Add {
        /// Configuration file, for the protected prefixes
        #[arg(long, default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
        /// Name for the panel
        #[arg(long)]
        name: Option<String>,
        /// Address of the panel, such as <https://panel.example.net>
        #[arg(long)]
        url: Option<String>,
        /// File that holds the Application API key
        #[arg(long)]
        key_file: Option<PathBuf>,
        /// One group for all nodes instead of one per node
        #[arg(long)]
        central: bool,
        /// Append the section to the configuration file
        #[arg(long)]
        write: bool,
    },
    /// Show the synchronisation state of each panel
    Status {
        /// Configuration file
        #[arg(long, default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
        /// Print one JSON object per panel
        #[arg(long)]
        json: bool,
    },
    /// Synchronise a panel now
    Sync(Named),
    /// Accept that the ports weir still holds for a panel are gone
    Accept(Named),
    /// Create a link to one server's protection page; anyone with the link can see it
    Share {
        /// The panel
        #[command(flatten)]
        panel: Named,
        /// UUID of the server
        server: String,
        /// Revoke all links to the server instead
        #[arg(long)]
        revoke: bool,
    },
    /// Compare a panel with what weir uses now
    Diff {
        /// Configuration file
        #[arg(long, default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
        /// Name of the panel [default: all]
        name: Option<String>,
    },
}

/// A panel of a running weir.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// Configuration file, which names the running weir's socket
    #[arg(long, default_value = "/etc/weir/weir.toml")]
    config: PathBuf,
    /// Name of the panel
    name: String,
}

impl Named {
    /// The way to the running weir, and the panel's path in its API.
    fn reach(&self) -> anyhow::Result<(Client, String)> {
        let config = weir_config::load(&self.config)?.0;
        let known = config.panels.iter().any(|panel| panel.name == self.name);
        anyhow::ensure!(known, "no [[panel]] {:?} in {}", self.name, self.config.display());
        Ok((Client::new(config.api.socket), format!("/api/v1/panels/{}", self.name)))
    }

    fn order(&self, order: &str) -> anyhow::Result<()> {
        let (client, path) = self.reach()?;
        client.ask("POST", &path, Some(&serde_json::json!({ "order": order }))).map(drop)
    }
}

/// Runs a subcommand. Exit code 1 means that an operator should look.
///
/// # Errors
/// When the configuration or a key cannot be read.
pub fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Add { config, name, url, key_file, central, write } => {
            let config = Loaded::read(config)?;
            let mut panel = PanelConfig::new(
                &answer(name.as_deref(), "name")?,
                &answer(url.as_deref(), "url")?,
                "",
            );
            panel.key = None;
            let key_file = answer(key_file.as_deref().and_then(Path::to_str), "key file")?;
            panel.key_file = Some(PathBuf::from(key_file));
            panel.mode = if *central { Mode::Central } else { Mode::PerNode };
            add(&config, &panel, *write)
        }
        Command::Status { config, json } => status(&Loaded::read(config)?, *json),
        Command::Sync(panel) => {
            panel.order("sync")?;
            say(&format!("panel {}: synchronisation started", panel.name));
            Ok(ExitCode::SUCCESS)
        }
        Command::Accept(panel) => {
            panel.order("accept")?;
            say(&format!("panel {}: missing ports removed", panel.name));
            Ok(ExitCode::SUCCESS)
        }
        Command::Share { panel, server, revoke } => share(panel, server, *revoke),
        Command::Diff { config, name } => diff(&Loaded::read(config)?, name.as_deref()),
    }
}

struct Loaded {
    path: PathBuf,
    config: Config,
}

impl Loaded {
    fn read(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { path: path.to_owned(), config: weir_config::load(path)?.0 })
    }

    fn state(&self) -> Option<&Path> {
        self.config.store.path.parent()
    }

    fn setup(&self, panel: &PanelConfig) -> Setup {
        let mut section = self.config.panel_section();
        section.panels = vec![panel.clone()];
        Setup {
            config: section,
            protected: self.config.protect.prefixes.clone(),
            state: None,
            timeouts: Timeouts::default(),
        }
    }

    fn panels(&self, name: Option<&str>) -> anyhow::Result<Vec<&PanelConfig>> {
        let all = &self.config.panels;
        let found: Vec<_> = all.iter().filter(|p| name.is_none_or(|n| p.name == n)).collect();
        anyhow::ensure!(!found.is_empty(), "no such [[panel]] in {}", self.path.display());
        Ok(found)
    }
}

/// The argument, or what is typed on a terminal.
fn answer(given: Option<&str>, what: &str) -> anyhow::Result<String> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    if !std::io::stdin().is_terminal() {
        bail!("--{} is needed", what.replace(' ', "-"));
    }
    let mut out = std::io::stdout();
    write!(out, "{what}: ")?;
    out.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn add(loaded: &Loaded, panel: &PanelConfig, write: bool) -> anyhow::Result<ExitCode> {
    let setup = loaded.setup(panel);
    let (state, _) = runner::once(&setup, panel, PATIENCE).map_err(|why| anyhow!(why))?;
    say(describe(&state).trim_end());
    if state.snapshot.is_none() {
        return Ok(ExitCode::FAILURE);
    }
    let section = section(panel);
    if !write {
        say(&format!("\nAdd this to {}:\n\n{}", loaded.path.display(), section.trim_end()));
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::ensure!(
        !loaded.config.panels.iter().any(|p| p.name == panel.name),
        "a panel {:?} is configured already",
        panel.name
    );
    let mut file = std::fs::OpenOptions::new().append(true).open(&loaded.path)?;
    write!(file, "\n{section}").with_context(|| format!("{}", loaded.path.display()))?;
    say(&format!("added to {}; restart weir", loaded.path.display()));
    Ok(ExitCode::SUCCESS)
}

fn section(panel: &PanelConfig) -> String {
    let mode = match panel.mode {
        Mode::PerNode => "per-node",
        Mode::Central => "central",
    };
    let key = panel.key_file.as_deref().map(|p| p.display().to_string()).unwrap_or_default();
    format!(
        "[[panel]]\nname = {:?}\nurl = {:?}\nkey_file = {key:?}\nmode = \"{mode}\"\n",
        panel.name, panel.url
    )
}

fn describe(state: &PanelState) -> String {
    let mut out = String::new();
    let status = &state.status;
    // Writing to a String cannot fail.
    let _ = writeln!(out, "panel {}: {:?}", state.name, status.connection);
    if let Some(flavour) = status.flavour {
        let _ = writeln!(
            out,
            "  {flavour:?}, {} requests in {} ms, {} a minute allowed",
            status.pass_requests,
            status.pass_ms,
            status.rate_limit.map_or_else(|| "?".to_owned(), |l| l.to_string())
        );
    }
    if let Some(error) = &status.error {
        let _ = writeln!(out, "  error: {error}");
    }
    for alarm in &state.alarms {
        let _ = writeln!(out, "  attention: {alarm}");
    }
    let Some(snapshot) = &state.snapshot else { return out };
    let _ = writeln!(
        out,
        "  {} servers, {} allocations, {} ports on the wire, {} conflicts",
        snapshot.servers.len(),
        snapshot.allocations.len(),
        snapshot.services.len(),
        snapshot.conflicts
    );
    nodes(&mut out, &snapshot.nodes);
    unmapped(&mut out, snapshot.unmapped());
    out
}

fn nodes(out: &mut String, nodes: &[weir_panel::NodeView]) {
    for node in nodes {
        let ports: Vec<String> = node.system_ports.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            out,
            "  node {:<24} {:>5} mapped {:>5} unmapped {:>6} ports, system ports {}{}",
            node.name,
            node.mapped,
            node.unmapped,
            node.services,
            ports.join(" "),
            if node.system_mapped { "" } else { " (on no protected address)" }
        );
    }
}

fn unmapped<'a>(out: &mut String, list: impl Iterator<Item = &'a weir_panel::AllocationView>) {
    for (i, a) in list.enumerate() {
        if i == UNMAPPED_PRINTED_MAX {
            let _ = writeln!(out, "  ...");
            return;
        }
        let ip = a.ip.map_or_else(|| "?".to_owned(), |ip| ip.to_string());
        let why = a.unmapped.map_or("", weir_panel::Unmapped::as_str);
        let _ = writeln!(out, "  unmapped {ip}:{} of server {}: {why}", a.port, a.server);
    }
}

fn status(loaded: &Loaded, json: bool) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let state = loaded.state().context("store.path has no folder")?;
    for panel in loaded.panels(None)? {
        let path = runner::summary_path(state, &panel.name);
        let Ok(text) = std::fs::read_to_string(&path) else {
            say(&format!("panel {}: not synchronised yet", panel.name));
            code = ExitCode::FAILURE;
            continue;
        };
        if json {
            say(text.trim_end());
            continue;
        }
        let summary: Summary = serde_json::from_str(&text)?;
        if !summary.alarms.is_empty() {
            code = ExitCode::FAILURE;
        }
        say(summarise(&summary).trim_end());
    }
    Ok(code)
}

fn summarise(summary: &Summary) -> String {
    let mut out = String::new();
    let status = &summary.status;
    let _ = writeln!(
        out,
        "panel {} ({}): {:?}, {:?}, as of {}",
        summary.name, summary.url, status.connection, summary.mode, summary.at
    );
    let last = status.last_success.map_or_else(|| "never".to_owned(), |at| at.to_string());
    let _ = writeln!(
        out,
        "  last complete read {last}, {} requests in {} ms; {} ports on the wire, {} held, {} conflicts",
        status.pass_requests, status.pass_ms, summary.services, status.held, summary.conflicts
    );
    for alarm in &summary.alarms {
        let _ = writeln!(out, "  attention: {alarm}");
    }
    nodes(&mut out, &summary.nodes);
    unmapped(&mut out, summary.unmapped.iter());
    out
}

fn share(panel: &Named, server: &str, revoke: bool) -> anyhow::Result<ExitCode> {
    let uuid = |c: char| c.is_ascii_hexdigit() || c == '-';
    anyhow::ensure!(server.chars().all(uuid), "{server:?} is not a UUID");
    let (client, path) = panel.reach()?;
    if revoke {
        let answer = client.ask("DELETE", &format!("{path}/shares?server={server}"), None)?;
        say(&format!("{} links revoked", answer["links"]));
    } else {
        let body = serde_json::json!({ "server": server });
        let answer = client.ask("POST", &format!("{path}/shares"), Some(&body))?;
        say(answer["url"].as_str().context("the answer has no link")?);
    }
    Ok(ExitCode::SUCCESS)
}

fn diff(loaded: &Loaded, name: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for panel in loaded.panels(name)? {
        let setup = loaded.setup(panel);
        let (state, listing) = runner::once(&setup, panel, PATIENCE).map_err(|why| anyhow!(why))?;
        let Some(listing) = listing else {
            say(describe(&state).trim_end());
            code = ExitCode::FAILURE;
            continue;
        };
        let kept = loaded
            .state()
            .and_then(|folder| runner::read_kept(&runner::listing_path(folder, &panel.name)));
        let Some(kept) = kept else {
            say(&format!("panel {}: not synchronised yet", panel.name));
            continue;
        };
        let changes = kept.changes(&listing);
        say(&format!("panel {}: {} changes since {}", panel.name, changes.len(), kept.taken));
        for change in changes {
            say(&change);
        }
    }
    Ok(code)
}

/// Fails only when standard output is gone, and then there is nobody to tell.
fn say(message: &str) {
    let _ = super::say(message);
}
