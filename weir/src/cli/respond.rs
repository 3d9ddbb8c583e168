//! Incidents and mitigations: look, and act.

use clap::Subcommand;
use serde_json::{Value, json};
use weir_model::{DryRun, Evidence, Incident, IncidentId, Mitigation, Originator};

use super::client::{Client, escape};
use super::measure::{Add, What};
use super::output::{As, Column, Output};
use super::overview::INCIDENTS;
use crate::text;

/// What to do with incidents.
#[derive(Debug, Subcommand)]
pub enum Incidents {
    /// List incidents, newest first
    List {
        /// Only open incidents
        #[arg(long)]
        open: bool,
        /// Only this attack family, such as udp-flood
        #[arg(long)]
        family: Option<String>,
        /// Text contained in target, family or summary
        #[arg(long)]
        search: Option<String>,
        /// Maximum number of rows
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show an incident with its evidence, rules and notes
    Show {
        /// Incident id
        id: IncidentId,
    },
    /// Hold: keep the incident on its current step
    Hold {
        /// Incident id
        id: IncidentId,
    },
    /// Release a held incident
    Release {
        /// Incident id
        id: IncidentId,
    },
    /// Skip the current or proposed step and go to the next one
    Skip {
        /// Incident id
        id: IncidentId,
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Step down one step, and do not return to the step left
    StepDown {
        /// Incident id
        id: IncidentId,
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Add a note to an incident
    Note {
        /// Incident id
        id: IncidentId,
        /// Text of the note
        text: String,
    },
    /// Report a false alarm; prints a draft exclusion
    FalseAlarm {
        /// Incident id
        id: IncidentId,
        /// Reason
        #[arg(default_value = "")]
        comment: String,
    },
}

/// What to do with mitigations.
#[derive(Debug, Subcommand)]
pub enum Mitigate {
    /// List mitigations, newest first
    List,
    /// Add a mitigation by hand
    Add(Box<Add>),
    /// Set another expiry for a mitigation added by hand
    Extend {
        /// Mitigation id
        id: u64,
        /// Seconds from now until it expires
        #[arg(long, default_value_t = 600)]
        ttl: u64,
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Replace a mitigation added by hand; its id and expiry stay
    Replace {
        /// Mitigation id
        id: u64,
        /// What replaces it
        #[command(flatten)]
        what: Box<What>,
        /// Seconds from now until it expires [default: unchanged]
        #[arg(long)]
        ttl: Option<u64>,
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Approve a proposed mitigation
    Approve {
        /// Mitigation id
        id: u64,
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Withdraw a mitigation, or reject a proposed one
    Withdraw {
        /// Mitigation id
        id: u64,
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Withdraw all mitigations and switch to observe mode (the brake)
    WithdrawAll,
}

/// What to do with webhooks.
#[derive(Debug, Subcommand)]
pub enum Webhooks {
    /// List notifications and whether they were delivered, newest first
    Log,
    /// Send a test message to a webhook
    Test {
        /// Name of the webhook
        name: String,
    },
}

const MITIGATIONS: &[Column] = &[
    ("id", "/id", As::Text),
    ("state", "/state", As::Text),
    ("step", "/rung", As::Text),
    ("mitigation", "/text", As::Text),
    ("origin", "/by", As::Text),
    ("announced to", "/peers", As::Text),
    ("since", "/since", As::Time),
    ("expires", "/expires", As::Time),
];

pub(super) fn incidents(
    client: &Client,
    output: &Output,
    action: Option<&Incidents>,
) -> anyhow::Result<()> {
    let all = Incidents::List { open: false, family: None, search: None, limit: 50 };
    match action.unwrap_or(&all) {
        Incidents::List { open, family, search, limit } => {
            let mut path = format!("/api/v1/incidents?limit={limit}");
            if *open {
                path.push_str("&state=open");
            }
            for (name, value) in [("family", family), ("search", search)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", escape(value)));
                }
            }
            output.list(&client.get(&path)?["incidents"], INCIDENTS)
        }
        Incidents::Show { id } => {
            let page = client.get(&format!("/api/v1/incidents/{id}"))?;
            let incident: Incident = serde_json::from_value(page.clone())?;
            let mut words = text::incident(&incident, incident.opened);
            let evidence: Option<Evidence> = serde_json::from_value(page["evidence"].clone())?;
            words.extend(evidence.iter().map(text::evidence));
            for note in page["notes"].as_array().into_iter().flatten() {
                let field = |name: &str| note[name].as_str().unwrap_or_default().to_owned();
                words.push_str(&format!("note by {}: {}\n", field("who"), field("text")));
            }
            output.one(&page, &words)
        }
        Incidents::Hold { id } => hold(client, output, *id, true),
        Incidents::Release { id } => hold(client, output, *id, false),
        Incidents::Skip { id, dry_run: true } => trial(client, output, &json!({ "skip": id })),
        Incidents::StepDown { id, dry_run: true } => {
            trial(client, output, &json!({ "step-down": id }))
        }
        Incidents::Skip { id, .. } => {
            let done = client.ask("POST", &format!("/api/v1/incidents/{id}/skip"), None)?;
            output.one(&done, "went to the next step")
        }
        Incidents::StepDown { id, .. } => {
            let done = client.ask("POST", &format!("/api/v1/incidents/{id}/step-down"), None)?;
            output.one(&done, "stepped down")
        }
        Incidents::Note { id, text } => {
            let path = format!("/api/v1/incidents/{id}/notes");
            let note = client.ask("POST", &path, Some(&json!({ "text": text })))?;
            output.one(&note, "note added")
        }
        Incidents::FalseAlarm { id, comment } => {
            let path = format!("/api/v1/incidents/{id}/feedback");
            let body = json!({ "kind": "false-positive", "comment": comment });
            let said = client.ask("PUT", &path, Some(&body))?;
            output.one(&said, &format!("{:#}", said["exclusion"]))
        }
    }
}

fn hold(client: &Client, output: &Output, id: IncidentId, on: bool) -> anyhow::Result<()> {
    let path = format!("/api/v1/incidents/{id}/hold");
    let done = client.ask("POST", &path, Some(&json!({ "on": on })))?;
    let text = if on { "held" } else { "released" };
    output.one(&done, &format!("{text}{}", unrecorded(&done)))
}

pub(super) fn mitigate(
    client: &Client,
    output: &Output,
    action: Option<&Mitigate>,
) -> anyhow::Result<()> {
    let done = match action.unwrap_or(&Mitigate::List) {
        Mitigate::List => {
            let mut list = client.get("/api/v1/mitigations")?["mitigations"].take();
            for row in list.as_array_mut().into_iter().flatten() {
                describe(row)?;
            }
            return output.list(&list, MITIGATIONS);
        }
        Mitigate::Add(add) => {
            let body = json!({ "measure": add.what.measure()?, "ttl_secs": add.ttl });
            if add.dry_run {
                return trial(client, output, &json!({ "add": body }));
            }
            client.ask("POST", "/api/v1/mitigations", Some(&body))?
        }
        Mitigate::Extend { id, ttl, dry_run } => {
            let body = json!({ "ttl_secs": ttl });
            if *dry_run {
                return trial(client, output, &json!({ "change": { "id": id, "ttl_secs": ttl } }));
            }
            client.ask("PATCH", &format!("/api/v1/mitigations/{id}"), Some(&body))?
        }
        Mitigate::Replace { id, what, ttl, dry_run } => {
            let measure = what.measure()?;
            if *dry_run {
                let change = json!({ "id": id, "measure": measure, "ttl_secs": ttl });
                return trial(client, output, &json!({ "change": change }));
            }
            let body = json!({ "measure": measure, "ttl_secs": ttl });
            client.ask("PATCH", &format!("/api/v1/mitigations/{id}"), Some(&body))?
        }
        Mitigate::Approve { id, dry_run: true } => {
            return trial(client, output, &json!({ "approve": id }));
        }
        Mitigate::Withdraw { id, dry_run: true } => {
            return trial(client, output, &json!({ "withdraw": id }));
        }
        Mitigate::Approve { id, .. } => {
            client.ask("POST", &format!("/api/v1/mitigations/{id}/approve"), None)?
        }
        Mitigate::Withdraw { id, .. } => {
            client.ask("POST", &format!("/api/v1/mitigations/{id}/withdraw"), None)?
        }
        Mitigate::WithdrawAll => client.ask("POST", "/api/v1/mitigations/withdraw-all", None)?,
    };
    let text = done["mitigation"]
        .as_u64()
        .map_or_else(|| "done".to_owned(), |id| format!("mitigation {id}"));
    output.one(&done, &format!("{text}{}", unrecorded(&done)))
}

/// What is to be added when something was done and is not written down yet.
fn unrecorded(done: &Value) -> &'static str {
    if done["recorded"] == false {
        "; not saved yet: the state file cannot be written (see weir status)"
    } else {
        ""
    }
}

/// Says what something would change.
fn trial(client: &Client, output: &Output, what: &Value) -> anyhow::Result<()> {
    let answer = client.ask("POST", "/api/v1/dry-run", Some(what))?;
    let run: DryRun = serde_json::from_value(answer.clone())?;
    output.one(&answer, &words(&run))
}

fn words(run: &DryRun) -> String {
    let mut words = String::new();
    for (sign, list) in [('+', &run.adds), ('-', &run.removes)] {
        for measure in list {
            words.push_str(&format!("{sign} {measure}\n"));
        }
    }
    if words.is_empty() {
        words.push_str("nothing would change\n");
    }
    if !run.adds.is_empty() {
        words.push_str(&match run.normal_share {
            Some(share) => format!("collateral: {:.2} % of normal traffic\n", share * 100.0),
            None => "collateral unknown: no measurement of normal traffic\n".to_owned(),
        });
    }
    for service in &run.services {
        words.push_str(&format!(
            "may affect {} {}:{}\n",
            service.name, service.address, service.port
        ));
    }
    words
}

const DELIVERIES: &[Column] = &[
    ("id", "/id", As::Text),
    ("to", "/to", As::Text),
    ("event", "/event", As::Text),
    ("queued", "/queued", As::Time),
    ("ended", "/ended", As::Time),
    ("tries", "/tries", As::Text),
    ("outcome", "/outcome", As::Text),
];

pub(super) fn webhooks(
    client: &Client,
    output: &Output,
    action: Option<&Webhooks>,
) -> anyhow::Result<()> {
    match action.unwrap_or(&Webhooks::Log) {
        Webhooks::Log => output.list(&client.get("/api/v1/deliveries")?["deliveries"], DELIVERIES),
        Webhooks::Test { name } => {
            let path = format!("/api/v1/webhooks/{}/test", escape(name));
            let queued = client.ask("POST", &path, None)?;
            output.one(&queued, &format!("delivery {}", queued["delivery"]))
        }
    }
}

/// Adds the measure and who wants it as a person would say them.
fn describe(row: &mut Value) -> anyhow::Result<()> {
    let mitigation: Mitigation = serde_json::from_value(row.clone())?;
    row["text"] = Value::from(mitigation.measure.to_string());
    row["by"] = Value::from(match mitigation.originator {
        Originator::Incident(id) => format!("incident {id}"),
        Originator::Operator(name) => name,
    });
    Ok(())
}

pub(super) fn mode(client: &Client, output: &Output, mode: Option<&str>) -> anyhow::Result<()> {
    let mut late = "";
    if let Some(mode) = mode {
        let done = match mode {
            "file" => client.ask("DELETE", "/api/v1/mode", None)?,
            mode => client.ask("POST", "/api/v1/mode", Some(&json!({ "mode": mode })))?,
        };
        late = unrecorded(&done);
    }
    let now = client.get("/api/v1/mode")?;
    let stance = if now["stance"].is_null() {
        String::new()
    } else {
        format!(", {}", super::overview::stance(&now))
    };
    output.one(&now, &format!("{}{stance}{late}", now["mode"].as_str().unwrap_or("?")))
}
