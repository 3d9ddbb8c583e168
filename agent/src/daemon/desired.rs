//! From documents to the program in force: what was asked for, less what this node keeps back.

use weir_model::{IpNet, Millis};

use crate::enforcer::{Blocked, Program};
use crate::levels::Level;
use crate::protocol::{BadRule, Body, Envelope, Refused, Snapshot, Stamp, Verifier, read_rules};
use crate::rules::{NodeAction, Rule};

/// How far the clocks may be apart before the appliance's times are shifted to this host's, milliseconds.
const SKEW_MAX: i64 = 5000;

/// What came of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// New content.
    New,
    /// The same content for longer.
    Renewed,
}

/// What this host adds and keeps back.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    pub(super) management: Vec<IpNet>,
    pub(super) learn: bool,
    /// Conntrack is in use.
    pub(super) tracked: bool,
    pub(super) level: Level,
    /// Rules that were taken out here.
    pub(super) out: Vec<String>,
}

/// What was asked for.
#[derive(Debug)]
pub(super) struct Desired {
    verifier: Verifier,
    snapshot: Snapshot,
    rules: Vec<Rule>,
    pub(super) bad: Vec<BadRule>,
    /// This host's clock minus the appliance's, milliseconds; 0 when they agree.
    skew: i64,
    /// Rules wait for the administrator; holds what was approved.
    staged: Option<Vec<Rule>>,
    /// The administrator has flushed: nothing is in force until told otherwise.
    pub(super) paused: bool,
}

impl Desired {
    pub(super) fn new(verifier: Verifier, staged: bool) -> Self {
        Self {
            verifier,
            snapshot: Snapshot::default(),
            rules: Vec::new(),
            bad: Vec::new(),
            skew: 0,
            staged: staged.then(Vec::new),
            paused: false,
        }
    }

    /// Takes a document that has just come. `steady` is a clock that nobody sets.
    pub(super) fn take(
        &mut self,
        envelope: &Envelope,
        now: Millis,
        steady: Millis,
    ) -> Result<Taken, Refused> {
        let before = self.verifier.version();
        let body = self.verifier.take(envelope, steady)?;
        Ok(self.follow(before, body, now))
    }

    /// Takes a document that was kept since `received`, on this host's clock.
    pub(super) fn take_kept(
        &mut self,
        envelope: &Envelope,
        received: Millis,
        now: Millis,
    ) -> Result<Taken, Refused> {
        let before = self.verifier.version();
        let body = self.verifier.take_kept(envelope, received, now)?;
        Ok(self.follow(before, body, received))
    }

    /// This host's clock minus the appliance's, milliseconds; 0 when they agree.
    pub(super) const fn skew(&self) -> i64 {
        self.skew
    }

    /// `came` is when it came from the appliance, on this host's clock.
    fn follow(&mut self, before: Option<(u64, u64)>, body: Body, came: Millis) -> Taken {
        let skew = i64::try_from(came.0).unwrap_or(0)
            - i64::try_from(body.stamp().issued_at.0).unwrap_or(0);
        let skew = if skew.abs() > SKEW_MAX { skew } else { 0 };
        let moved = (skew - self.skew).abs() > SKEW_MAX;
        self.skew = skew;
        match body {
            Body::Lease(lease) => {
                self.snapshot.stamp = lease.stamp;
                if moved { Taken::New } else { Taken::Renewed }
            }
            Body::Snapshot(snapshot) => {
                // A restored appliance may count up to a number that was another content's.
                let same =
                    before == self.verifier.version() && same_content(&self.snapshot, &snapshot);
                (self.rules, self.bad) = read_rules(&snapshot.rules);
                self.snapshot = snapshot;
                if same && !moved { Taken::Renewed } else { Taken::New }
            }
        }
    }

    pub(super) const fn stamp(&self) -> &Stamp {
        &self.snapshot.stamp
    }

    pub(super) const fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub(super) fn etag(&self) -> String {
        format!("\"{}.{}\"", self.snapshot.stamp.epoch, self.snapshot.stamp.version)
    }

    /// Names of all rules that were asked for.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|r| r.id.as_str())
    }

    /// Rules that wait for the administrator.
    pub(super) fn waiting(&self) -> Vec<&Rule> {
        let Some(approved) = &self.staged else { return Vec::new() };
        self.rules.iter().filter(|r| !approved.iter().any(|a| same(a, r))).collect()
    }

    /// The administrator agrees with all that waits.
    pub(super) fn approve(&mut self) {
        if self.staged.is_some() {
            self.staged = Some(self.rules.clone());
        }
    }

    /// The end of the lease on this host's clock.
    pub(super) fn lease_until(&self) -> Millis {
        self.here(self.snapshot.stamp.not_after)
    }

    fn here(&self, there: Millis) -> Millis {
        Millis(there.0.saturating_add_signed(self.skew))
    }

    /// What is to be in force now.
    pub(super) fn program(&self, local: &Local, now: Millis) -> Program {
        let lease_until = self.lease_until();
        let leased = lease_until > now && !self.paused;
        let waiting: Vec<&str> = self.waiting().iter().map(|r| r.id.as_str()).collect();
        let wanted = |r: &&Rule| {
            let holds = match r.expires {
                Some(expires) => leased && self.here(expires) > now,
                None => !self.paused,
            };
            holds && !waiting.contains(&r.id.as_str()) && !local.out.contains(&r.id)
        };
        let mut rules: Vec<Rule> = self.rules.iter().filter(wanted).cloned().collect();
        for rule in &mut rules {
            rule.expires = rule.expires.map(|e| self.here(e));
            // A pressed node serves those it knows first.
            rule.spare_learned |= local.level >= Level::Constrained && is_limit(rule.action);
        }
        // Each has its own end in the kernel, so they need no lease.
        let blocked = self.snapshot.blocked.iter().filter(|_| !self.paused);
        Program {
            version: (self.snapshot.stamp.epoch, self.snapshot.stamp.version),
            rules,
            lease_until,
            management: [&local.management[..], &self.snapshot.allow].concat(),
            services: self.snapshot.services.clone(),
            blocked: blocked
                .map(|b| Blocked { source: b.source, until: self.here(b.until) })
                .collect(),
            translated: local.tracked,
            // Whoever knows them completes the program.
            containers: Vec::new(),
            learn: local.learn,
        }
    }
}

/// Whether two snapshots ask for the same.
fn same_content(a: &Snapshot, b: &Snapshot) -> bool {
    let rules = |s: &Snapshot| s.rules.iter().map(|r| r.get().to_owned()).collect::<Vec<_>>();
    a.stamp.version != 0
        && rules(a) == rules(b)
        && a.allow == b.allow
        && a.services == b.services
        && a.blocked == b.blocked
        && (a.sampling, a.incident) == (b.sampling, b.incident)
        && a.targets == b.targets
}

/// Whether the administrator has agreed with this already: a longer life is no new rule.
fn same(a: &Rule, b: &Rule) -> bool {
    let undated = |r: &Rule| Rule { expires: None, ..r.clone() };
    undated(a) == undated(b)
}

const fn is_limit(action: NodeAction) -> bool {
    matches!(
        action,
        NodeAction::RateBytes { .. }
            | NodeAction::RatePackets { .. }
            | NodeAction::PerSource { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{Common, Controller, LEASE_MS, Situation, State, Ticket};
    use crate::protocol::Join;
    use weir_model::{
        Action, Filter, IncidentId, Match, Measure, Mitigation, MitigationId, MitigationState,
        Originator, Rung,
    };

    const NOW: Millis = Millis(1_795_000_000_000);

    fn world(staged: bool) -> (Controller, Desired) {
        let mut controller = Controller::new(State::default(), NOW).unwrap();
        controller.add_token("t", Ticket::until(NOW + 1), NOW);
        let join = Join {
            token: "t".into(),
            name: "n".into(),
            agent: String::new(),
            addresses: vec!["203.0.113.7".parse().unwrap()],
            replace: false,
        };
        controller.join(&join, "b", NOW).unwrap();
        let mut desired = desired_of(&mut controller);
        desired.staged = staged.then(Vec::new);
        (controller, desired)
    }

    /// An agent that has taken nothing yet.
    fn desired_of(controller: &mut Controller) -> Desired {
        let verifier = Verifier::new(&controller.public_key(), "n", None).unwrap();
        Desired::new(verifier, false)
    }

    fn want(controller: &mut Controller, expires: Millis) {
        let packets = Match::to("203.0.113.7/32".parse().unwrap());
        let action = Action::RateLimitPackets { packets_per_sec: 5 };
        let mitigation = Mitigation {
            id: MitigationId(1),
            originator: Originator::Incident(IncidentId(1)),
            measure: Measure::FlowSpec(Filter { packets, action }),
            rung: Rung::RateLimit,
            state: MitigationState::Active,
            since: NOW,
            expires,
            ended: None,
            peers: Vec::new(),
            note: String::new(),
            worth: 0,
        };
        let common = Common::default();
        let situation = Situation {
            mitigations: &[mitigation],
            incidents: &[],
            services: &[],
            common: &common,
            alone: true,
            restrained: &[],
        };
        controller.desire(&situation, NOW);
    }

    #[test]
    fn rules_end_with_their_time_or_with_the_lease() {
        let (mut controller, mut desired) = world(false);
        want(&mut controller, NOW + 60_000);
        let envelope = controller.snapshot("n", NOW).unwrap();
        assert_eq!(desired.take(&envelope, NOW, NOW), Ok(Taken::New));
        let rules = |d: &Desired, after| d.program(&Local::default(), NOW + after).rules.len();
        assert_eq!((rules(&desired, 59_999), rules(&desired, 60_000)), (1, 0));
        want(&mut controller, NOW + 600_000);
        desired.take(&controller.snapshot("n", NOW).unwrap(), NOW, NOW).unwrap();
        assert_eq!((rules(&desired, LEASE_MS - 1), rules(&desired, LEASE_MS)), (1, 0));
        let later = NOW + 20_000;
        let lease = controller.lease("n", later).unwrap();
        assert_eq!(desired.take(&lease, later, later), Ok(Taken::Renewed));
        assert_eq!(rules(&desired, LEASE_MS), 1);
        desired.paused = true;
        assert_eq!(rules(&desired, 0), 0);
    }

    #[test]
    fn other_content_under_the_same_number_is_new() {
        let (mut controller, mut desired) = world(false);
        let old = controller.state().clone();
        want(&mut controller, NOW + 60_000);
        let taken = desired.take(&controller.snapshot("n", NOW).unwrap(), NOW, NOW);
        assert_eq!(taken, Ok(Taken::New));
        let again = controller.snapshot("n", NOW + 1).unwrap();
        assert_eq!(desired.take(&again, NOW + 1, NOW + 1), Ok(Taken::Renewed));
        let mut restored = Controller::new(old, NOW).unwrap();
        want(&mut restored, NOW + 90_000);
        let other = restored.snapshot("n", NOW + 2).unwrap();
        assert_eq!(desired.take(&other, NOW + 2, NOW + 2), Ok(Taken::New));
    }

    #[test]
    fn staged_rules_wait_and_a_longer_life_does_not() {
        let (mut controller, mut desired) = world(true);
        want(&mut controller, NOW + 60_000);
        desired.take(&controller.snapshot("n", NOW).unwrap(), NOW, NOW).unwrap();
        assert_eq!(desired.waiting().len(), 1);
        assert_eq!(desired.program(&Local::default(), NOW).rules, []);
        desired.approve();
        assert_eq!(desired.program(&Local::default(), NOW).rules.len(), 1);
        want(&mut controller, NOW + 90_000);
        desired.take(&controller.snapshot("n", NOW).unwrap(), NOW, NOW).unwrap();
        assert_eq!(desired.waiting().len(), 0);
    }

    #[test]
    fn a_clock_that_is_wrong_changes_no_rules_length() {
        let (mut controller, _) = world(false);
        want(&mut controller, NOW + 60_000);
        for here in [NOW - 50_000, NOW - 90_000, NOW + 150_000, Millis(1_000_000)] {
            let mut desired = desired_of(&mut controller);
            let envelope = controller.snapshot("n", NOW).unwrap();
            desired.take(&envelope, here, Millis(7)).unwrap();
            let program = desired.program(&Local::default(), here);
            assert_eq!(program.rules[0].expires, Some(here + 60_000), "{here:?}");
            assert_eq!(program.lease_until, here + LEASE_MS, "{here:?}");
            assert!(program.rules.len() == 1 && desired.skew() != 0);
        }
    }

    #[test]
    fn a_kept_snapshot_is_no_younger_for_having_been_kept() {
        let (mut controller, _) = world(false);
        want(&mut controller, NOW + 600_000);
        let envelope = controller.snapshot("n", NOW).unwrap();
        let mut desired = desired_of(&mut controller);
        // Received 90 s ahead of the appliance's clock, read again 100 s later.
        let received = NOW + 90_000;
        desired.take_kept(&envelope, received, received + 100_000).unwrap();
        assert_eq!(desired.lease_until(), received + LEASE_MS, "20 s are left, not 120");
    }

    #[test]
    fn a_pressed_node_serves_those_it_knows() {
        let (mut controller, mut desired) = world(false);
        want(&mut controller, NOW + 60_000);
        desired.take(&controller.snapshot("n", NOW).unwrap(), NOW, NOW).unwrap();
        let local = Local { out: vec!["m1".into()], ..Local::default() };
        assert_eq!(desired.program(&local, NOW).rules, [], "taken out here");
        let local = Local { level: Level::Constrained, ..Local::default() };
        assert!(desired.program(&local, NOW).rules[0].spare_learned);
    }
}
