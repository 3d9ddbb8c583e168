//! The audit log, backups and their return.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use weir_api::BACKUP;
use weir_store::backup;

use super::client::Client;
use super::output::{As, Output, say};

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditAction {
    /// List entries, newest first
    List {
        /// Maximum number of rows
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Verify that no entry was changed, removed or inserted; exit code 1 if one was
    Verify,
}

pub(super) fn audit(
    client: &Client,
    output: &Output,
    action: Option<&AuditAction>,
) -> anyhow::Result<ExitCode> {
    match action.unwrap_or(&AuditAction::List { limit: 50 }) {
        AuditAction::List { limit } => {
            let list = client.get(&format!("/api/v1/audit?limit={limit}"))?;
            output.list(
                &list["entries"],
                &[
                    ("seq", "/seq", As::Text),
                    ("at", "/at", As::Time),
                    ("who", "/who", As::Text),
                    ("via", "/via", As::Text),
                    ("from", "/address", As::Text),
                    ("action", "/action", As::Text),
                    ("target", "/target", As::Text),
                ],
            )?;
            Ok(ExitCode::SUCCESS)
        }
        AuditAction::Verify => {
            let verdict = client.get("/api/v1/audit/verify")?;
            let whole = verdict["whole"].as_bool().unwrap_or(false);
            let text = if whole {
                let head = verdict["head"].as_str().unwrap_or_default();
                format!("intact: {} entries, head {head}", verdict["entries"])
            } else {
                format!("ALTERED at entry {}", verdict["broken_at"])
            };
            output.one(&verdict, &text)?;
            Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

pub(super) fn backup(
    client: &Client,
    output: &Output,
    file: &Path,
    history: bool,
) -> anyhow::Result<()> {
    let shown = file.display();
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("{shown}"))?;
    let path = format!("{BACKUP}?history={history}");
    let written = client.download(&path, &mut out).and_then(|bytes| {
        out.sync_all()?;
        Ok(bytes)
    });
    match written {
        Ok(bytes) => output.one(
            &serde_json::json!({"file": file, "bytes": bytes}),
            &format!("{shown}: {bytes} bytes"),
        ),
        Err(error) => {
            // Half a backup is worse than none.
            let _ = std::fs::remove_file(file);
            Err(error)
        }
    }
}

/// Puts a backup in the place of the state file of a weir that does not run.
///
/// # Errors
/// When weir runs, or the backup is damaged or newer.
pub fn restore(file: &Path, state: &Path, client: &Client) -> anyhow::Result<ExitCode> {
    if client.is_answered() {
        bail!("weir is running: stop it first (systemctl stop weir)");
    }
    if state.as_os_str() == ":memory:" {
        bail!("store.path is :memory:, which keeps nothing: set a file to restore to");
    }
    let history = state.with_file_name("history.db");
    let manifest = backup::restore(file, state, Some(&history))?;
    say(&format!(
        "{}: restored the backup of {} made by weir {}",
        state.display(),
        manifest.at,
        manifest.weir
    ))?;
    Ok(ExitCode::SUCCESS)
}
