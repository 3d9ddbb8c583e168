//! Attackers, and a detector that speaks of them: truly, late, or with the bugs it could have.

use weir_model::{
    Candidate, Direction, Family, Goodput, IncidentId, Match, Measure, Metric, Millis, Phase,
    Range, Rate, Reason, Verdict,
};

use super::{Front, World, bits, net};

impl World {
    pub(super) fn attackers(&mut self) {
        let (second, rng) = (self.second, &mut self.rng);
        for front in &mut self.fronts {
            if second < front.until {
                continue;
            }
            front.until = second + 5 + rng.below(80);
            if front.mbps > 0.0 || rng.once_in(2) {
                front.mbps = 0.0;
                continue;
            }
            front.mbps = *rng.pick(&[60.0, 150.0, 700.0, 2500.0, 8000.0]);
            front.port = *rng.pick(&[53, 123, 389, 1900]);
            front.confidence = *rng.pick(&[30, 55, 75, 95]);
            front.separable = !rng.once_in(4);
            front.coverage = 0.2 + 0.8 * rng.share();
            front.collateral = *rng.pick(&[0.0, 0.001, 0.009, 0.03, 0.2]);
            front.harmful = rng.once_in(10);
        }
    }

    /// Whether a router that is up cuts this traffic.
    pub(super) fn is_cut(&self, front: &Front) -> bool {
        self.peers.iter().filter(|p| p.is_up()).any(|p| {
            p.rib.iter().any(|m| match m {
                Measure::FlowSpec(filter) => {
                    front.target.contains(&filter.packets.dst)
                        && filter.packets.src_ports.iter().any(|r| r.contains(front.port))
                }
                Measure::Blackhole(net) | Measure::Scrub(net) | Measure::Divert(net) => {
                    *net == front.target
                }
            })
        })
    }

    /// Opens, goes on and ends as the real one does, in a shorter time.
    pub(super) fn detector(&mut self) {
        for index in 0..self.fronts.len() {
            let front = self.fronts[index].clone();
            let cut = self.is_cut(&front);
            let vanishes = cut && !self.before_filter;
            let left = if vanishes { front.mbps * (1.0 - front.coverage) } else { front.mbps };
            let loud = left > 50.0;
            let front = &mut self.fronts[index];
            front.quiet = if loud { 0 } else { front.quiet + 1 };
            match front.incident {
                None if loud => {
                    let id = IncidentId::next(self.now, self.last_id);
                    self.last_id = Some(id);
                    front.incident = Some(id);
                    self.speak(index, id, Phase::Opened, left, cut);
                }
                Some(id) if front.quiet > 8 => {
                    front.incident = None;
                    self.speak(index, id, Phase::Ended, 0.0, cut);
                }
                Some(id) if !self.rng.once_in(20) => {
                    self.speak(index, id, Phase::Ongoing, left, cut);
                }
                _ => {}
            }
        }
    }

    pub(super) fn speak(
        &mut self,
        index: usize,
        id: IncidentId,
        phase: Phase,
        mbps: f64,
        cut: bool,
    ) {
        let front = self.fronts[index].clone();
        let mut verdict = verdict(&front, id, phase, mbps, self.now);
        let starves = cut && front.harmful && !self.before_filter;
        if starves {
            self.starved.insert((front.target, front.port));
        }
        verdict.legitimate = Some(Goodput {
            now: bits(if starves { 0.1 } else { 9.0 }),
            normal: bits(10.0),
            expected_samples: 50.0,
        });
        if self.faults.lies && self.rng.once_in(4) {
            self.lie(&mut verdict);
        }
        if phase != Phase::Ended {
            self.alive.insert(id, self.now);
        }
        self.mitigator.verdict(&verdict, self.now);
    }

    /// Bugs a detector could have: none may reach a router.
    pub(super) fn lie(&mut self, verdict: &mut Verdict) {
        let Some(candidate) = verdict.candidates.first_mut() else { return };
        match self.rng.below(7) {
            0 => candidate.packets.dst = net("0.0.0.0/0"),
            1 => candidate.packets.dst = net("203.0.113.1/32"),
            2 => candidate.packets.dst = net("192.0.2.0/24"),
            3 => candidate.collateral = f64::NAN,
            4 => candidate.coverage = f64::INFINITY,
            5 => candidate.packets.src_ports = vec![Range { from: 9, to: 1 }],
            _ => verdict.rate.bits_per_sec = f64::NAN,
        }
    }
}

fn verdict(front: &Front, id: IncidentId, phase: Phase, mbps: f64, at: Millis) -> Verdict {
    let mut packets = Match::to(front.target);
    packets.protocols = vec![17];
    packets.src_ports = vec![Range::exact(front.port)];
    let candidate = Candidate {
        packets,
        parts: Vec::new(),
        coverage: front.coverage,
        coverage_low: front.coverage * 0.9,
        collateral: front.collateral,
        collateral_high: front.collateral + 0.01,
        rate: bits(mbps * front.coverage),
        normal_bytes_per_sec: 50_000.0,
        hold: None,
    };
    Verdict {
        served: 0.0,
        incident: id,
        phase,
        at,
        target: front.target,
        direction: Direction::Inbound,
        family: Family::UdpFlood,
        vectors: Vec::new(),
        confidence: front.confidence,
        evidence_groups: 2,
        separable: front.separable,
        rate: bits(mbps),
        peak: bits(front.mbps),
        excess: bits(mbps * 0.98),
        discarded: Rate::default(),
        legitimate: None,
        sources: 100.0,
        reason: Reason {
            metric: Metric::BitsPerSec,
            value: mbps * 1e6,
            baseline: 1e7,
            multiplier: 3.0,
            threshold: 3e7,
            window_ms: 1000,
            samples: 100.0,
            sampling: 1000.0,
            exporters: vec!["edge1".into()],
            service: None,
            own: None,
        },
        candidates: vec![candidate],
        top_sources: Vec::new(),
        summary: "a flood".into(),
    }
}
