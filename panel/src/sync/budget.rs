//! The share of a panel's rate limit that weir takes.

use std::collections::VecDeque;

use weir_model::Millis;

use super::Reply;

/// Window of the panels' limits.
const WINDOW_MS: u64 = 60_000;
/// One request in so many of the limit: a quarter.
const SHARE: u32 = 4;
/// Limit of both panels when nothing is advertised: Pterodactyl's 240 is the lower.
const DEFAULT_LIMIT: u32 = 240;
/// An advertised limit beyond this is not believed.
const LIMIT_MAX: u32 = 6_000;

/// Requests of the last minute against a quarter of what the panel allows.
#[derive(Debug)]
pub(super) struct Budget {
    sent: VecDeque<Millis>,
    limit: u32,
    not_before: Millis,
}

impl Default for Budget {
    fn default() -> Self {
        Self { sent: VecDeque::new(), limit: DEFAULT_LIMIT, not_before: Millis(0) }
    }
}

impl Budget {
    /// Takes one request, or says from when on one is free.
    pub(super) fn spend(&mut self, now: Millis) -> Result<(), Millis> {
        if now < self.not_before {
            return Err(self.not_before);
        }
        while self.sent.front().is_some_and(|at| now.since(*at) >= WINDOW_MS) {
            self.sent.pop_front();
        }
        // A share below one a window would never finish; the panel's own 429 still holds.
        let share = usize::try_from((self.limit / SHARE).max(1)).unwrap_or(1);
        if self.sent.len() >= share {
            let oldest = self.sent[self.sent.len() - share];
            return Err(oldest + WINDOW_MS);
        }
        self.sent.push_back(now);
        Ok(())
    }

    /// Learns the limit. The limit is counted per user of the panel: when another program has used
    /// it up, weir waits a window instead of taking the last requests.
    pub(super) fn learn(&mut self, reply: &Reply, now: Millis) {
        if let Some(limit) = reply.rate_limit.filter(|l| *l > 0) {
            self.limit = limit.min(LIMIT_MAX);
        }
        if reply.status != 429 && reply.rate_remaining.is_some_and(|left| left < self.limit / 20) {
            self.rest_until(now + WINDOW_MS);
        }
    }

    /// Nothing is sent before this instant.
    pub(super) fn rest_until(&mut self, at: Millis) {
        self.not_before = self.not_before.max(at);
    }

    /// From when on requests may be sent again, as far as the panel asked to wait.
    pub(super) const fn not_before(&self) -> Millis {
        self.not_before
    }
}
