//! The last word on the mode, once more beside the state file: for a disk that is full, and for a state file
//! that is damaged. Two small files: one in the state folder, whose room is taken when there still is some
//! and which is written in place; one beside the local socket, which is in memory as a rule and is written
//! first. A thread of its own writes them, so that a disk that hangs holds up nobody.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing::{error, warn};
use weir_config::Config;
use weir_mitigator::Word;

use super::spawn as spawn_thread;

/// Room taken for a word, octets: one page, whatever it says.
const ROOM: usize = 4096;

/// Words that may wait: a person says one at a time.
const WAITING_MAX: usize = 16;

/// Name of both files.
const NAME: &str = "mode";

/// A word, and who waits until it is in one of the files.
type Message = (Word, Sender<()>);

/// Where a word is put.
#[derive(Clone, Debug)]
pub(crate) struct Marker {
    out: Option<Sender<Message>>,
}

impl Marker {
    /// Has a word written; the receiver hears when a file has it, and is hung up on when none takes it.
    pub(crate) fn put(&self, word: Word) -> Receiver<()> {
        let (tell, told) = bounded(1);
        if let Some(out) = &self.out {
            // Full: the files hang, and so does the word.
            let _ = out.try_send((word, tell));
        }
        told
    }
}

/// Both files as they were opened at the start: writing them needs no free descriptor.
#[derive(Debug, Default)]
pub(crate) struct Files {
    open: Vec<(PathBuf, File)>,
}

impl Files {
    /// Opens them, and takes their room.
    pub(crate) fn open(config: &Config) -> Self {
        if config.store.path.as_os_str() == ":memory:" {
            return Self::default();
        }
        let socket = Some(&config.api.socket).filter(|path| !path.as_os_str().is_empty());
        let places = [
            // First, for it is in memory: behind a disk that hangs it would never be written.
            socket.and_then(|path| beside_socket(path.as_path())),
            config.store.path.parent().map(|folder| folder.join(NAME)),
        ];
        let mut open = Vec::new();
        for path in places.into_iter().flatten() {
            match open_file(&path) {
                Ok(file) => open.push((path, file)),
                Err(error) => {
                    warn!(%error, path = %path.display(), "no room for the last word on the mode beside the state file");
                }
            }
        }
        Self { open }
    }

    /// The last word that stands in them.
    pub(crate) fn last(&mut self) -> Word {
        let mut last = Word::default();
        for (path, file) in &mut self.open {
            match read(file) {
                Ok(word) => last = last.later(word),
                Err(error) => warn!(%error, path = %path.display(), "cannot be read"),
            }
        }
        last
    }

    fn write(&mut self, word: &Word) -> bool {
        let mut kept = false;
        for (path, file) in &mut self.open {
            match write(file, word) {
                Ok(()) => kept = true,
                Err(error) => error!(%error, path = %path.display(), "cannot keep the mode here"),
            }
        }
        kept
    }
}

/// Named after the socket: its folder may be another weir's too, whose brake is not this one's.
fn beside_socket(socket: &Path) -> Option<PathBuf> {
    let mut name = socket.file_name()?.to_owned();
    name.push(format!(".{NAME}"));
    Some(socket.with_file_name(name))
}

fn open_file(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.len() < ROOM as u64 {
        let word = read(&mut file).unwrap_or_default();
        write(&mut file, &word)?;
    }
    Ok(file)
}

/// An empty file says nothing.
fn read(file: &mut File) -> std::io::Result<Word> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(ROOM as u64).read_to_string(&mut text)?;
    let text = text.trim();
    if text.is_empty() {
        return Ok(Word::default());
    }
    Ok(serde_json::from_str(text)?)
}

/// In place, and always the whole room.
fn write(file: &mut File, word: &Word) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(word)?;
    if text.len() >= ROOM {
        return Err(std::io::Error::other("the word is too long"));
    }
    text.resize(ROOM - 1, b' ');
    text.push(b'\n');
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&text)?;
    file.sync_data()
}

pub(crate) fn spawn(
    mut files: Files,
    failed: &Sender<String>,
) -> anyhow::Result<(Marker, Option<JoinHandle<()>>)> {
    if files.open.is_empty() {
        return Ok((Marker { out: None }, None));
    }
    let (out, words) = bounded::<Message>(WAITING_MAX);
    let thread = spawn_thread("mode", failed, move || {
        for (word, tell) in words {
            if files.write(&word) {
                // Whoever waited may have stopped.
                let _ = tell.try_send(());
            }
        }
    })?;
    Ok((Marker { out: Some(out) }, Some(thread)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use weir_model::{Millis, Mode, Stance};

    use super::*;

    #[test]
    fn the_later_word_of_two_files_counts_and_takes_no_more_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.store.path = folder.path().join("state/state.db");
        config.api.socket = folder.path().join("run/api.sock");
        let mut files = Files::open(&config);
        assert_eq!((files.open.len(), files.last()), (2, Word::default()));
        let by = "x".repeat(64);
        let stance =
            Stance { mode: Mode::Observe, brake: true, by, at: Millis(7), file: Mode::Auto };
        let brake = Word { at: Millis(7), stance: Some(stance) };
        assert!(files.write(&brake));
        let lifted = Word { at: Millis(9), stance: None };
        write(&mut files.open[1].1, &lifted).unwrap();
        let mut files = Files::open(&config);
        assert_eq!(files.last(), lifted);
        write(&mut files.open[0].1, &Word { at: Millis(11), ..brake.clone() }).unwrap();
        assert_eq!(files.last().stance, brake.stance);
        for (path, _) in &files.open {
            assert_eq!(std::fs::metadata(path).unwrap().len(), ROOM as u64);
        }
        // Another weir, whose socket is in the same folder.
        let mut other = config.clone();
        other.store.path = folder.path().join("other/state.db");
        other.api.socket = folder.path().join("run/other.sock");
        assert_eq!(Files::open(&other).last(), Word::default());
        // What somebody scribbled into is not believed and does not stop the start.
        std::fs::write(&files.open[0].0, "nonsense").unwrap();
        assert_eq!(Files::open(&config).last(), lifted);
    }
}
