//! The open log: records as they came, in frames with a checksum. What was written before the process was
//! killed is there; what a power failure tears is left out at the first frame that does not add up.
//!
//! ```text
//! frame = length u32 | CRC-32 u32 | thinned u32 | ArchivedFlow x n     (length and checksum of what follows them)
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use weir_model::ArchivedFlow;

/// Longest frame, octets: 40,000 records.
pub const FRAME_MAX: usize = 4 << 20;

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    file: File,
    len: u64,
    unsynced: bool,
    broken: bool,
}

impl Log {
    /// Begins a log.
    ///
    /// # Errors
    /// What the disk says.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create_new(true).write(true).open(path)?;
        Ok(Self { file, len: 0, unsynced: false, broken: false })
    }

    /// Octets written.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it can take no more: half a frame stands at its end, or the disk lost what it had taken.
    pub const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Appends a frame of records in their wire form. After an error the log is as it was before, or broken.
    ///
    /// # Errors
    /// What the disk says.
    pub fn append(&mut self, thinned: u32, records: &[u8]) -> io::Result<()> {
        let mut frame = Vec::with_capacity(records.len() + 12);
        let len = u32::try_from(records.len() + 4).map_err(io::Error::other)?;
        let mut sum = crc32fast::Hasher::new();
        sum.update(&thinned.to_le_bytes());
        sum.update(records);
        frame.extend_from_slice(&len.to_le_bytes());
        frame.extend_from_slice(&sum.finalize().to_le_bytes());
        frame.extend_from_slice(&thinned.to_le_bytes());
        frame.extend_from_slice(records);
        if let Err(error) = self.file.write_all(&frame) {
            // Half a frame would hide what comes after it.
            let undone = self.file.set_len(self.len);
            let undone = undone.and_then(|()| self.file.seek(SeekFrom::Start(self.len)));
            self.broken = undone.is_err();
            return Err(error);
        }
        self.len += frame.len() as u64;
        self.unsynced = true;
        Ok(())
    }

    /// Has the disk take what was written.
    ///
    /// # Errors
    /// What the disk says.
    pub fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.unsynced) {
            // What the disk did not take is not tried again by the kernel: asking once more would succeed and
            // mean nothing.
            self.file.sync_data().inspect_err(|_| self.broken = true)
        } else {
            Ok(())
        }
    }
}

/// Reads a log, frame by frame, up to its end or the first frame that is not whole.
///
/// # Errors
/// When it cannot be read, or `each` says so.
pub fn read(
    path: &Path,
    mut each: impl FnMut(&[ArchivedFlow]) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
    let (mut frame, mut flows) = (Vec::new(), Vec::new());
    loop {
        let mut head = [0; 8];
        if !filled(&mut file, &mut head)? {
            return Ok(());
        }
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let len = word(0) as usize;
        if !(4..=FRAME_MAX + 4).contains(&len) {
            return Ok(());
        }
        frame.resize(len, 0);
        if !filled(&mut file, &mut frame)? || crc32fast::hash(&frame) != word(4) {
            return Ok(());
        }
        let (thinned, records) = frame.split_at(4);
        let thinned = u32::from_le_bytes(std::array::from_fn(|i| thinned[i]));
        flows.clear();
        let records = records.chunks_exact(ArchivedFlow::OCTETS).filter_map(ArchivedFlow::read);
        flows.extend(records.map(|flow| ArchivedFlow { thinned, ..flow }));
        each(&flows)?;
    }
}

fn filled(file: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use weir_model::FlowRecord;

    use super::*;

    #[test]
    fn a_torn_end_costs_its_own_frame_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.log");
        let mut log = Log::create(&path).unwrap();
        let flow = ArchivedFlow::of(&FlowRecord::EMPTY, [192, 0, 2, 1].into());
        let mut wire = Vec::new();
        flow.put(&mut wire);
        flow.put(&mut wire);
        for thinned in [1, 8, 1] {
            log.append(thinned, &wire).unwrap();
        }
        log.sync().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let count = |octets: &[u8]| {
            std::fs::write(&path, octets).unwrap();
            let mut seen = Vec::new();
            read(&path, |flows| {
                seen.extend(flows.iter().map(|flow| flow.thinned));
                Ok(())
            })
            .unwrap();
            seen
        };
        assert_eq!(count(&whole), [1, 1, 8, 8, 1, 1]);
        for cut in 0..whole.len() {
            let expected = cut / (whole.len() / 3) * 2;
            assert_eq!(count(&whole[..cut]).len(), expected, "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            assert_eq!(count(&bad).len(), at / (whole.len() / 3) * 2, "damaged at {at}");
        }
    }
}
