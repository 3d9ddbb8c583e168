//! The local socket: records in, questions answered. One thread a connection, few connections.

use std::fs::{File, TryLockError};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};
use weir_model::{ArchivedFlow, FlowQuery, QUESTION, RECORDS};

use crate::archive::{Archive, Shared, now_ms};
use crate::catalog::{Catalog, Keep};
use crate::query::{Limits, QueryError, answer};

/// Connections at the same time.
const CONNECTIONS_MAX: usize = 32;
/// Of them, senders of records: weir is one. The others are for questions.
const FEEDS_MAX: usize = 4;
/// Longest frame of records, octets.
const RECORDS_MAX: usize = 4 << 20;
/// Longest question, octets.
const QUESTION_MAX: usize = 16 << 10;
/// Octets of a longer one that are read to be able to answer.
const DISCARDED_MAX: usize = 1 << 20;
/// Frames that wait for the log.
const FRAMES_WAITING: usize = 32;
/// Questions carried out at the same time.
const QUESTIONS_MAX: usize = 2;
/// Questions that wait for their turn.
const QUESTIONS_WAITING: usize = 16;
/// How long whoever connects may take to say what for, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often threads look whether they are to stop.
const LOOK: Duration = Duration::from_millis(100);

/// What the process is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the archive is.
    pub archive: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// What is kept.
    pub keep: Keep,
    /// What a question may cost.
    pub limits: Limits,
}

/// The running process.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    accept: JoinHandle<()>,
    log: JoinHandle<()>,
    socket: PathBuf,
    /// Held while this process keeps the archive.
    _lock: File,
}

struct Room {
    shared: Arc<Shared>,
    limits: Limits,
    frames: SyncSender<Vec<u8>>,
    stop: Arc<AtomicBool>,
    feeds: AtomicUsize,
    /// Questions under way, and waiting.
    questions: Mutex<(usize, usize)>,
    ended: Condvar,
}

impl Server {
    /// Opens the archive and listens.
    ///
    /// # Errors
    /// When the archive cannot be opened, or the socket not bound.
    pub fn start(config: &Config) -> io::Result<Self> {
        // First of all: what another process has open is not for this one to seal or to remove.
        let lock = lock(&config.archive)?;
        let listener = bind(&config.socket)?;
        let catalog = Catalog::open(&config.archive)?;
        let shared = Arc::new(Shared::new(catalog));
        let archive = Archive::start(&shared, config.keep)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (frames, waiting) = sync_channel(FRAMES_WAITING);
        let log = spawn("log", move || write_log(archive, &waiting))?;
        let room = Arc::new(Room {
            shared: Arc::clone(&shared),
            limits: config.limits,
            frames,
            stop: Arc::clone(&stop),
            feeds: AtomicUsize::new(0),
            questions: Mutex::new((0, 0)),
            ended: Condvar::new(),
        });
        let accept = spawn("accept", move || accept(&listener, &room))?;
        let state = shared.state();
        info!(socket = %config.socket.display(), files = state.files, octets = state.octets, "ready");
        Ok(Self { stop, accept, log, socket: config.socket.clone(), _lock: lock })
    }

    /// Stops taking records and questions, seals what came, and waits for it.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        // A look at the socket ends the wait for a connection.
        let _ = UnixStream::connect(&self.socket);
        let _ = self.accept.join();
        let _ = self.log.join();
        let _ = std::fs::remove_file(&self.socket);
    }

    /// Whether a thread ended that was not to.
    pub fn has_failed(&self) -> bool {
        self.accept.is_finished() || self.log.is_finished()
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Takes the directory for this process alone, for as long as the file is open.
fn lock(archive: &Path) -> io::Result<File> {
    std::fs::create_dir_all(archive)?;
    let lock = File::create(archive.join("lock"))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => {
            let what = format!("{}: another weir-flows keeps it", archive.display());
            io::Error::new(io::ErrorKind::AddrInUse, what)
        }
        TryLockError::Error(error) => error,
    })?;
    Ok(lock)
}

/// Takes the socket's path over from a process that is gone, never from one that answers.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        let what = format!("{}: another weir-flows listens there", path.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            let what = format!("{} is there, and is no socket", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    // Owner and group: weir is in it.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

fn write_log(mut archive: Archive, frames: &Receiver<Vec<u8>>) {
    loop {
        match frames.recv_timeout(LOOK) {
            Ok(records) => archive.take(&records),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        archive.tick();
    }
    archive.stop();
}

fn accept(listener: &UnixListener, room: &Arc<Room>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while !room.stop.load(Ordering::Relaxed) {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a connection was not taken");
                // Out of descriptors, until some are given back.
                std::thread::park_timeout(LOOK);
                continue;
            }
        };
        threads.retain(|thread| !thread.is_finished());
        // Whoever connects waits in the socket's own queue meanwhile: each of the others ends soon, or is weir.
        while threads.len() >= CONNECTIONS_MAX && !room.stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(LOOK / 10);
            threads.retain(|thread| !thread.is_finished());
        }
        if room.stop.load(Ordering::Relaxed) {
            continue;
        }
        let own = Arc::clone(room);
        let thread = spawn("connection", move || {
            if let Err(error) = own.serve(stream) {
                debug!(%error, "a connection ended");
            }
        });
        threads.extend(thread);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// Reads a whole buffer, looking now and then whether to stop; false at a proper end.
fn fill(stream: &mut impl io::Read, buffer: &mut [u8], stop: &AtomicBool) -> io::Result<bool> {
    let mut at = 0;
    while at < buffer.len() {
        match stream.read(&mut buffer[at..]) {
            Ok(0) if at == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => at += read,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                if stop.load(Ordering::Relaxed) {
                    return Ok(false);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

impl Room {
    fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut what = [0];
        stream.read_exact(&mut what)?;
        match what[0] {
            RECORDS => {
                let feeds = self.feeds.fetch_add(1, Ordering::Relaxed);
                let fed = if feeds < FEEDS_MAX {
                    self.feed(stream)
                } else {
                    Err(io::Error::other("too many feeds"))
                };
                self.feeds.fetch_sub(1, Ordering::Relaxed);
                fed
            }
            QUESTION => self.question(stream),
            _ => Err(io::Error::other("neither records nor a question")),
        }
    }

    fn feed(&self, stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(LOOK))?;
        info!("feed connected");
        let mut stream = BufReader::with_capacity(1 << 18, stream);
        let mut head = [0; 12];
        while fill(&mut stream, &mut head, &self.stop)? {
            let (len, lost) = head.split_at(4);
            let len = u32::from_le_bytes(std::array::from_fn(|i| len[i])) as usize;
            self.shared.lose(u64::from_le_bytes(std::array::from_fn(|i| lost[i])));
            let records = len.checked_sub(8).filter(|n| *n <= RECORDS_MAX);
            let Some(records) = records.filter(|n| n.is_multiple_of(ArchivedFlow::OCTETS)) else {
                return Err(io::Error::other(format!("a frame of {len} octets")));
            };
            let mut frame = vec![0; records];
            if records > 0 && !fill(&mut stream, &mut frame, &self.stop)? {
                break;
            }
            // Waits for the disk: what comes meanwhile waits at weir, which drops and counts.
            if self.frames.send(frame).is_err() {
                break;
            }
        }
        info!("feed disconnected");
        Ok(())
    }

    fn question(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > QUESTION_MAX {
            // Whoever still writes when the answer comes would be told of a broken pipe instead.
            let rest = u64::try_from(len.min(DISCARDED_MAX)).unwrap_or(0);
            io::copy(&mut (&stream).take(rest), &mut io::sink())?;
            return reply(&mut stream, &refused("wrong", "the question is too long"));
        }
        let mut text = vec![0; len];
        stream.read_exact(&mut text)?;
        let query: FlowQuery = match serde_json::from_slice(&text) {
            Ok(query) => query,
            Err(error) => return reply(&mut stream, &refused("wrong", &error.to_string())),
        };
        stream.set_nonblocking(true)?;
        let asking = stream.try_clone()?;
        // Nothing more is said by who waits; an end means that nobody does.
        let gone =
            || matches!((&asking).read(&mut [0]), Ok(0)) || self.stop.load(Ordering::Relaxed);
        let outcome = self.in_turn(&query, &gone);
        stream.set_nonblocking(false)?;
        let body = match outcome {
            Ok(body) => body,
            Err(QueryError::Cancelled) => return Ok(()),
            Err(error) => {
                let kind = match &error {
                    QueryError::Filter(_) | QueryError::Wrong(_) => "wrong",
                    QueryError::Limit(_) => "limit",
                    QueryError::Busy(_) => "busy",
                    QueryError::Cancelled | QueryError::Io(_) => "failed",
                };
                refused(kind, &error.to_string())
            }
        };
        reply(&mut stream, &body)
    }

    /// Carries a question out when it is its turn.
    fn in_turn(
        &self,
        query: &FlowQuery,
        gone: &(dyn Fn() -> bool + Sync),
    ) -> Result<Vec<u8>, QueryError> {
        let began = Instant::now();
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if questions.0 >= QUESTIONS_MAX && questions.1 >= QUESTIONS_WAITING {
            return Err(QueryError::Busy("too many questions wait; ask again later"));
        }
        questions.1 += 1;
        while questions.0 >= QUESTIONS_MAX && began.elapsed() < self.limits.time && !gone() {
            let waited = self.ended.wait_timeout(questions, LOOK);
            questions = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        questions.1 -= 1;
        if questions.0 >= QUESTIONS_MAX {
            return Err(QueryError::Busy("other questions took all the time"));
        }
        questions.0 += 1;
        drop(questions);
        // Given back however the question ends.
        let _turn = Turn(self);
        // Waiting counts.
        let limits =
            Limits { time: self.limits.time.saturating_sub(began.elapsed()), ..self.limits };
        let answered = answer(&self.shared, query, limits, now_ms(), gone);
        answered.and_then(|answer| {
            serde_json::to_vec(&answer).map_err(|error| QueryError::Io(io::Error::other(error)))
        })
    }
}

/// A question's turn.
struct Turn<'a>(&'a Room);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.questions.lock().unwrap_or_else(PoisonError::into_inner).0 -= 1;
        self.0.ended.notify_one();
    }
}

fn refused(kind: &str, text: &str) -> Vec<u8> {
    serde_json::json!({"error": {"kind": kind, "text": text}}).to_string().into_bytes()
}

fn reply(stream: &mut UnixStream, body: &[u8]) -> io::Result<()> {
    let len = u32::try_from(body.len()).map_err(io::Error::other)?;
    stream.write_all(&len.to_le_bytes())?;
    stream.write_all(body)
}
