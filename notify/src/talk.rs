//! Conversations: one for an incident, or for all that begin together, from the first message to the last.
//!
//! A conversation names what its channel should know; a letter is queued when that is something else than what
//! it was last told. What a letter says is put together when it goes out, so that a channel that was away is
//! told how it stands, and not everything it missed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weir_model::{DeliveryId, IncidentId, Millis};

use crate::brief::{Brief, Briefs, Severity};
use crate::config::Channel;
use crate::service::Stage;

/// A first message waits so long for what is decided at once, and for more attacks of the same wave.
const GATHER_MS: u64 = 2000;

/// Incidents of one conversation that are told apart; of more there is only the number.
const MEMBERS_MAX: usize = 500;

/// Open conversations of one channel; beyond this new incidents join the newest.
pub(crate) const OPEN_MAX: usize = 200;

/// What a channel was last told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    stage: Stage,
    at: Millis,
    severity: Severity,
    incidents: u64,
    /// Of everything people would call news.
    digest: u64,
}

/// One conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Talk {
    /// Its channel.
    pub(crate) channel: String,
    /// The incident that began it.
    pub(crate) id: IncidentId,
    opened: Millis,
    members: BTreeSet<IncidentId>,
    more: u64,
    said: Option<Said>,
    saying: Option<Said>,
    /// Calls made.
    pub(crate) sequence: u32,
    /// What the service's answers gave to remember.
    pub(crate) refs: BTreeMap<String, String>,
    /// The letter that is to say what is new.
    pub(crate) letter: Option<DeliveryId>,
}

impl Talk {
    pub(crate) fn new(channel: &str, id: IncidentId, now: Millis) -> Self {
        Self {
            channel: channel.to_owned(),
            id,
            opened: now,
            members: BTreeSet::from([id]),
            more: 0,
            said: None,
            saying: None,
            sequence: 0,
            refs: BTreeMap::new(),
            letter: None,
        }
    }

    /// Identifies it on both sides.
    pub(crate) fn key(&self, node: &str) -> String {
        format!("{node}/{}", self.id)
    }

    pub(crate) fn has(&self, id: IncidentId) -> bool {
        self.members.contains(&id)
    }

    pub(crate) const fn members(&self) -> &BTreeSet<IncidentId> {
        &self.members
    }

    pub(crate) const fn more(&self) -> u64 {
        self.more
    }

    /// Whether an incident that begins now belongs to the same wave.
    pub(crate) fn takes(&self, group_ms: u64, now: Millis) -> bool {
        let over = self.said.as_ref().is_some_and(|said| said.stage == Stage::Resolve);
        !over && now.since(self.opened) < group_ms
    }

    pub(crate) fn join(&mut self, id: IncidentId) {
        if self.members.len() < MEMBERS_MAX {
            self.members.insert(id);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Members as they are known, gravest first, then largest.
    pub(crate) fn briefs<'a>(&self, briefs: &'a Briefs) -> Vec<(IncidentId, &'a Brief)> {
        let mut found: Vec<_> =
            self.members.iter().filter_map(|id| Some((*id, briefs.get(id)?))).collect();
        found.sort_by(|a, b| {
            let grave = |brief: &Brief| (brief.closed.is_none(), brief.severity);
            grave(b.1).cmp(&grave(a.1)).then(b.1.peak.1.total_cmp(&a.1.peak.1))
        });
        found
    }

    fn now_is(&self, briefs: &Briefs, stage: Stage, now: Millis) -> Said {
        use std::hash::{Hash as _, Hasher as _};
        // Its digest is compared with others of this process and of the last; a change of the hash between
        // versions costs one message.
        let mut digest = std::hash::DefaultHasher::new();
        let found = self.briefs(briefs);
        if let [(_, one)] = found[..] {
            one.news().hash(&mut digest);
        } else {
            // In a wave the number of those that go on counts, not each of them.
            let open = found.iter().filter(|(_, b)| b.closed.is_none()).count();
            (open.next_power_of_two(), found.len().next_power_of_two()).hash(&mut digest);
        }
        Said {
            stage,
            at: now,
            severity: found.iter().map(|(_, b)| b.severity).max().unwrap_or_default(),
            incidents: found.len() as u64 + self.more,
            digest: digest.finish(),
        }
    }

    /// What is to be told now, if anything; else when to look again.
    pub(crate) fn wants(
        &self,
        channel: &Channel,
        briefs: &Briefs,
        now: Millis,
    ) -> Result<Stage, Option<Millis>> {
        if self.letter.is_some() {
            return Err(None);
        }
        let over = self.members.iter().all(|id| briefs.get(id).is_none_or(|b| b.closed.is_some()));
        let Some(said) = &self.said else {
            let ready = self.opened + GATHER_MS;
            return if now >= ready { Ok(Stage::Open) } else { Err(Some(ready)) };
        };
        if said.stage == Stage::Resolve {
            return Err(None);
        }
        if over {
            return Ok(Stage::Resolve);
        }
        let again = channel.service.repeat_ms.map(|ms| said.at + ms);
        if again.is_some_and(|again| now >= again) {
            return Ok(Stage::Update);
        }
        let is = self.now_is(briefs, Stage::Update, now);
        let worse = is.severity > said.severity || is.incidents >= said.incidents.saturating_mul(4);
        let news = if channel.service.worse_only() {
            worse
        } else {
            is.digest != said.digest || is.severity != said.severity
        };
        if !news || !channel.service.has(Stage::Update) {
            return Err(again);
        }
        let ready = said.at + channel.config.update_secs * 1000;
        if now >= ready { Ok(Stage::Update) } else { Err(Some(ready)) }
    }

    /// A letter goes out that tells this.
    pub(crate) fn saying(&mut self, stage: Stage, briefs: &Briefs, now: Millis) {
        self.saying = Some(self.now_is(briefs, stage, now));
        self.sequence = self.sequence.saturating_add(1);
    }

    /// The letter was taken, or given up: either way it is not told again by itself.
    pub(crate) fn said(&mut self, stage: Stage, briefs: &Briefs, now: Millis) {
        self.letter = None;
        let saying = self.saying.take().filter(|saying| saying.stage == stage);
        self.said = Some(saying.unwrap_or_else(|| self.now_is(briefs, stage, now)));
    }

    /// Its message is gone at the service: it begins anew.
    pub(crate) fn forget(&mut self) {
        self.letter = None;
        self.said = None;
        self.saying = None;
        self.refs.clear();
    }

    /// Whether everything has been told.
    pub(crate) fn is_over(&self) -> bool {
        let resolved = self.said.as_ref().is_some_and(|said| said.stage == Stage::Resolve);
        resolved && self.letter.is_none()
    }

    /// A channel that does not want to hear of a stage counts as told.
    pub(crate) fn pass_over(&mut self, stage: Stage, briefs: &Briefs, now: Millis) {
        self.said = Some(self.now_is(briefs, stage, now));
    }
}
