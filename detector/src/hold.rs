//! Whether a rule may be announced: only where what it matches is unanswered, or shows a positive sign of
//! attack. Size says nothing by itself.

use weir_model::{Hold, Match};

use crate::answers::{Account, Answers, Pairs, Standing};
use crate::evidence::Packet;
use crate::signs::{Sign, networks, sign};
use crate::synthesis::hits;

/// Networks up to which the senders are a few.
const FEW: usize = 3;
/// Networks from which tunnels are a flood rather than somebody's tunnels.
const TUNNELS: usize = 30;
/// Collision share with the senders of normal times from which it is the same population, and packets
/// of normal times from which one can tell.
const SAME: f64 = 0.3;
const NORMAL_MIN: usize = 40;

/// What is known of a target when rules for it are weighed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knowledge<'a> {
    pub(crate) answers: &'a Answers,
    /// Packets of the present.
    pub(crate) now: &'a [Packet],
    /// Packets of normal times.
    pub(crate) normal: &'a [(Packet, f64)],
    /// Nothing is known of it yet.
    pub(crate) learning: bool,
    /// It is one host.
    pub(crate) single: bool,
    /// Flow caches may still hold the other direction.
    pub(crate) settling: bool,
}

/// Why a rule must not be announced, or not yet; and whether what it matches shows a sign of attack by
/// itself, so that one look is enough.
pub(crate) fn hold(m: &Match, known: &Knowledge<'_>) -> (Option<Hold>, bool) {
    let matched: Vec<&Packet> = known.now.iter().filter(|p| hits(m, p)).collect();
    let networks = networks(&matched);
    let account = known.answers.of_match(known.now, m, networks <= FEW);
    if account.standing == Standing::Answered {
        return (Some(Hold::Answered), false);
    }
    let tunnel = |p: &&&Packet| !matches!(p.protocol, 6 | 17) && !p.is_icmp();
    if networks < TUNNELS && 2 * matched.iter().filter(tunnel).count() > matched.len() {
        return (Some(Hold::Tunnel), false);
    }
    let sign = sign(&matched, known.answers, known.single);
    if sign.is_none() && familiar(&matched, known.normal) {
        return (Some(Hold::Familiar), false);
    }
    let hold = match (sign, known) {
        (None, Knowledge { learning: true, .. }) => Some(Hold::Learning),
        (sign, known) if known.answers.visible => undecided(account, sign, known.settling),
        (None, _) => Some(Hold::OneWay),
        (Some(_), _) => None,
    };
    (hold, sign.is_some())
}

/// Whether it must still be seen that nobody is answered.
fn undecided(account: Account, sign: Option<Sign>, settling: bool) -> Option<Hold> {
    match (account.standing, sign) {
        // Of reflections the sign says itself that nobody asked.
        (_, Some(Sign::Malformed | Sign::ForgedTtl | Sign::Unasked | Sign::Reflection)) => None,
        // A forged query may be answered; but whoever received the answer would go on.
        (_, Some(Sign::Forged)) if account.strangers => None,
        // Nothing asked for it, and nothing takes it.
        (_, Some(sign)) if account.silent && sign != Sign::Forged => None,
        (Standing::Unanswered, Some(_)) => None,
        (Standing::Unanswered, None) if !settling => None,
        _ => Some(Hold::Undecided),
    }
}

/// Whether those who send are the population of normal times.
fn familiar(matched: &[&Packet], normal: &[(Packet, f64)]) -> bool {
    if normal.len() < NORMAL_MIN {
        return false;
    }
    let normal: Vec<&Packet> = normal.iter().map(|(p, _)| p).collect();
    Pairs::count(matched, &normal).collisions().is_some_and(|a| a >= SAME)
}
