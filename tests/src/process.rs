//! A weir of its own folder, asked over its local socket.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// A running weir; ends with the value.
#[derive(Debug)]
pub struct Weir {
    child: Child,
    folder: tempfile::TempDir,
}

impl Weir {
    /// Starts one and waits until it answers. `more` is added to a configuration that protects
    /// 203.0.113.0/24 and keeps its state in the folder.
    ///
    /// # Panics
    /// With its log, when it does not answer within half a minute.
    pub fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::start_in(folder, more)
    }

    /// As [`Self::start`], in a folder that another one has left.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_in(folder: tempfile::TempDir, more: &str) -> Self {
        write_config(folder.path(), more);
        Self::start_on(folder)
    }

    /// As [`Self::start_in`], with the configuration that is there.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_on(folder: tempfile::TempDir) -> Self {
        Self::start_with(folder, &[])
    }

    /// Starts `weir run` with more arguments.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_with(folder: tempfile::TempDir, arguments: &[&str]) -> Self {
        let config = folder.path().join("weir.toml");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let child = Command::new(crate::weir_binary())
            .args(["run", "--config"])
            .arg(config)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("weir starts");
        let weir = Self { child, folder };
        weir.wait_for("an answer", |weir| weir.ask(&["mode"]).status.success().then_some(()));
        weir
    }

    /// Waits for something, looking ten times a second, half a minute at most.
    ///
    /// # Panics
    /// With the log, when it does not come.
    pub fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let (_keep, pause) = std::sync::mpsc::channel::<()>();
        for _ in 0..300 {
            if let Some(found) = look(self) {
                return found;
            }
            let _ = pause.recv_timeout(Duration::from_millis(100));
        }
        panic!("no {what}: {}", self.log());
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("weir.toml")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Most memory it ever held, KiB.
    ///
    /// # Panics
    /// When it has ended.
    pub fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("a peak");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Processor time that its threads have taken, by their names.
    ///
    /// # Panics
    /// When it has ended.
    pub fn thread_times(&self) -> BTreeMap<String, Duration> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let of = |task: std::io::Result<std::fs::DirEntry>| {
            // A thread may end while it is looked at.
            let path = task.ok()?.path();
            let name = std::fs::read_to_string(path.join("comm")).ok()?;
            let times = std::fs::read_to_string(path.join("schedstat")).ok()?;
            let nanos = times.split_whitespace().next()?.parse().ok()?;
            Some((name.trim().to_owned(), Duration::from_nanos(nanos)))
        };
        let mut times = BTreeMap::new();
        for (name, taken) in tasks.expect("it runs").filter_map(of) {
            *times.entry(name).or_default() += taken;
        }
        times
    }

    /// Runs a command that asks it over its socket.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        self.tell(arguments, "")
    }

    /// As [`Self::ask`], with something on standard input.
    ///
    /// # Panics
    /// When the command cannot be run.
    pub fn tell(&self, arguments: &[&str], input: &str) -> Output {
        let socket = self.folder.path().join("api.sock");
        let arguments = arguments.iter().map(std::ffi::OsStr::new);
        run(arguments.chain(["--socket".as_ref(), socket.as_os_str()]), input)
    }

    /// Runs a command that reads its configuration.
    ///
    /// # Panics
    /// When the command cannot be run.
    pub fn with_config(&self, arguments: &[&str]) -> Output {
        let config = self.config();
        let arguments = arguments.iter().map(std::ffi::OsStr::new);
        run(arguments.chain(["--config".as_ref(), config.as_os_str()]), "")
    }

    /// What a command answers with `--json`.
    ///
    /// # Panics
    /// When that is no JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let out = self.ask(&all);
        serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {out:?}"))
    }

    /// Sends it a signal by its name without SIG.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, name: &str) {
        let (id, name) = (self.child.id().to_string(), format!("-{name}"));
        let asked = Command::new("kill").args([&name, &id]).status().expect("kill starts");
        assert!(asked.success());
    }

    /// Asks the API over the local socket, as a script on the machine would.
    ///
    /// # Panics
    /// When the answer is no JSON.
    pub fn api(&self, method: &str, path: &str, version: u64, body: &str) -> Value {
        let socket = self.folder().join("api.sock");
        let out = Command::new("curl")
            .args(["-s", "-X", method, "--unix-socket"])
            .arg(socket)
            .args(["-H", "content-type: application/json"])
            .args(["-H", &format!("if-match: \"{version}\"")])
            .args(["-d", body, &format!("http://localhost/api/v1/{path}")])
            .output()
            .expect("curl starts");
        serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{out:?}"))
    }

    /// Asks it to stop, as a service manager would, and waits for its end.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn stop(mut self) {
        self.signal("TERM");
        self.child.wait().expect("our own child");
    }

    /// Kills it, as a failing machine would; what it kept stays.
    pub fn kill(mut self) -> tempfile::TempDir {
        self.end();
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"))
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        self.end();
    }
}

/// Writes the configuration that [`Weir::start`] uses.
///
/// # Panics
/// When it cannot be written.
pub fn write_config(folder: &Path, more: &str) -> PathBuf {
    let path = folder.join("weir.toml");
    // An archive of this machine is not for tests.
    let flows = if more.contains("[flows]") { "" } else { "[flows]\nsocket = \"\"\n" };
    let text = format!(
        "{flows}[protect]\nprefixes = [\"203.0.113.0/24\"]\n[collector]\nlisten = [\"127.0.0.1:0\"]\n\
         [api]\nlisten = \"127.0.0.1:0\"\nsocket = {:?}\n[store]\npath = {:?}\n{more}",
        folder.join("api.sock"),
        folder.join("state.db")
    );
    std::fs::write(&path, text).expect("a configuration");
    path
}

/// Standard output as text.
pub fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn run<'a>(arguments: impl Iterator<Item = &'a std::ffi::OsStr>, input: &str) -> Output {
    let mut child = Command::new(crate::weir_binary())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weir starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that reads nothing may have ended.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// A running `weir-flows`. Ends with the value.
#[derive(Debug)]
pub struct Archive(Child);

impl Archive {
    /// Starts one with its archive and its socket (`flows.sock`) in a folder.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(folder: &Path) -> Self {
        let child = Command::new(crate::flows_binary())
            .args(["run", "--free-gb", "0", "--archive"])
            .arg(folder.join("archive"))
            .arg("--socket")
            .arg(folder.join("flows.sock"))
            .stderr(Stdio::null())
            .spawn()
            .expect("weir-flows starts");
        Self(child)
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
