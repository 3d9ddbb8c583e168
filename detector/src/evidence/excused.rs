//! What allow lists excuse: packets of those who stand on a list, as far as the target answers just them.
//!
//! An attacker forges a proxy's addresses, so that the list by itself says nothing of a packet. While what goes
//! back to a list is in a fair proportion to what comes in of it, whoever of it is answered is excused. Beside a
//! flood in its name, only the very conversations are of which both ways are seen, and those in proportion. An
//! opening SYN is not answered yet.

use std::borrow::Cow;
use std::collections::BTreeMap;

use weir_model::{AllowList, AllowLists, AllowName, Direction, FarEnd, Fragment};

use crate::evidence::answers::{Answers, Port, is_answer, weight};
use crate::watch::hash::FastMap;
use crate::watch::packets::Packet;

/// Packets that come in for each one that goes back, up to which a conversation is answered: a transfer has an
/// acknowledgement for every other packet, or for some more where segments are put together.
const IN_FOR_OUT_MAX: f64 = 8.0;
/// The same of a whole list, most of which is requests and what they fetch.
const IN_FOR_OUT_LIST_MAX: f64 = 4.0;

/// Far address, protected address (last 32 bits), protocol, port of the protected and of the far end.
type Conversation = (u128, u32, u8, Option<(u16, u16)>);

/// Far address, protected address (last 32 bits), protocol, and the port that both ways share.
type Acquaintance = (u128, u32, u8, Port);

/// Packets in and out.
type Flow = (f64, f64);

fn conversation(p: &Packet) -> Conversation {
    (p.src, p.local, p.protocol, far_end(p).ports)
}

fn acquaintances(p: &Packet) -> [Acquaintance; 2] {
    let ports = match far_end(p).ports {
        Some((own, remote)) => [Port::Local(own), Port::Remote(remote)],
        None => [Port::Any; 2],
    };
    ports.map(|port| (p.src, p.local, p.protocol, port))
}

/// The far end of a packet.
pub(crate) fn far_end(p: &Packet) -> FarEnd {
    let headless = p.fragment == Fragment::Later || !matches!(p.protocol, 6 | 17);
    let ports = (!headless).then(|| (p.local_port(), p.remote_port()));
    FarEnd { address: p.src, protocol: p.protocol, ports }
}

fn in_proportion((inbound, outbound): Flow, most: f64) -> bool {
    outbound > 0.0 && inbound <= most * outbound
}

/// Who on allow lists is answered, of one target.
#[derive(Debug, Default)]
pub(crate) struct Excused<'a> {
    lists: Option<&'a AllowLists>,
    /// Of the present by conversation and by list.
    now: FastMap<Conversation, Flow>,
    whole: BTreeMap<AllowName, Flow>,
    /// Whom the target usually answers.
    usual: FastMap<Acquaintance, ()>,
    visible: bool,
}

impl<'a> Excused<'a> {
    /// Of packets of the present in one direction, and what went the other way. Costs nothing where there is
    /// no list.
    pub(crate) fn new(lists: &'a AllowLists, inbound: &[Packet], answers: &Answers) -> Self {
        if lists.is_empty() {
            return Self::default();
        }
        let mut own = Self { lists: Some(lists), visible: answers.visible, ..Self::default() };
        for (p, outbound) in
            inbound.iter().map(|p| (p, 0.0)).chain(answers.sent().iter().map(|p| (p, 1.0)))
        {
            let Some(list) = lists.of(&far_end(p), |_| true) else { continue };
            let add = |flow: &mut Flow| {
                flow.0 += weight(p) * (1.0 - outbound);
                flow.1 += weight(p) * outbound;
            };
            add(own.now.entry(conversation(p)).or_default());
            add(own.whole.entry(list.name).or_default());
        }
        let usual = answers.usual().iter().filter(|p| is_answer(p));
        own.usual = usual.flat_map(acquaintances).map(|of| (of, ())).collect();
        own
    }

    /// Whether there is no list, so that nothing is excused.
    pub(crate) const fn is_idle(&self) -> bool {
        self.lists.is_none()
    }

    /// The list that has the far end of a packet that comes in.
    fn list_of(&self, p: &Packet, which: impl Fn(&AllowList) -> bool) -> Option<&'a AllowList> {
        let lists = self.lists.filter(|_| p.direction == Direction::Inbound)?;
        lists.of(&far_end(p), which)
    }

    /// Whether a packet of the present is answered traffic of a list for which `which` holds.
    pub(crate) fn holds(
        &self,
        p: &Packet,
        answers: &Answers,
        which: impl Fn(&AllowList) -> bool,
    ) -> bool {
        let listed = !p.is_syn() && self.list_of(p, which).is_some();
        listed && answers.is_answered(p) && !self.is_doubted(p)
    }

    /// Whether a packet of normal times is traffic of a list that the target answers; where exporters show one
    /// direction only, what was normal of a list is all that is known of it.
    pub(crate) fn held(&self, p: &Packet, which: impl Fn(&AllowList) -> bool) -> bool {
        let answered = || acquaintances(p).iter().any(|of| self.usual.contains_key(of));
        !p.is_syn() && self.list_of(p, which).is_some() && (!self.visible || answered())
    }

    /// Whether a packet bears an address of a list and is most probably forged: far more comes in of the list
    /// than is answered, and this one is not of a conversation that is.
    fn is_doubted(&self, p: &Packet) -> bool {
        let Some(list) = self.list_of(p, |_| true).filter(|_| self.visible) else { return false };
        let whole = self.whole.get(&list.name).copied().unwrap_or_default();
        let own = self.now.get(&conversation(p)).copied().unwrap_or_default();
        !in_proportion(whole, IN_FOR_OUT_LIST_MAX) && !in_proportion(own, IN_FOR_OUT_MAX)
    }

    /// The same packets, in which those that bear a list's addresses and are most probably forged come from
    /// nobody's network: that others in the networks of a list are answered, or known from before, says nothing
    /// for them, as the list is public.
    pub(crate) fn estranged<'p>(&self, packets: &'p [Packet]) -> Cow<'p, [Packet]> {
        if self.is_idle() || !packets.iter().any(|p| self.is_doubted(p)) {
            return Cow::Borrowed(packets);
        }
        let strange = |p: &Packet| {
            let mut p = *p;
            if self.is_doubted(&p) {
                // The other half of the family's addresses.
                p.src ^= if p.src >> 32 == 0xffff { 1 << 31 } else { 1 << 127 };
            }
            p
        };
        Cow::Owned(packets.iter().map(strange).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::packets::tests::{inbound, sample};
    use weir_model::{AllowAlarms, Range, Sample};

    fn lists() -> AllowLists {
        AllowLists::from(vec![AllowList {
            name: "web".parse().unwrap(),
            prefixes: FromIterator::from_iter(["198.51.100.0/24".parse().unwrap()]),
            protocols: vec![6],
            ports: vec![Range::exact(443)],
            source_ports: Vec::new(),
            groups: Vec::new(),
            alarms: AllowAlarms::Count,
            waits: None,
        }])
    }

    /// A segment of the `n`th proxy.
    fn proxy(n: u32) -> Sample {
        sample(0xc633_6400 + n % 256, 40_000 + (n % 7) as u16, 6, 443, 900)
    }

    fn back(mut s: Sample) -> Packet {
        std::mem::swap(&mut s.record.src, &mut s.record.dst);
        std::mem::swap(&mut s.record.src_port, &mut s.record.dst_port);
        Packet::new(&s, 5, Direction::Outbound)
    }

    fn count(now: &[Packet], sent: Vec<Packet>) -> usize {
        let (lists, answers) = (lists(), Answers::new(sent, Vec::new(), true));
        let excused = Excused::new(&lists, now, &answers);
        now.iter().filter(|p| excused.holds(p, &answers, |_| true)).count()
    }

    #[test]
    fn of_a_list_only_those_who_are_answered_are_excused() {
        let now: Vec<Packet> = (0..80).map(|n| inbound(&proxy(n), 5)).collect();
        assert_eq!(count(&now, (0..10).map(|n| back(proxy(n))).collect()), 10);
        assert_eq!(count(&now, Vec::new()), 0);
        // While a list as a whole is answered in proportion, so are neighbours: sampling hides their answers.
        assert_eq!(count(&now[..20], (0..10).map(|n| back(proxy(n))).collect()), 20);
    }

    #[test]
    fn whoever_forges_the_addresses_that_are_answered_sends_more_than_they_are() {
        let mut now: Vec<Packet> = (0..10).map(|n| inbound(&proxy(n), 5)).collect();
        for _ in 0..30 {
            now.extend((0..10).map(|n| inbound(&proxy(n), 5)));
        }
        assert_eq!(count(&now, (0..10).map(|n| back(proxy(n))).collect()), 0);
    }

    #[test]
    fn openings_other_ports_and_strangers_are_not_excused() {
        let sent = || (0..10).map(|n| back(proxy(n))).collect::<Vec<_>>();
        let made = |change: &dyn Fn(&mut Sample)| {
            let mut list = Vec::new();
            for n in 0..10 {
                let mut s = proxy(n);
                change(&mut s);
                list.push(inbound(&s, 5));
            }
            count(&list, sent())
        };
        assert_eq!(made(&|_| {}), 10);
        assert_eq!(made(&|s| s.record.tcp_flags = 0x02), 0);
        assert_eq!(made(&|s| s.record.dst_port = 80), 0);
        assert_eq!(made(&|s| s.record.protocol = 17), 0);
        assert_eq!(made(&|s| s.record.src = "198.51.101.7".parse().unwrap()), 0);
    }
}
