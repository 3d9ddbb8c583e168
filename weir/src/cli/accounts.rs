//! Accounts and tokens.

use std::io::IsTerminal as _;

use clap::Subcommand;
use serde_json::{Value, json};
use weir_model::{IpNet, Role};

use super::client::Client;
use super::output::{As, Output};

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenAction {
    /// List tokens
    List,
    /// Create a token; its secret is printed once
    Create {
        /// Name of the token
        #[arg(long)]
        name: String,
        /// owner, admin, analyst, readonly or tenant
        #[arg(long)]
        role: Role,
        /// Limit to this permission, such as incidents:read; may be repeated
        #[arg(long)]
        scope: Vec<String>,
        /// Prefix of a tenant; may be repeated
        #[arg(long)]
        prefix: Vec<IpNet>,
        /// Network the token may be used from; may be repeated [default: any]
        #[arg(long)]
        network: Vec<IpNet>,
        /// Days until the token expires [default: never]
        #[arg(long)]
        days: Option<u64>,
    },
    /// Remove a token
    Remove {
        /// Token id
        id: u64,
    },
}

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum UserAction {
    /// List accounts
    List,
    /// Create an account; asks for the password twice, or reads it from standard input
    Add {
        /// Name of the account
        name: String,
        /// owner, admin, analyst, readonly or tenant
        #[arg(long)]
        role: Role,
        /// Prefix of a tenant; may be repeated
        #[arg(long)]
        prefix: Vec<IpNet>,
    },
    /// Set a new password and end all sessions of the account
    Password {
        /// Name of the account
        name: String,
    },
    /// Reset two-factor authentication
    ResetTotp {
        /// Name of the account
        name: String,
    },
    /// Disable an account
    Disable {
        /// Name of the account
        name: String,
    },
    /// Enable an account
    Enable {
        /// Name of the account
        name: String,
    },
    /// Remove an account
    Remove {
        /// Name of the account
        name: String,
    },
}

pub(super) fn tokens(
    client: &Client,
    output: &Output,
    action: Option<&TokenAction>,
) -> anyhow::Result<()> {
    match action.unwrap_or(&TokenAction::List) {
        TokenAction::List => output.list(
            &client.get("/api/v1/tokens")?["tokens"],
            &[
                ("id", "/id", As::Text),
                ("name", "/name", As::Text),
                ("role", "/role", As::Text),
                ("scopes", "/scopes", As::Text),
                ("networks", "/networks", As::Text),
                ("by", "/created_by", As::Text),
                ("expires", "/expires", As::Time),
                ("used", "/used", As::Time),
            ],
        ),
        TokenAction::Create { name, role, scope, prefix, network, days } => {
            const DAY_MS: u64 = 86_400_000;
            let expires = days.map(|days| crate::daemon::now() + days.saturating_mul(DAY_MS));
            let body = json!({
                "name": name,
                "role": role,
                "scopes": (!scope.is_empty()).then_some(scope),
                "prefixes": prefix,
                "networks": network,
                "expires": expires,
            });
            let made = client.ask("POST", "/api/v1/tokens", Some(&body))?;
            output.one(&made, made["secret"].as_str().unwrap_or_default())
        }
        TokenAction::Remove { id } => {
            client.ask("DELETE", &format!("/api/v1/tokens/{id}"), None)?;
            output.one(&Value::Null, "removed")
        }
    }
}

/// Typed twice on a terminal, without showing it; else the first line of standard input.
fn password() -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    let typed = hidden("Password: ")?;
    anyhow::ensure!(typed == hidden("Repeat password: ")?, "the passwords differ");
    Ok(typed)
}

/// One line of the terminal, not shown while it is typed. The question goes to standard error, so that the
/// answer of the command can be taken from standard output.
fn hidden(question: &str) -> anyhow::Result<String> {
    let terminal = console::Term::stderr();
    anyhow::ensure!(
        terminal.is_term(),
        "no terminal to ask on: pass the password on standard input"
    );
    terminal.write_str(question)?;
    terminal.flush()?;
    Ok(terminal.read_secure_line()?)
}

pub(super) fn users(
    client: &Client,
    output: &Output,
    action: Option<&UserAction>,
) -> anyhow::Result<()> {
    let (name, change, word) = match action.unwrap_or(&UserAction::List) {
        UserAction::List => {
            return output.list(
                &client.get("/api/v1/users")?["users"],
                &[
                    ("name", "/name", As::Text),
                    ("role", "/role", As::Text),
                    ("prefixes", "/prefixes", As::Text),
                    ("totp", "/totp", As::Text),
                    ("disabled", "/disabled", As::Text),
                    ("created", "/created", As::Time),
                ],
            );
        }
        UserAction::Add { name, role, prefix } => {
            let body =
                json!({"name": name, "password": password()?, "role": role, "prefixes": prefix});
            let made = client.ask("POST", "/api/v1/users", Some(&body))?;
            return output.one(&made, "created");
        }
        UserAction::Remove { name } => {
            client.ask("DELETE", &format!("/api/v1/users/{name}"), None)?;
            return output.one(&Value::Null, "removed");
        }
        UserAction::Password { name } => (name, json!({"password": password()?}), "changed"),
        UserAction::ResetTotp { name } => {
            (name, json!({"totp": false}), "two-factor authentication reset")
        }
        UserAction::Disable { name } => (name, json!({"disabled": true}), "disabled"),
        UserAction::Enable { name } => (name, json!({"disabled": false}), "enabled"),
    };
    let user = client.ask("PATCH", &format!("/api/v1/users/{name}"), Some(&change))?;
    output.one(&user, word)
}
