//! What a target answers so little of that it has no part in it.
//!
//! TCP is never one-sided: whoever takes data acknowledges it. Segments of many senders of which the
//! target acknowledges less than one in ten, or of a few of which it acknowledges less than one in
//! fifty, belong to no connection of its own: floods of ACKs, answers that middleboxes send to forged
//! requests, floods from a few machines with raw sockets.

use weir_model::Match;

use crate::evidence::answers::{Answers, ln_at_most, weight};
use crate::evidence::matching::hits;
use crate::evidence::signs::networks;
use crate::watch::packets::Packet;

/// Least segments back for each one in, where many send: stacks acknowledge every second to tenth.
const MANY: f64 = 0.1;
/// The same where a few send: fast transfers are acknowledged by large offloads.
const FEW: f64 = 0.02;
/// Networks of senders from which they are many.
const NETWORKS_MANY: usize = 30;
/// Largest probability of so few answers if there were a connection, as natural logarithm. A rule rests on
/// it, and an incident is looked at hundreds of times.
const ABSENT_LN: f64 = -7.0;
/// Share of what a target usually sends below which its answers may be missing from the export, and the
/// packets of it from which one can tell.
const USUAL_MIN: f64 = 0.3;
const USUAL_PACKETS: f64 = 10.0;

/// What a target usually sends, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usual {
    /// Packets a second.
    pub(crate) packets_per_sec: f64,
    /// Seconds that are looked at.
    pub(crate) secs: f64,
}

/// Whether what a match holds for, of all that came `recent`ly, are segments of no connection of the target's.
pub(crate) fn is_foreign(m: &Match, recent: &[Packet], answers: &Answers, usual: Usual) -> bool {
    // Where flags are not said, it may be a crowd that connects.
    let segment = |p: &Packet| p.protocol == 6 && p.flags_said && !p.is_syn();
    answers.speaks
        && recent.iter().filter(|p| hits(m, p)).all(segment)
        && is_ignored(m, recent, answers, usual)
}

/// Whether so little goes back for what a match holds for, of all that came `recent`ly, that it cannot be
/// wanted: the target may well answer others.
pub(crate) fn is_ignored(m: &Match, recent: &[Packet], answers: &Answers, usual: Usual) -> bool {
    let matched: Vec<&Packet> = recent.iter().filter(|p| hits(m, p)).collect();
    if matched.is_empty() || !answers.visible {
        return false;
    }
    // One of them that is answered is somebody's.
    if matched.iter().any(|p| answers.is_answered(p)) || !export_is_whole(answers, usual) {
        return false;
    }
    let since = recent.iter().map(|p| p.slot).min().unwrap_or(0);
    let back: Vec<&Packet> = answers.back_on(m).filter(|p| p.slot >= since).collect();
    let least = if networks(&matched) >= NETWORKS_MANY { MANY } else { FEW };
    #[expect(clippy::cast_precision_loss, reason = "bounded by the size of the sample")]
    let (came, went) = (matched.len() as f64, back.len() as f64);
    // What goes out anyway answers what came in anyway.
    let sent: f64 = back.iter().map(|p| weight(p)).sum();
    let anyway = usual.packets_per_sec * usual.secs * answers.usual_share(m);
    let grown = (1.0 - anyway / sent.max(1.0)).clamp(0.0, 1.0);
    let answered = went * grown + (went * (1.0 - grown)).sqrt();
    let expected = least * came;
    answered < expected && ln_at_most(answered, expected) < ABSENT_LN
}

/// Whether what the target usually sends is still seen: with the exporter of its way out gone, nothing is
/// answered.
fn export_is_whole(answers: &Answers, usual: Usual) -> bool {
    let expected = usual.packets_per_sec * usual.secs;
    let unit = answers.unit();
    expected < USUAL_PACKETS * unit || answers.weight_sent() >= USUAL_MIN * expected
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::packets::tests::{inbound, sample};
    use weir_model::{Direction, IpNet};

    fn rule() -> Match {
        Match { protocols: vec![6], ..Match::to("203.0.113.7/32".parse::<IpNet>().unwrap()) }
    }

    /// A segment from the `n`th of many networks, and one that goes back.
    fn segments(n: u32, length: u16) -> (Packet, Packet) {
        let mut s = sample(0x0a00_0000 + n * 256, 443, 6, 40_000, length);
        let packet = inbound(&s, 1);
        std::mem::swap(&mut s.record.src, &mut s.record.dst);
        std::mem::swap(&mut s.record.src_port, &mut s.record.dst_port);
        (packet, Packet::new(&s, 1, Direction::Outbound))
    }

    fn flood(n: u32) -> Vec<Packet> {
        (0..n).map(|i| segments(i, 900).0).collect()
    }

    /// Answers to networks that have nothing to do with the flood.
    fn elsewhere(n: u32) -> Vec<Packet> {
        (0..n).map(|i| segments(10_000 + i, 900).1).collect()
    }

    fn foreign(recent: &[Packet], sent: Vec<Packet>, usual: Usual) -> bool {
        is_foreign(&rule(), recent, &Answers::new(sent, Vec::new(), true), usual)
    }

    #[test]
    fn segments_that_nobody_acknowledges_belong_to_no_connection() {
        let usual = Usual::default();
        assert!(foreign(&flood(120), elsewhere(1), usual));
        // Too few to tell, or somebody acknowledges as many as a crowd's would be.
        assert!(!foreign(&flood(40), elsewhere(1), usual));
        assert!(!foreign(&flood(120), elsewhere(10), usual));
        // A target that was not seen to send anything may send another way.
        assert!(!foreign(&flood(120), Vec::new(), usual));
        let inbound_only = Answers::new(elsewhere(1), Vec::new(), false);
        assert!(!is_foreign(&rule(), &flood(120), &inbound_only, usual));
    }

    #[test]
    fn one_that_is_acknowledged_is_somebody_s() {
        let (packet, back) = segments(5, 900);
        let mut recent = flood(120);
        recent.push(packet);
        assert!(!foreign(&recent, vec![back], Usual::default()));
    }

    #[test]
    fn a_transfer_by_a_few_is_acknowledged_seldom() {
        let one = |n: u32| (0..n).map(|_| segments(7, 1400).0).collect::<Vec<_>>();
        assert!(!foreign(&one(200), elsewhere(1), Usual::default()));
        assert!(foreign(&one(900), elsewhere(1), Usual::default()));
    }

    #[test]
    fn nothing_is_concluded_where_what_goes_out_is_no_longer_exported() {
        // It usually sends a hundred records in ten seconds; of them one is left.
        let usual = Usual { packets_per_sec: 10_000.0, secs: 10.0 };
        assert!(!foreign(&flood(120), elsewhere(1), usual));
    }
}
