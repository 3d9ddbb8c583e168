//! A running weir-flows, what it is fed, and how it is asked.

#![allow(clippy::unwrap_used, dead_code, reason = "a test may panic; each uses its own part")]

pub(crate) mod traffic;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_model::{ArchivedFlow, FlowAnswer, FlowQuery, QUESTION, RECORDS};

pub(crate) use traffic::{Chance, EPOCH, flow};

/// A process with a folder of its own.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) socket: PathBuf,
}

impl Process {
    /// Starts it over an archive, and waits until it listens.
    pub(crate) fn start(dir: &Path, options: &[&str]) -> Self {
        let program = env!("CARGO_BIN_EXE_weir-flows").to_owned();
        Self::of(Command::new(program), dir, &dir.join("archive"), options)
    }

    /// Starts it by a command that ends in the program's name.
    pub(crate) fn of(mut command: Command, dir: &Path, archive: &Path, options: &[&str]) -> Self {
        let socket = dir.join("flows.sock");
        let child = command
            .args(["run", "--free-gb", "0", "--archive"])
            .arg(archive)
            .arg("--socket")
            .arg(&socket)
            .args(options)
            .stderr(Stdio::from(std::fs::File::create(dir.join("log.txt")).unwrap()))
            .spawn()
            .unwrap();
        let process = Self { child, socket };
        wait(|| UnixStream::connect(&process.socket).is_ok(), "it does not listen");
        process
    }

    pub(crate) fn feed(&self) -> Feed {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(&[RECORDS]).unwrap();
        Feed(stream)
    }

    /// Asks, and takes the answer or the error.
    pub(crate) fn ask(&self, query: &FlowQuery) -> Result<FlowAnswer, Value> {
        let value = self.raw(serde_json::to_vec(query).unwrap().as_slice());
        match value.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(serde_json::from_value(value).unwrap()),
        }
    }

    pub(crate) fn raw(&self, question: &[u8]) -> Value {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(&[QUESTION]).unwrap();
        stream.write_all(&u32::try_from(question.len()).unwrap().to_le_bytes()).unwrap();
        stream.write_all(question).unwrap();
        let mut len = [0; 4];
        stream.read_exact(&mut len).unwrap();
        let mut body = vec![0; u32::from_le_bytes(len) as usize];
        stream.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// Records in the archive.
    pub(crate) fn count(&self) -> u64 {
        self.ask(&all()).unwrap().total.records
    }

    /// Ends it as the kernel would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as the service manager would: everything is sealed.
    pub(crate) fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    /// Most memory that it had, octets.
    pub(crate) fn memory_max(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything there is.
pub(crate) fn all() -> FlowQuery {
    FlowQuery { from: Some(0), to: Some(u64::MAX / 2), ..FlowQuery::default() }
}

/// What brings records.
pub(crate) struct Feed(UnixStream);

impl Feed {
    pub(crate) fn send(&mut self, flows: &[ArchivedFlow]) -> std::io::Result<()> {
        let mut frame = Vec::new();
        let len = u32::try_from(8 + flows.len() * ArchivedFlow::OCTETS).unwrap();
        frame.extend(len.to_le_bytes());
        frame.extend(0_u64.to_le_bytes());
        flows.iter().for_each(|flow| flow.put(&mut frame));
        self.0.write_all(&frame)
    }
}

/// Waits until something is so.
pub(crate) fn wait(mut is: impl FnMut() -> bool, what: &str) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
