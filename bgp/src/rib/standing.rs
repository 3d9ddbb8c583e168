//! What was concluded about the peer: shown, kept over a restart, and lifted by order.

use weir_model::{Measure, Millis};

use super::limit::{Limit, Limits};
use super::trial::Sentence;
use super::{AdjRibOut, Refusal, RouteKey};

/// What was concluded of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// What it puts in force; the last form of it that was wanted.
    pub measure: Measure,
    /// Why, since when, until when.
    pub sentence: Sentence,
}

/// What was concluded about a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Routes tried apart or held back.
    pub suspected: Vec<Doubt>,
    /// Routes not sent.
    pub banned: Vec<Doubt>,
    /// Limits that it stated or showed.
    pub limits: Vec<Limit>,
}
impl AdjRibOut {
    pub(super) fn why_banned(&self, key: &RouteKey) -> String {
        let ban = self.trials.banned().find(|(banned, _)| *banned == key);
        ban.map_or_else(String::new, |(_, sentence)| format!("not sent for now: {}", sentence.why))
    }

    pub(super) fn sentenced(&mut self, key: &RouteKey) -> Vec<Refusal> {
        let why = self.why_banned(key);
        let measures = self.wanted.get(key).cloned().unwrap_or_default();
        if let Some(measure) = measures.first() {
            self.doubted.insert(key.clone(), measure.clone());
        }
        self.crowded = true;
        measures.into_iter().map(|measure| Refusal { measure, why: why.clone() }).collect()
    }

    /// What was concluded about the peer.
    pub fn standing(&self) -> Standing {
        let measure = |key: &RouteKey| {
            let wanted = self.wanted.get(key).and_then(|list| list.first());
            wanted.or_else(|| self.doubted.get(key)).cloned()
        };
        let doubt =
            |key: &RouteKey, sentence: Sentence| Some(Doubt { measure: measure(key)?, sentence });
        Standing {
            suspected: self.trials.suspected().filter_map(|(k, s)| doubt(k, s)).collect(),
            banned: self.trials.banned().filter_map(|(k, s)| doubt(k, s.clone())).collect(),
            limits: self.limits.in_force().collect(),
        }
    }

    /// Takes back what an earlier run had concluded, and what the peer is known to have taken.
    pub fn restore(&mut self, now: Millis, standing: Standing, proven: &[Measure]) {
        for measure in proven {
            if let Ok(Some(key)) = RouteKey::of(measure) {
                self.trials.remember(now, key, measure);
            }
        }
        for Doubt { measure, sentence } in standing.banned {
            if let Ok(Some(key)) = RouteKey::of(&measure) {
                self.doubted.insert(key.clone(), measure);
                self.trials.restore_ban(key, sentence);
            }
        }
        for Doubt { measure, sentence } in standing.suspected {
            if let Ok(Some(key)) = RouteKey::of(&measure) {
                self.doubted.insert(key.clone(), measure);
                self.trials.restore_suspicion(key, sentence.since);
            }
        }
        for limit in standing.limits {
            self.limits.restore(limit.family, limit.routes, limit.said, limit.since);
        }
        self.crowded = true;
    }

    /// An operator wants a route sent again, whatever was concluded; all routes and limits where
    /// none is named. Says whether anything was.
    pub fn lift(&mut self, measure: Option<&Measure>) -> bool {
        let lifted = match measure {
            Some(measure) => {
                RouteKey::of(measure).ok().flatten().is_some_and(|key| self.trials.lift(&key))
            }
            None => {
                let doubts = self.trials.banned().map(|(key, _)| key.clone());
                let doubts: Vec<RouteKey> =
                    doubts.chain(self.trials.suspected().map(|(key, _)| key.clone())).collect();
                let limited = self.limits.in_force().next().is_some();
                self.limits = Limits::new();
                doubts.iter().filter(|key| self.trials.lift(key)).count() > 0 || limited
            }
        };
        self.crowded = true;
        self.version += 1;
        self.make_room();
        self.compare_all();
        lifted
    }

    /// What is wanted and not on the wire, and why not; nothing when it is only on its way.
    pub fn kept_back(&self) -> impl Iterator<Item = (&Measure, String)> {
        self.measures.iter().filter_map(|(measure, wanted)| {
            if let Some(why) = &wanted.unsupported {
                return Some((measure, why.clone()));
            }
            let key = wanted.key.as_ref()?;
            let family = key.family();
            let why = if self.session.is_some_and(|s| !s.contains(family)) {
                format!("the peer does not speak {family}")
            } else if self.trials.is_banned(key) {
                self.why_banned(key)
            } else {
                self.left_out.get(key)?.clone()
            };
            Some((measure, why))
        })
    }
}
