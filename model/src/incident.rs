//! An incident as an operator sees it: the last verdict, the history, what was done.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{IncidentId, Millis, Mitigation, MitigationState, Phase, Reason, Rung, Verdict};

/// Whether an incident goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum IncidentState {
    /// The attack goes on.
    Open,
    /// Over.
    Closed,
}

/// Something that happened in an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TimelineEntry {
    /// When.
    pub at: Millis,
    /// What, as a closed word: `opened`, `classified`, `announced`, `withdrawn`, ...
    pub kind: String,
    /// In a sentence.
    pub text: String,
}

/// One attack on one target, from the first verdict to the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Incident {
    /// Its number.
    pub id: IncidentId,
    /// Whether it goes on.
    pub state: IncidentState,
    /// Name of the group of hosts it is in, such as a node of a panel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// First verdict.
    pub opened: Millis,
    /// End, if over.
    pub closed: Option<Millis>,
    /// The last verdict of weight.
    pub verdict: Verdict,
    /// The rung that stands: in force, proposed or simulated, as the mitigations say.
    pub rung: Option<Rung>,
    /// The hardest rung that a router or node was ever seen to have in it; `None` when none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Rung>,
    /// An operator holds it where it stands.
    pub held: bool,
    /// Everything decided for it, oldest first.
    pub mitigations: Vec<Mitigation>,
    /// What happened, oldest first, bounded.
    pub timeline: Vec<TimelineEntry>,
}

impl Incident {
    /// One sentence for people: what the verdict says, and what is done about it.
    pub fn told(&self) -> String {
        let summary = &self.verdict.summary;
        self.done().map_or_else(|| summary.clone(), |done| format!("{summary}; {done}"))
    }

    /// What is in force, what waits for people, what would be done; none when the attack is over and
    /// nothing is left.
    pub fn done(&self) -> Option<String> {
        let in_force = self.steps(Mitigation::is_in_force);
        let sought = self.steps(|m| m.state == MitigationState::Active && !m.is_in_force());
        let simulated = self.steps(|m| m.state == MitigationState::Simulated);
        let waiting =
            self.mitigations.iter().filter(|m| m.state == MitigationState::Proposed).count();
        let mut parts = Vec::new();
        if !in_force.is_empty() {
            parts.push(in_force);
        }
        if !sought.is_empty() {
            parts.push(format!("to be {sought}, which no peer has yet"));
        }
        if waiting > 0 {
            parts.push(format!("{waiting} proposed"));
        }
        if !simulated.is_empty() {
            parts.push(format!("would be {simulated}"));
        }
        let lives = self.state == IncidentState::Open && self.verdict.phase != Phase::Ended;
        if parts.is_empty() && lives {
            parts.push("nothing is done about it".to_owned());
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// `dropped by 2 rules`, and so on for each step that these measures are of.
    fn steps(&self, which: impl Fn(&Mitigation) -> bool) -> String {
        let mut parts = Vec::new();
        for rung in Rung::ALL {
            let of_rung = |m: &&Mitigation| m.rung == rung && which(m);
            let number = self.mitigations.iter().filter(of_rung).count();
            if number == 0 {
                continue;
            }
            let rules = if number == 1 { "rule" } else { "rules" };
            parts.push(match rung {
                Rung::Mark => format!("marked by {number} {rules}"),
                Rung::RateLimit => format!("limited by {number} {rules}"),
                Rung::Drop => format!("dropped by {number} {rules}"),
                Rung::Redirect => format!("redirected by {number} {rules}"),
                Rung::Divert => "diverted".to_owned(),
                Rung::Rtbh => "black-holed".to_owned(),
                Rung::Scrub => "diverted to scrubbing".to_owned(),
            });
        }
        parts.join(", ")
    }
}

/// What comes next about an open incident by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum OutlookKind {
    /// It is judged whether the rules in force help; if they do not, the next step follows.
    Judge,
    /// The attack is no longer seen: back to gentler rules.
    StepDown,
    /// The attack is no longer seen: everything is withdrawn.
    Withdraw,
    /// Nothing came back after everything was withdrawn: the incident is closed.
    Close,
}

/// What comes next about an open incident unless the attack or an operator changes it, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Outlook {
    /// What.
    pub kind: OutlookKind,
    /// When, at the earliest.
    pub at: Millis,
}

/// One decision with all that led to it: becomes one line of the log, one entry of the incident's
/// timeline, one row of the audit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Decision {
    /// When.
    pub at: Millis,
    /// The incident it was taken in, if any.
    pub incident: Option<IncidentId>,
    /// The target concerned.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub target: IpNet,
    /// What was decided, as a closed word: `open`, `announce`, `withdraw`, `refuse`, `end`, ...
    pub action: String,
    /// What exactly: the measure, or why nothing was done.
    pub detail: String,
    /// The measurement behind it, when there is one.
    pub reason: Option<Reason>,
}
