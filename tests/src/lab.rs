//! A laboratory: one network namespace, the daemons in it, a folder for their files.
//!
//! Everything ends with the laboratory: processes are killed by pid, the namespace and the folder are
//! removed. Waiting is always for a condition with a deadline.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::skip;

/// What the attacked address of a laboratory runs, for weir's configuration.
pub const LOBBY: &str = r#"
[[protect.service]]
address = "10.10.10.10"
port = 25565
protocol = "tcp"
name = "lobby"
game = "Minecraft"
"#;

/// A ladder that begins at 1 Mbit/s, because attacks are played at the speed of a test machine.
pub const LADDER: &str = r#"
[[mitigator.ladder]]
rung = "rate-limit"
above_bits_per_sec = 1000000
hold_secs = 1
[[mitigator.ladder]]
rung = "drop"
above_bits_per_sec = 2000000
hold_secs = 1
"#;

/// A GoBGP at 127.0.0.2, AS 65020, for a weir at 127.0.0.1, AS 65010: it takes black holes.
pub const GOBGP: &str = r#"
[global.config]
  as = 65020
  router-id = "10.0.0.20"
  port = 1790
  local-address-list = ["127.0.0.2"]
[[neighbors]]
  [neighbors.config]
    neighbor-address = "127.0.0.1"
    peer-as = 65010
  [neighbors.transport.config]
    passive-mode = true
    local-address = "127.0.0.2"
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv4-unicast"
"#;

/// After [`GOBGP`]: it takes rules, too.
pub const GOBGP_RULES: &str = r#"
  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = "ipv4-flowspec"
"#;

/// A BIRD at 127.0.0.3, AS 65030, for the same weir: it takes black holes and rules.
pub const BIRD: &str = r"
log stderr all;
router id 10.0.0.30;
ipv4 table master4;
flow4 table flowtab4;
protocol device { }
protocol bgp weir {
  local 127.0.0.3 port 1790 as 65030;
  neighbor 127.0.0.1 as 65010;
  multihop;
  passive yes;
  strict bind yes;
  ipv4 { import all; export none; };
  flow4 { table flowtab4; import all; export none; };
}
";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A process of the laboratory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid(usize);

/// A second namespace of a laboratory: another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side(String);

impl Side {
    /// Its name, as `ip netns` knows it.
    pub fn namespace(&self) -> &str {
        &self.0
    }
}

/// One namespace and what runs in it.
#[derive(Debug)]
pub struct Lab {
    test: String,
    namespace: String,
    folder: tempfile::TempDir,
    children: Vec<(String, Child)>,
    sides: Vec<Side>,
}

impl Lab {
    /// Makes a namespace with loopback up. `None`, with a skip by name, when not root or when a program
    /// is not installed.
    ///
    /// # Panics
    /// When the namespace cannot be made although everything is there.
    pub fn new(test: &str, programs: &[&str]) -> Option<Self> {
        if !is_root() {
            skip(test, "network namespaces need root");
            return None;
        }
        let absent: Vec<&str> =
            programs.iter().filter(|p| find_program(p).is_none()).copied().collect();
        if !absent.is_empty() {
            skip(test, &format!("not installed: {}", absent.join(", ")));
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("weir-{}-{number}", std::process::id());
        let folder = tempfile::tempdir().expect("a temporary folder");
        checked(Command::new("ip").args(["netns", "add", &namespace]));
        let lab = Self {
            test: test.to_owned(),
            namespace,
            folder,
            children: Vec::new(),
            sides: Vec::new(),
        };
        lab.run(&["ip", "link", "set", "lo", "up"]);
        Some(lab)
    }

    /// The namespace's name, as `ip netns` knows it.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Makes another namespace beside the first.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn side(&mut self, name: &str) -> Side {
        let side = Side(format!("{}-{name}", self.namespace));
        checked(Command::new("ip").args(["netns", "add", &side.0]));
        self.sides.push(side.clone());
        side
    }

    /// As [`Self::run`], in another namespace.
    ///
    /// # Panics
    /// When it fails.
    pub fn run_in(&self, side: &Side, command: &[&str]) -> String {
        checked(&mut self.command_in(&side.0, command))
    }

    /// As [`Self::spawn`], in another namespace.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn_in(&mut self, side: &Side, name: &str, command: &[&str]) -> Pid {
        let command = self.command_in(&side.0, command);
        self.start(name, command)
    }

    /// A path in the laboratory's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the laboratory's folder.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the laboratory's folder is writable");
        path
    }

    /// Runs a program in the namespace and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, command: &[&str]) -> String {
        checked(&mut self.command(command))
    }

    /// Runs a program in the namespace; its standard output whether it succeeds or not.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn ask(&self, command: &[&str]) -> String {
        let out = self.command(command).output().expect("the program starts");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Starts a daemon in the namespace; its output goes to `<name>.log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&mut self, name: &str, command: &[&str]) -> Pid {
        let command = self.command(command);
        self.start(name, command)
    }

    fn start(&mut self, name: &str, mut command: Command) -> Pid {
        let log = File::create(self.path(&format!("{name}.log"))).expect("a log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the program starts");
        self.children.push((name.to_owned(), child));
        Pid(self.children.len() - 1)
    }

    /// The log of a daemon so far.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Sends a signal, such as `TERM`, to a daemon.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, pid: Pid, signal: &str) {
        let id = self.children[pid.0].1.id().to_string();
        checked(Command::new("kill").args([&format!("-{signal}"), &id]));
    }

    /// Has a daemon end in its own way, and waits for that.
    ///
    /// # Panics
    /// When there is none of that name, or it does not end within ten seconds.
    pub fn end(&mut self, name: &str) {
        let index = self.children.iter().position(|(own, _)| own == name);
        let pid = Pid(index.expect("a daemon of the laboratory"));
        self.signal(pid, "TERM");
        self.wait_for_end(pid, 10);
    }

    /// The process number of a daemon.
    pub fn process_id(&self, pid: Pid) -> u32 {
        self.children[pid.0].1.id()
    }

    /// Kills a daemon with SIGKILL and waits for its end.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self, pid: Pid) {
        let child = &mut self.children[pid.0].1;
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }

    /// Waits for a daemon's own end; its exit code.
    ///
    /// # Panics
    /// When it has not ended after `secs` seconds.
    pub fn wait_for_end(&mut self, pid: Pid, secs: u64) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(secs);
        loop {
            let child = &mut self.children[pid.0].1;
            if let Some(status) = child.try_wait().expect("our own child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "{} still runs", self.children[pid.0].0);
            pause(Duration::from_millis(20));
        }
    }

    /// Waits until `condition` yields something.
    ///
    /// # Panics
    /// When it has not after `secs` seconds; shows the end of every log.
    pub fn wait_for<T>(
        &self,
        what: &str,
        secs: u64,
        mut condition: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + Duration::from_secs(secs);
        loop {
            if let Some(found) = condition(self) {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "{}: {what}: not within {secs} s\n{}",
                self.test,
                self.logs()
            );
            pause(Duration::from_millis(50));
        }
    }

    /// The last lines of every log, for a failure message.
    pub fn logs(&self) -> String {
        self.children
            .iter()
            .map(|(name, _)| {
                let log = self.log(name);
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(25)..].join("\n");
                format!("--- {name}\n{tail}\n")
            })
            .collect()
    }

    fn command(&self, command: &[&str]) -> Command {
        self.command_in(&self.namespace, command)
    }

    fn command_in(&self, namespace: &str, command: &[&str]) -> Command {
        let mut all = Command::new("ip");
        all.args(["netns", "exec", namespace]).args(command);
        all.current_dir(self.folder.path());
        all
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        let sides = self.sides.iter().map(Side::namespace);
        for namespace in sides.chain([self.namespace.as_str()]) {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// Waits without a busy loop; only ever between two looks at a condition with a deadline.
fn pause(time: Duration) {
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|out| String::from_utf8_lossy(&out.stdout).trim() == "0")
}

/// Where a program is installed; daemons hide in `sbin`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/lib/frr"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path: &PathBuf| Path::new(path).is_file())
}

fn checked(command: &mut Command) -> String {
    let out = command.output().expect("the program starts");
    assert!(
        out.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}
