//! Rules and the entries they can share, as a binary tree, and the best choice of some of them.

use std::collections::BTreeMap;

use ipnet::IpNet;
use weir_model::{Action, Filter, Match, Measure};

use super::Wanted;

#[derive(Debug)]
struct Node {
    /// One entry for everything below.
    entry: Option<Measure>,
    /// The rule that is this entry, where it is one.
    own: Option<usize>,
    below: Option<(usize, usize)>,
    /// Whether a rule in it is fresh.
    fresh: bool,
    /// What all its rules are worth together.
    value: u64,
}

/// Nodes stand behind those below them; the last is the root.
#[derive(Debug)]
pub(super) struct Forest {
    nodes: Vec<Node>,
    root: Option<usize>,
}

/// What is best of a node with so many entries at most, and how many of them go to the first below: `ONE` for
/// the node's own entry.
#[derive(Clone, Copy, Debug)]
struct Best {
    value: u64,
    first: u32,
}

const ONE: u32 = u32::MAX;

impl Forest {
    pub(super) fn of(wanted: &[Wanted<'_>], allowed: &dyn Fn(&Measure) -> bool) -> Self {
        let mut forest = Self { nodes: Vec::with_capacity(wanted.len() * 2), root: None };
        let mut groups: BTreeMap<Filter, Vec<(IpNet, usize)>> = BTreeMap::new();
        let mut roots = Vec::new();
        for (i, w) in wanted.iter().enumerate() {
            match w.measure {
                Measure::FlowSpec(filter) if w.joins && can_share(filter.action) => {
                    let group = towards(filter, everything(filter.packets.dst));
                    groups.entry(group).or_default().push((filter.packets.dst, i));
                }
                _ => roots.push(forest.leaf(i, wanted)),
            }
        }
        for (group, members) in groups {
            forest.group(&group, members, wanted, allowed, &mut roots);
        }
        forest.root = forest.join(roots);
        forest
    }

    /// Everything that can be an entry.
    pub(super) fn measures(&self) -> impl Iterator<Item = &Measure> {
        self.nodes.iter().filter_map(|node| node.entry.as_ref())
    }

    fn leaf(&mut self, i: usize, wanted: &[Wanted<'_>]) -> usize {
        let w = &wanted[i];
        self.push(Node {
            entry: Some(w.measure.clone()),
            own: Some(i),
            below: None,
            fresh: w.fresh,
            value: w.value,
        })
    }

    fn push(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Two nodes, without an entry for both.
    fn pair(&mut self, a: usize, b: usize) -> usize {
        let fresh = self.nodes[a].fresh || self.nodes[b].fresh;
        let value = self.nodes[a].value.saturating_add(self.nodes[b].value);
        self.push(Node { entry: None, own: None, below: Some((a, b)), fresh, value })
    }

    /// A balanced tree of nodes.
    fn join(&mut self, mut nodes: Vec<usize>) -> Option<usize> {
        while nodes.len() > 1 {
            nodes = nodes
                .chunks(2)
                .map(|two| if let [a, b] = two { self.pair(*a, *b) } else { two[0] })
                .collect();
        }
        nodes.pop()
    }

    /// Rules that differ in their destinations: from the longest prefixes on, a rule takes in what lies in it, and
    /// two halves of a prefix become one entry.
    fn group(
        &mut self,
        group: &Filter,
        mut members: Vec<(IpNet, usize)>,
        wanted: &[Wanted<'_>],
        allowed: &dyn Fn(&Measure) -> bool,
        roots: &mut Vec<usize>,
    ) {
        if let [(_, i)] = members[..] {
            roots.push(self.leaf(i, wanted));
            return;
        }
        members.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        let mut tops: BTreeMap<IpNet, usize> = BTreeMap::new();
        let mut members = members.into_iter().peekable();
        for len in (0..=128).rev() {
            while let Some((net, i)) = members.next_if(|(net, _)| net.prefix_len() == len) {
                // Everything so far is at least as long, so what begins in it lies in it.
                let inside: Vec<IpNet> = tops
                    .range(begin(net)..)
                    .map(|(top, _)| *top)
                    .take_while(|top| net.contains(&top.network()))
                    .collect();
                let inside = inside.iter().filter_map(|top| tops.remove(top)).collect();
                let node = match self.join(inside) {
                    None => self.leaf(i, wanted),
                    Some(inside) => self.rule_around(i, inside, wanted),
                };
                tops.insert(net, node);
            }
            let of_len: Vec<IpNet> =
                tops.keys().filter(|net| net.prefix_len() == len).copied().collect();
            for two in of_len.windows(2) {
                let Some(net) = two[0].supernet().filter(|net| two[1].supernet() == Some(*net))
                else {
                    continue;
                };
                let entry = Measure::FlowSpec(towards(group, net));
                if let (Some(&a), Some(&b)) = (tops.get(&two[0]), tops.get(&two[1]))
                    && allowed(&entry)
                {
                    let both = self.pair(a, b);
                    self.nodes[both].entry = Some(entry);
                    tops.remove(&two[0]);
                    tops.remove(&two[1]);
                    tops.insert(net, both);
                }
            }
        }
        roots.extend(tops.into_values());
    }

    /// A rule with others inside it, which it makes superfluous.
    fn rule_around(&mut self, i: usize, inside: usize, wanted: &[Wanted<'_>]) -> usize {
        let w = &wanted[i];
        let Node { fresh, value, .. } = self.nodes[inside];
        // Without the wider rule, what lies in it is chosen as if it were alone.
        let empty = self.push(Node { entry: None, own: None, below: None, fresh: false, value: 0 });
        self.push(Node {
            entry: Some(w.measure.clone()),
            own: Some(i),
            below: Some((inside, empty)),
            fresh: fresh || w.fresh,
            value: value.saturating_add(w.value),
        })
    }

    /// The best `room` entries. `worth` says what one counts for, by its value and whether a rule in it is
    /// fresh; `None` where it may not be chosen.
    pub(super) fn best(
        &self,
        wanted: &[Wanted<'_>],
        room: usize,
        worth: impl Fn(&Measure, bool, u64) -> Option<u64>,
    ) -> Vec<(Measure, Vec<usize>)> {
        let mut tables: Vec<Vec<Best>> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let mut table = match node.below {
                Some((a, b)) => both(&tables[a], &tables[b], room),
                None => vec![Best { value: 0, first: 0 }],
            };
            let one = node.entry.as_ref().and_then(|entry| worth(entry, node.fresh, node.value));
            if let Some(value) = one.filter(|_| room > 0) {
                if table.len() == 1 {
                    table.push(table[0]);
                }
                // Of equals, single rules: they hit what each needs and no more.
                for best in table.iter_mut().skip(1).filter(|best| value > best.value) {
                    *best = Best { value, first: ONE };
                }
            }
            tables.push(table);
        }
        let mut entries = Vec::new();
        let Some(root) = self.root else { return entries };
        let mut open = vec![(root, tables[root].len() - 1)];
        while let Some((at, room)) = open.pop() {
            let node = &self.nodes[at];
            let best = tables[at][room.min(tables[at].len() - 1)];
            match (&node.entry, node.below) {
                (Some(entry), _) if best.first == ONE => {
                    let mut rules = Vec::new();
                    self.rules(at, &mut rules);
                    entries.push((entry.clone(), rules));
                }
                (_, Some((a, b))) => {
                    let first = usize::try_from(best.first).unwrap_or(0).min(room);
                    open.extend([(a, first), (b, room - first)]);
                }
                _ => {}
            }
        }
        debug_assert!(entries.len() <= room && wanted.len() >= entries.len(), "no more than asked");
        entries.sort();
        entries
    }

    fn rules(&self, from: usize, rules: &mut Vec<usize>) {
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            let node = &self.nodes[at];
            rules.extend(node.own);
            if let Some((a, b)) = node.below {
                open.extend([a, b]);
            }
        }
        rules.sort_unstable();
    }
}

/// The best of two nodes together, for each number of entries up to `room`.
fn both(a: &[Best], b: &[Best], room: usize) -> Vec<Best> {
    let most = (a.len() + b.len() - 2).min(room);
    let mut table = vec![Best { value: 0, first: 0 }; most + 1];
    for (i, of_a) in a.iter().enumerate().take(most + 1) {
        let first = u32::try_from(i).unwrap_or(ONE - 1);
        for (best, of_b) in table[i..].iter_mut().zip(b) {
            let value = of_a.value + of_b.value;
            if value >= best.value {
                *best = Best { value, first };
            }
        }
    }
    // More room is never worse.
    for k in 1..table.len() {
        debug_assert!(table[k].value >= table[k - 1].value, "tables rise");
    }
    table
}

/// Rules of these actions do the same to a packet whichever of them it meets. A limit is a bucket: shared, one
/// attack would use up what the players of the other host are left.
const fn can_share(action: Action) -> bool {
    matches!(action, Action::Drop | Action::Mark { .. } | Action::Redirect(_))
}

fn towards(filter: &Filter, dst: IpNet) -> Filter {
    Filter { packets: Match { dst, ..filter.packets.clone() }, action: filter.action }
}

/// Where prefixes that begin with the first address of this one stand first.
fn begin(net: IpNet) -> IpNet {
    IpNet::new(net.network(), 0).unwrap_or(net)
}

fn everything(net: IpNet) -> IpNet {
    match net {
        IpNet::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpNet::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}
