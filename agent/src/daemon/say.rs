//! What the daemon says: reports to the appliance, answers to the command line.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::local::{Ask, Status};
use super::{Daemon, EVENTS_PER_REPORT, now};
use crate::protocol::{Report, RuleReport, RuleState};

/// How long a test waits for its rule.
const TEST_WAIT: Duration = Duration::from_secs(10);

/// A test under way.
pub(super) struct Test {
    rule: String,
    since: Instant,
    reply: oneshot::Sender<Status>,
}

impl Test {
    /// Whether it has waited long enough.
    pub(super) fn is_over(&self) -> bool {
        self.since.elapsed() > TEST_WAIT
    }
}

impl Daemon {
    pub(super) fn rule_reports(&self) -> Vec<RuleReport> {
        let mut reports = Vec::new();
        let mut add = |id: &str, state, why: Option<String>| {
            let count = self.sight.rules.iter().find(|c| c.rule == id);
            reports.push(RuleReport {
                id: id.to_owned(),
                state,
                why,
                dropped: count.map(|c| c.dropped).unwrap_or_default(),
                passed: count.map(|c| c.passed).unwrap_or_default(),
            });
        };
        for id in &self.applied.rules {
            add(id, RuleState::Applied, None);
        }
        for refusal in &self.applied.refused {
            add(&refusal.rule, RuleState::Refused, Some(refusal.why.clone()));
        }
        for bad in &self.desired.bad {
            add(&bad.id, RuleState::Refused, Some(bad.why.clone()));
        }
        for rule in self.desired.waiting() {
            add(&rule.id, RuleState::Staged, Some("waits for weir-agent rules --apply".to_owned()));
        }
        for id in self.local().out {
            add(&id, RuleState::RolledBack, Some("the service stopped answering".to_owned()));
        }
        reports
    }

    pub(super) fn send_report(&mut self) {
        if !self.report_due || self.sending.is_some() || self.link.is_some() {
            return;
        }
        let events = self.ring.oldest(EVENTS_PER_REPORT);
        let count = events.len();
        let stamp = self.desired.stamp();
        let report = Report {
            node: self.identity.node.clone(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            at: now(),
            epoch: stamp.epoch,
            version: stamp.version,
            // Interfaces come and go; one that cannot be listed just now is not gone.
            addresses: crate::doctor::addresses().unwrap_or_default(),
            skew_ms: self.desired.skew(),
            not_taken: self.not_taken.clone(),
            apply_ms: std::mem::take(&mut self.apply_ms),
            level: self.levels.level().id().to_owned(),
            abilities: self.abilities.clone(),
            neighbours: self.neighbours.clone(),
            rules: self.rule_reports(),
            services: self.sight.service_stats(),
            containers: self.containers.stats(),
            stats: self.sight.stats,
            events,
            test: self.test_asked.take(),
        };
        if self.reports.try_send(Box::new(report)).is_ok() {
            self.sending = Some(count);
            self.report_due = false;
            self.reported = Instant::now();
        }
    }

    fn status(&mut self, answer: Option<String>) -> Status {
        let stamp = self.desired.stamp().clone();
        Status {
            node: self.identity.node.clone(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            appliance: self.identity.url.clone(),
            skew_ms: self.desired.skew(),
            not_taken: self.not_taken.clone(),
            link: self.link.clone(),
            version: (stamp.epoch, stamp.version),
            lease_secs: self.desired.lease_until().since(now()) / 1000,
            level: self.levels.level().id().to_owned(),
            abilities: self.abilities.clone(),
            missing: self.missing.clone(),
            paused: self.desired.paused,
            rules: self.rule_reports(),
            services: self.sight.service_stats(),
            learned: self.enforcer.as_mut().and_then(|e| e.learned().ok()).unwrap_or(0),
            stats: self.sight.stats,
            unsent: self.ring.oldest(usize::MAX).len(),
            answer,
        }
    }

    pub(super) fn asked(&mut self, ask: &Ask, reply: oneshot::Sender<Status>) {
        match ask {
            Ask::Status => (),
            Ask::Apply => {
                self.desired.approve();
                self.put_in_force(false);
                self.report_due = true;
            }
            Ask::Flush | Ask::Resume => {
                self.desired.paused = *ask == Ask::Flush;
                self.put_in_force(false);
                let word = if self.desired.paused { "flushed" } else { "resumed" };
                self.event("flush", format!("rules were {word} by this host's administrator"));
            }
            Ask::Leave => self.leave(),
            Ask::Test => {
                let rule = format!("test-{}", now().0);
                self.test_asked = Some(rule.clone());
                self.test = Some(Test { rule, since: Instant::now(), reply });
                self.report_due = true;
                self.send_report();
                return;
            }
        }
        // Who hung up gets no answer.
        let _ = reply.send(self.status(None));
        self.send_report();
    }

    /// Answers a test whose rule has arrived, or whose time is over.
    pub(super) fn finish_test(&mut self) {
        let Some(test) = self.test.take() else { return };
        let took = test.since.elapsed();
        let answer = if self.applied.rules.contains(&test.rule) {
            format!("the rule was in force after {} ms", took.as_millis())
        } else if test.is_over() {
            let link = self.link.as_deref().unwrap_or("connected");
            format!("no rule came within {} s (link: {link})", TEST_WAIT.as_secs())
        } else {
            self.test = Some(test);
            return;
        };
        let status = self.status(Some(answer));
        let _ = test.reply.send(status);
    }
}
