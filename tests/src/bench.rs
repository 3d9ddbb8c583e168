//! What the load benchmarks share: programs that end with their value, their processor time, figures.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

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
