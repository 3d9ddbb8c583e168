//! Captures that nodes send: in pieces, so that a link that breaks costs one piece.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weir_model::IncidentId;

/// Most captures kept: below a gigabyte.
const CAPTURES_MAX: usize = 1000;

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
    /// changes nothing; the answer says where to go on. The oldest captures make room.
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
            self.make_room()?;
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

    fn make_room(&self) -> io::Result<()> {
        let kept = std::fs::read_dir(&self.0)?.filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        });
        let mut kept: Vec<(std::time::SystemTime, PathBuf)> = kept.collect();
        kept.sort();
        let surplus = (kept.len() + 1).saturating_sub(CAPTURES_MAX);
        kept.iter().take(surplus).try_for_each(|(_, path)| std::fs::remove_file(path))
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
}
