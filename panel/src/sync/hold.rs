//! Keeps ports that vanished in suspicious numbers.

use std::collections::{BTreeMap, BTreeSet};

use crate::listing::Listing;

/// Fewer vanished ports than this are an everyday change, whatever their share.
const VANISHED_MIN: usize = 5;

/// The new listing together with what vanished, and how many ports are held; `None` when what
/// vanished may go.
pub(super) fn hold(old: &Listing, new: &Listing, share: f64) -> Option<(Listing, usize)> {
    let present: BTreeSet<u64> =
        new.servers.iter().flat_map(|s| s.allocations.iter().map(|a| a.id)).collect();
    let before = old.ports();
    let vanished = old
        .servers
        .iter()
        .flat_map(|s| s.allocations.iter())
        .filter(|a| !present.contains(&a.id))
        .count();
    let all_gone = present.is_empty() && before > 0;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let many = vanished >= VANISHED_MIN && vanished as f64 > share * before as f64;
    if !all_gone && !many {
        return None;
    }
    let mut merged = new.clone();
    let at: BTreeMap<u64, usize> =
        merged.servers.iter().enumerate().map(|(i, s)| (s.id, i)).collect();
    for server in &old.servers {
        let mut gone: Vec<_> =
            server.allocations.iter().filter(|a| !present.contains(&a.id)).cloned().collect();
        if gone.is_empty() {
            continue;
        }
        for allocation in &mut gone {
            allocation.held = true;
        }
        if let Some(i) = at.get(&server.id) {
            merged.servers[*i].allocations.extend(gone);
            merged.servers[*i].allocations.sort_by_key(|a| a.id);
        } else {
            let mut kept = server.clone();
            kept.allocations = gone;
            merged.servers.push(kept);
        }
    }
    merged.servers.sort_by_key(|s| s.id);
    let gone: Vec<_> = old.nodes.iter().filter(|n| merged.node(n.id).is_none()).cloned().collect();
    merged.nodes.extend(gone);
    merged.nodes.sort_by_key(|n| n.id);
    Some((merged, vanished))
}
