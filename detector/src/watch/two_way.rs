//! Whether exporters show both directions: learned, for many routers sample only what comes in, and
//! there the silence of a host says nothing.

/// Packets out for each one in from which a direction is exported at all: the thinnest wanted traffic
/// has one answer in fifty, and hosts differ.
const SHARE_MIN: f64 = 0.01;
/// Packets a second from which a host has a say.
const VOTE_MIN: f64 = 1.0;
/// Share of hosts that must be seen to send.
const VOTES_MIN: f64 = 0.5;

/// What is known of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TwoWay {
    /// Packets in and out since the start, halved once they are many: what there is to go by before
    /// baselines are known.
    inbound: u64,
    outbound: u64,
    /// Hosts that receive, and those of them that send, by their baselines: in this round, and in the
    /// one before. Baselines leave attacks out.
    votes: (u32, u32),
    last: (u32, u32),
}

impl TwoWay {
    /// A host's averages, packets a second in and out.
    pub(crate) fn vote(&mut self, inbound: f64, outbound: f64) {
        if inbound >= VOTE_MIN {
            self.votes.0 += 1;
            self.votes.1 += u32::from(outbound >= SHARE_MIN * inbound);
        }
    }

    /// A round of all hosts is over.
    pub(crate) fn count(&mut self) {
        self.last = std::mem::take(&mut self.votes);
    }

    /// Packets that a protected host sent.
    pub(crate) const fn sent(&mut self, packets: u32) {
        self.outbound = self.outbound.saturating_add(packets as u64);
    }

    /// Packets that came in within a slot.
    pub(crate) const fn tally(&mut self, packets: u64) {
        self.inbound = self.inbound.saturating_add(packets);
        if self.inbound > 1 << 32 {
            self.inbound /= 2;
            self.outbound /= 2;
        }
    }

    /// Whether what a host sends would be seen. `mean` are its averages in and out, where it is known
    /// well enough to have any.
    #[expect(clippy::cast_precision_loss, reason = "a comparison, not an account")]
    pub(crate) fn sees(&self, mean: Option<(f64, f64)>) -> bool {
        if let Some((inbound, outbound)) = mean.filter(|(inbound, _)| *inbound >= VOTE_MIN) {
            return outbound >= SHARE_MIN * inbound;
        }
        match self.last {
            (0, _) => self.outbound as f64 >= SHARE_MIN * self.inbound as f64,
            (all, sending) => f64::from(sending) >= VOTES_MIN * f64::from(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_receive_and_never_send_show_that_one_direction_is_missing() {
        let mut two_way = TwoWay::default();
        assert!(two_way.sees(None));
        two_way.tally(1_000_000);
        assert!(!two_way.sees(None));
        two_way.sent(20_000);
        assert!(two_way.sees(None));
        // Of one that is known, its own habit counts.
        assert!(!two_way.sees(Some((1000.0, 0.0))));
        for _ in 0..10 {
            two_way.vote(100.0, 0.0);
        }
        two_way.count();
        assert!(!two_way.sees(None));
        assert!(two_way.sees(Some((1000.0, 900.0))));
    }
}
