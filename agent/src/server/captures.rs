//! Captures that nodes send: in pieces, so that a link that breaks costs one piece.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weir_model::IncidentId;

/// Most captures kept: below two gigabytes, and a gigabyte of what agents make.
const CAPTURES_MAX: usize = 1000;

/// Most captures kept of one node: its own oldest make room for more, not another's.
const NODE_CAPTURES_MAX: usize = 32;

/// Largest capture: twice what an agent makes.
pub const CAPTURE_MAX: u64 = 2 << 20;

/// How much of a capture is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// Octets.
    pub octets: u64,
    /// That is all of it.
    pub whole: bool,
}

/// The folder of captures.
#[derive(Clone, Debug)]
pub(super) struct Captures(pub(super) PathBuf);

impl Captures {
    fn path(&self, node: &str, incident: IncidentId, whole: bool) -> PathBuf {
        // A node's name has no slash: it was checked when it joined.
        let end = if whole { "pcapng" } else { "part" };
        self.0.join(format!("{incident}-{node}.{end}"))
    }

    /// How much of a capture is here.
    pub(super) fn have(&self, node: &str, incident: IncidentId) -> Have {
        let length = |path: &Path| std::fs::metadata(path).ok().map(|m| m.len());
        match length(&self.path(node, incident, true)) {
            Some(octets) => Have { octets, whole: true },
            None => {
                let octets = length(&self.path(node, incident, false)).unwrap_or(0);
                Have { octets, whole: false }
            }
        }
    }

    /// Takes the piece that begins at `offset` of `total` octets. One that does not go on where the last ended
    /// changes nothing; the answer says where to go on. The node's oldest captures make room; when there are too
    /// many of all, the oldest of the node that has most.
    ///
    /// # Errors
    /// When it is too large, or cannot be written.
    pub(super) fn take(
        &self,
        (node, incident): (&str, IncidentId),
        (offset, total): (u64, u64),
        piece: &[u8],
    ) -> io::Result<Have> {
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if total > CAPTURE_MAX || offset.saturating_add(length) > total {
            return Err(io::Error::other(format!("a capture has up to {CAPTURE_MAX} octets")));
        }
        let have = self.have(node, incident);
        if have.whole || have.octets != offset {
            return Ok(have);
        }
        if offset == 0 {
            std::fs::create_dir_all(&self.0)?;
            self.make_room(node)?;
        }
        let part = self.path(node, incident, false);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.append(true).create(true).mode(0o600).open(&part)?;
        file.write_all(piece)?;
        let octets = offset + length;
        if octets == total {
            file.sync_all()?;
            std::fs::rename(part, self.path(node, incident, true))?;
        }
        Ok(Have { octets, whole: octets == total })
    }

    /// A whole capture.
    pub(super) fn read(&self, node: &str, incident: IncidentId) -> Option<Vec<u8>> {
        std::fs::read(self.path(node, incident, true)).ok()
    }

    fn make_room(&self, node: &str) -> io::Result<()> {
        /// Of each node, the oldest first.
        type Kept = BTreeMap<String, Vec<(std::time::SystemTime, PathBuf)>>;
        let mut kept = Kept::new();
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            let stem = Path::new(&name).file_stem().and_then(|s| s.to_str()).unwrap_or_default();
            let of = stem.split_once('-').map_or("", |(_, node)| node).to_owned();
            let Ok(changed) = entry.metadata().and_then(|m| m.modified()) else { continue };
            kept.entry(of).or_default().push((changed, entry.path()));
        }
        kept.values_mut().for_each(|list| list.sort());
        let drop_oldest = |list: &mut Vec<(std::time::SystemTime, PathBuf)>| {
            let (_, path) = list.remove(0);
            std::fs::remove_file(path)
        };
        if let Some(own) = kept.get_mut(node) {
            while own.len() >= NODE_CAPTURES_MAX {
                drop_oldest(own)?;
            }
        }
        while kept.values().map(Vec::len).sum::<usize>() >= CAPTURES_MAX {
            let Some(most) = kept.values_mut().max_by_key(|list| list.len()) else { break };
            drop_oldest(most)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_a_whole_and_repeats_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let captures = Captures(folder.path().join("captures"));
        let of = ("node1", IncidentId(5));
        let take = |offset, piece: &[u8]| captures.take(of, (offset, 6), piece).unwrap();
        assert_eq!(captures.have(of.0, of.1), Have { octets: 0, whole: false });
        assert_eq!(take(0, b"abc"), Have { octets: 3, whole: false });
        assert_eq!(take(0, b"abc"), Have { octets: 3, whole: false }, "said already");
        assert_eq!(take(4, b"ef"), Have { octets: 3, whole: false }, "a gap");
        assert_eq!(captures.read(of.0, of.1), None);
        assert_eq!(take(3, b"def"), Have { octets: 6, whole: true });
        assert_eq!(take(0, b"xyz"), Have { octets: 6, whole: true });
        assert_eq!(captures.read(of.0, of.1).unwrap(), b"abcdef");
        assert!(captures.take(of, (0, CAPTURE_MAX + 1), b"").is_err());
        assert!(captures.take(("node2", of.1), (5, 6), b"xx").is_err(), "more than there is");
    }

    #[test]
    fn a_node_that_sends_much_pushes_out_its_own_and_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let captures = Captures(folder.path().join("captures"));
        let take = |node: &str, id: u64| {
            captures.take((node, IncidentId(id)), (0, 1), b"x").unwrap();
        };
        for id in 1..=5 {
            take("good-1", id);
        }
        for id in 1..=100 {
            take("evil", id);
        }
        let has =
            |node: &str| (1..=100).filter(|id| captures.have(node, IncidentId(*id)).whole).count();
        assert_eq!((has("good-1"), has("evil")), (5, NODE_CAPTURES_MAX));
        let kept = folder.path().join("captures");
        let files = || std::fs::read_dir(&kept).unwrap().count();
        for node in files()..CAPTURES_MAX {
            std::fs::write(kept.join(format!("1-n{node}.pcapng")), b"x").unwrap();
        }
        for node in 0..10 {
            take(&format!("new{node}"), 1);
        }
        assert_eq!(files(), CAPTURES_MAX);
        assert_eq!((has("good-1"), has("evil")), (5, NODE_CAPTURES_MAX - 10), "who has most");
    }
}
