//! What the load benchmarks share: programs that end with their value, a weir that is fed over loopback,
//! processor time, figures.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where collectors take flows, and where weir's API listens: a namespace of its own has them free.
pub const PORTS: (u16, u16) = (2055, 2080);

/// A program that ends with the value.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets time pass.
pub fn wait(time: Duration) {
    // Nobody unparks this thread: a pause without a clock of its own.
    std::thread::park_timeout(time);
}

/// A program of this build, beside the one that runs.
///
/// # Errors
/// When the system does not say where that is.
pub fn tool(name: &str) -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().unwrap_or_else(|| Path::new(".")).join(name))
}

/// Asks weir's API, without waiting for its answer.
///
/// # Errors
/// When it does not listen.
pub fn connect(path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", PORTS.1))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// What weir's API answers, head and body.
///
/// # Errors
/// When it does not listen, or answers no text.
pub fn get(path: &str) -> io::Result<String> {
    let mut text = String::new();
    connect(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// A weir with its files in `folder` that protects `prefix` and listens to everybody on loopback, once it is
/// ready.
///
/// # Errors
/// When it cannot be started, or is not ready within a minute.
pub fn weir(folder: &Path, prefix: &str) -> io::Result<Running> {
    let config = format!(
        "[protect]\nprefixes = [\"{prefix}\"]\n[collector]\nlisten = [\"127.0.0.1:{}\"]\n\
         receive_buffer_bytes = 16777216\n[[collector.exporters]]\naddress = \"127.0.0.0/8\"\n\
         [api]\nlisten = \"127.0.0.1:{}\"\nloopback_readonly = true\nsocket = \"\"\n\
         [store]\npath = {:?}\n[log]\nlevel = \"warn\"\n",
        PORTS.0,
        PORTS.1,
        folder.join("state.db")
    );
    let path = folder.join("weir.toml");
    std::fs::write(&path, config)?;
    let log = std::fs::File::create(folder.join("weir.log"))?;
    let mut command = Command::new(tool("weir")?);
    command.args(["run", "--config"]).arg(path).stdin(Stdio::null()).stdout(log.try_clone()?);
    let running = Running(command.stderr(log).spawn()?);
    let end = Instant::now() + Duration::from_secs(60);
    while get("/readyz").map_or(true, |text| !text.contains(" 200 ")) {
        if Instant::now() > end {
            return Err(io::Error::other("weir does not answer"));
        }
        wait(Duration::from_millis(100));
    }
    Ok(running)
}

/// Processor time of a process's threads whose names begin with `threads` (all, when it is empty), seconds.
pub fn cpu_secs(pid: u32, threads: &str) -> f64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    let read =
        |path: &Path, file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
    let nanos: f64 = tasks
        .flatten()
        .map(|task| task.path())
        .filter(|path| read(path, "comm").starts_with(threads))
        .filter_map(|path| read(&path, "schedstat").split_whitespace().next()?.parse::<f64>().ok())
        .sum();
    nanos / 1e9
}

/// Prints one figure: name, value, unit, bar.
///
/// # Errors
/// When standard output is gone.
pub fn figure(name: &str, value: f64, unit: &str, bar: &str) -> io::Result<()> {
    let digits = if value.abs() < 100.0 { 3 } else { 0 };
    writeln!(io::stdout(), "{name} {value:.digits$} {unit} {bar}")
}
