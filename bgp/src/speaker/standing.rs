//! What was concluded about a peer, between the task's clock and everybody's.

use weir_model::{Measure, Millis, PeerLimit, PeerStanding, RouteDoubt};

use crate::rib::{Doubt, Limit, RouteKey, Sentence, Standing};
use crate::wire::Family;

/// Where the clocks of tasks begin: what was concluded days before a start has its time there.
pub(super) const EPOCH: Millis = Millis(7 * 24 * 3_600_000);

/// Longest time that anything is held against a route, milliseconds: a clock that was set back
/// does not make it longer.
const LONGEST_MS: u64 = 24 * 3_600_000;

/// What an earlier run had found out about a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerMemory {
    /// What was concluded.
    pub standing: PeerStanding,
    /// Measures that it had on the wire.
    pub proven: Vec<Measure>,
}

/// Both clocks at one instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    pub(super) now: Millis,
    pub(super) wall: Millis,
}

impl Clocks {
    fn tell_time(self, at: Millis) -> Millis {
        if at >= self.now { self.wall + at.since(self.now) } else { self.wall - self.now.since(at) }
    }

    fn recall_time(self, at: Millis) -> Millis {
        let at = at.min(self.wall + LONGEST_MS);
        if at >= self.wall {
            self.now + at.since(self.wall)
        } else {
            self.now - self.wall.since(at)
        }
    }

    /// As everybody reads it.
    pub(super) fn tell(self, standing: Standing) -> PeerStanding {
        let doubts = |list: Vec<Doubt>| list.into_iter().map(|d| self.doubt(d)).collect();
        PeerStanding {
            suspected: doubts(standing.suspected),
            banned: doubts(standing.banned),
            limits: standing
                .limits
                .iter()
                .map(|limit| PeerLimit {
                    family: limit.family.id().to_owned(),
                    routes: u32::try_from(limit.routes).unwrap_or(u32::MAX),
                    said: limit.said,
                    since: self.tell_time(limit.since),
                    until: self.tell_time(limit.until),
                })
                .collect(),
        }
    }

    fn doubt(self, Doubt { measure, sentence }: Doubt) -> RouteDoubt {
        RouteDoubt {
            id: route_id(&measure),
            measure,
            why: sentence.why,
            since: self.tell_time(sentence.since),
            until: self.tell_time(sentence.until),
            offences: sentence.offences,
        }
    }

    /// As the table reads it.
    pub(super) fn recall(self, standing: &PeerStanding) -> Standing {
        let doubts = |list: &[RouteDoubt]| {
            list.iter()
                .map(|doubt| Doubt {
                    measure: doubt.measure.clone(),
                    sentence: Sentence {
                        why: doubt.why.clone(),
                        since: self.recall_time(doubt.since),
                        until: self.recall_time(doubt.until),
                        offences: doubt.offences,
                    },
                })
                .collect()
        };
        let limit = |limit: &PeerLimit| {
            Some(Limit {
                family: Family::named(&limit.family)?,
                routes: usize::try_from(limit.routes).ok()?,
                said: limit.said,
                since: self.recall_time(limit.since),
                until: self.recall_time(limit.until),
            })
        };
        Standing {
            suspected: doubts(&standing.suspected),
            banned: doubts(&standing.banned),
            limits: standing.limits.iter().filter_map(limit).collect(),
        }
    }
}

/// By what a route is named in commands: eight hexadecimal digits (FNV-1a of what is matched).
pub(super) fn route_id(measure: &Measure) -> String {
    let octets = match RouteKey::of(measure) {
        Ok(Some(RouteKey::Unicast(net))) => net.to_string().into_bytes(),
        Ok(Some(RouteKey::Flow(_, nlri))) => nlri,
        _ => measure.to_string().into_bytes(),
    };
    let number = octets
        .iter()
        .fold(0x811c_9dc5_u32, |hash, o| (hash ^ u32::from(*o)).wrapping_mul(0x0100_0193));
    format!("{number:08x}")
}
