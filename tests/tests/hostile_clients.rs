//! Strangers that open connections and say nothing, as many as they can: BGP comes back and the command
//! line answers all the same, because each kind of connection has its own share of the descriptors; and who
//! comes late to a listener that they have filled is served.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use serde_json::Value;
use weir::demo::{ROUTER_ASN, Router};
use weir_bgp::receiver::Event;
use weir_tests::process::write_config;
use weir_tests::weir_binary;

/// Descriptors that weir may have: with these, and without shares, the strangers below take all of them.
const LIMIT: usize = 640;

/// Connections that the strangers hold at each of two ports, and how many addresses they have.
#[derive(Clone, Copy)]
struct Crowd {
    held: usize,
    addresses: u8,
}

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(40);

/// A connection from one of many addresses of this machine.
fn call(number: usize, addresses: u8, to: SocketAddr) -> Option<TcpStream> {
    let SocketAddr::V4(to) = to else { panic!("IPv4 here") };
    let from =
        Ipv4Addr::new(127, 0, 77, 1 + u8::try_from(number % usize::from(addresses)).unwrap());
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0))).unwrap();
    connect(fd.as_raw_fd(), &SockaddrIn::from(to)).ok()?;
    Some(TcpStream::from(fd))
}

/// Opens connections without end and keeps the newest, so that those weir has closed are replaced.
struct Strangers {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Strangers {
    fn at(to: SocketAddr, crowd: Crowd) -> Self {
        let (stop, stopped) = channel::<()>();
        let (full, is_full) = channel();
        let thread = std::thread::spawn(move || press(to, crowd, &stopped, &full));
        is_full.recv_timeout(PATIENCE).expect("the strangers are there");
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.thread.take().unwrap().join();
    }
}

fn press(to: SocketAddr, crowd: Crowd, stopped: &Receiver<()>, full: &Sender<()>) {
    let mut held = VecDeque::new();
    for number in 0.. {
        if let Some(mut stream) = call(number, crowd.addresses, to) {
            // Half of them begin to say something.
            if number % 2 == 0 {
                let _ = stream.write_all(b"GET / HT");
            }
            held.push_back(stream);
        }
        if held.len() > crowd.held {
            held.pop_front();
            let _ = full.send(());
        }
        // One after the other, so that the machine has time for others.
        if !matches!(stopped.recv_timeout(Duration::from_micros(500)), Err(error) if error == std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            return;
        }
    }
}

/// Carries one BGP session to the router, and cuts it when asked.
struct Wire {
    port: u16,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(router: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let known = Arc::clone(&open);
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let other = TcpStream::connect((Ipv4Addr::LOCALHOST, router)).unwrap();
                let pairs = [(&stream, &other), (&other, &stream)];
                for (from, to) in pairs {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                known.lock().unwrap().extend([stream, other]);
            }
        });
        Self { port, open }
    }

    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

struct Weir(Child);

impl Drop for Weir {
    fn drop(&mut self) {
        // Also when the test fails: nothing outlives it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first line of the log with this message.
fn logged(log: &std::path::Path, message: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    let (_keep, pause) = channel::<()>();
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(line) = lines.find(|line| line["message"] == message) {
            return line;
        }
        assert!(Instant::now() < deadline, "no {message:?}: {text}");
        let _ = pause.recv_timeout(Duration::from_millis(50));
    }
}

fn wait_for(router: &Router, what: &str, wanted: impl Fn(&Event) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !router.next(Duration::from_millis(100)).is_some_and(|event| wanted(&event)) {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
    }
}

/// A user who may not use the local socket is told so at once, and holds none of its places.
fn turned_away(socket: &std::path::Path) {
    let folder = socket.parent().unwrap();
    // Where nobody can run it, and reach the socket.
    let program = folder.join("weir");
    std::fs::copy(weir_binary(), &program).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder, open).unwrap();
    let nobody = |arguments: &[&std::ffi::OsStr]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(arguments);
        command.output().unwrap()
    };
    // Only root can become somebody else.
    if nobody(&["true".as_ref()]).status.success() {
        let asked = nobody(&[
            program.as_os_str(),
            "mode".as_ref(),
            "--socket".as_ref(),
            socket.as_os_str(),
        ]);
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        assert!(!asked.status.success() && said.contains("for the group weir"), "{asked:?}");
    }
}

/// What an address of its own hears at the API, and how long that took.
fn newcomer(to: SocketAddr, number: u8) -> (String, Duration) {
    let began = Instant::now();
    let mut stream = call(usize::from(100 + number), 250, to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = String::new();
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let _ = asked.and_then(|()| stream.read_to_string(&mut heard).map(drop));
    (heard, began.elapsed())
}

/// A weir beside a router to which it has a session, and strangers at its two ports; what is asked of it
/// meanwhile, and its log.
fn beside(crowd: Crowd, limits: &str, ask: impl FnOnce(&std::path::Path, SocketAddr)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let router = Router::start().unwrap();
    let wire = Wire::to(router.port);
    let config = write_config(
        folder.path(),
        &format!(
            "[log]\nformat = \"json\"\n[agents]\nlisten = \"127.0.0.1:0\"\n[bgp]\nlocal_as = 65010\n\
             router_id = \"10.0.0.1\"\n[[bgp.peer]]\nname = \"border\"\naddress = \"127.0.0.1\"\n\
             port = {}\nremote_as = {ROUTER_ASN}\nconnect_retry_secs = 1\n",
            wire.port
        ),
    );
    let log = folder.path().join("log");
    let child = Command::new("prlimit")
        .arg(limits)
        .arg(weir_binary())
        .args(["run", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let _weir = Weir(child);
    let api: SocketAddr = logged(&log, "ready")["api"].as_str().unwrap().parse().unwrap();
    let agents = logged(&log, "awaiting agents")["address"].as_str().unwrap().parse().unwrap();
    wait_for(&router, "the first session", |event| matches!(event, Event::Up { .. }));

    let _at_both = (Strangers::at(api, crowd), Strangers::at(agents, crowd));
    wire.cut();
    wait_for(&router, "the end of the session", |event| matches!(event, Event::Down(_)));
    wait_for(&router, "the session again", |event| matches!(event, Event::Up { .. }));
    ask(folder.path(), api);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("could not be accepted"), "descriptors ran out: {text}");
    text
}

fn tell(folder: &std::path::Path, arguments: &[&str]) -> std::process::Output {
    let socket = folder.join("api.sock");
    Command::new(weir_binary()).args(arguments).arg("--socket").arg(socket).output().unwrap()
}

#[test]
fn strangers_cost_neither_bgp_nor_the_command_line() {
    let limits = format!("--nofile=256:{LIMIT}");
    beside(Crowd { held: 400, addresses: 50 }, &limits, |folder, _| {
        let socket = folder.join("api.sock");
        // Those who may use the socket and forget to hang up leave places for root.
        let idle: Vec<UnixStream> =
            (0..40).map(|_| UnixStream::connect(&socket).unwrap()).collect();
        let mode = tell(folder, &["mode", "observe"]);
        assert!(mode.status.success(), "{mode:?}");
        let peers = tell(folder, &["bgp", "--json"]);
        assert!(String::from_utf8_lossy(&peers.stdout).contains("established"), "{peers:?}");
        drop(idle);
        turned_away(&socket);
    });
}

#[test]
fn who_comes_late_is_served_beside_thousands_of_idle_connections() {
    let limit = setrlimit_to_the_most();
    // Four addresses could hold every place of the API; fifty hold more than there are places anywhere.
    for crowd in [Crowd { held: 1500, addresses: 4 }, Crowd { held: 5000, addresses: 50 }] {
        let both = 2 * u64::try_from(crowd.held).unwrap() + 500;
        assert!(limit > both, "this test needs {both} descriptors: ulimit -Hn");
        beside(crowd, &format!("--nofile={limit}:{limit}"), |folder, api| {
            for number in 0..5 {
                let (heard, took) = newcomer(api, number);
                assert!(heard.starts_with("HTTP/1.1 200"), "after {took:?}: {heard:?}");
                assert!(took < Duration::from_secs(5), "{took:?}");
            }
            let mode = tell(folder, &["mode", "observe"]);
            assert!(mode.status.success(), "{mode:?}");
        });
    }
}

/// This process holds the strangers' ends.
fn setrlimit_to_the_most() -> u64 {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    most
}
