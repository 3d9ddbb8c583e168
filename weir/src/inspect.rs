//! `weir inspect`: what is in these datagrams.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use serde_json::Value;
use weir_collector::Config;
use weir_collector::inspect::{Inspector, Line, protocol_of};
use weir_model::Millis;

use crate::capture::{Capture, Datagrams, format_of};

/// Octets of a file or of standard input that is taken as one datagram, at most: UDP's own limit.
const DATAGRAM_MAX: u64 = 65_535;

/// Octets of a capture on standard input, at most.
const STDIN_MAX: u64 = 1 << 30;

/// Ports on which exporters are commonly heard: what goes there is looked at although it does not
/// look like an export.
const PORTS: [u16; 6] = [2055, 2056, 4739, 6343, 9995, 9996];

/// Who sent a datagram that comes as a bare file (192.0.2.1, RFC 5737).
const BARE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 0);

/// What could not be looked at, for standard error: the findings go to standard output.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Files that were read in part only, and why.
    pub notes: Vec<String>,
    /// Files that could not be read, or not to their end, and why.
    pub failures: Vec<String>,
}

/// Reads captures, and files of one raw datagram each, in order; `-` is standard input. Writes a line
/// a finding and last the summary. A file that cannot be read is no reason to pass over the others.
///
/// # Errors
/// When the output is closed.
pub fn run(
    files: &[PathBuf],
    config: &Config,
    json: bool,
    oracle: bool,
    out: &mut dyn Write,
) -> io::Result<Outcome> {
    let mut reading = Reading { inspector: Inspector::new(config, oracle), bare: 0, json, out };
    let mut outcome = Outcome::default();
    for path in files {
        match reading.file(path)? {
            Ok(None) => {}
            Ok(Some(note)) => outcome.notes.push(format!("{}: {note}", path.display())),
            Err(error) => outcome.failures.push(format!("{}: {error:#}", path.display())),
        }
    }
    for line in reading.inspector.finish() {
        show(&line, json, reading.out)?;
    }
    Ok(outcome)
}

/// A run over several files.
struct Reading<'a> {
    inspector: Inspector,
    /// Bare datagrams so far.
    bare: u64,
    json: bool,
    out: &'a mut dyn Write,
}

/// What is to be said of a file that was read, or why it could not be.
type Said = anyhow::Result<Option<String>>;

impl Reading<'_> {
    /// Reads one file; the outer error is of the output.
    fn file(&mut self, path: &Path) -> io::Result<Said> {
        let (head, rest) = match open(path) {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error.into())),
        };
        let whole = Box::new(io::Cursor::new(head.clone()).chain(rest));
        if format_of(&head).is_some() { self.capture(whole) } else { self.bare(whole) }
    }

    fn capture(&mut self, input: Box<dyn Read>) -> io::Result<Said> {
        let mut capture = match Capture::read(input, 0) {
            Ok(capture) => capture,
            Err(error) => return Ok(Err(error)),
        };
        let mut datagrams = Datagrams::default();
        loop {
            let frame = match capture.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return Ok(Err(error)),
            };
            let Some(found) = datagrams.take(frame.link, &frame.data) else { continue };
            if protocol_of(found.payload).is_some() || PORTS.contains(&found.to.port()) {
                self.feed(found.from, found.payload, frame.at)?;
            }
        }
        let mut notes = Vec::new();
        if capture.cut_off() {
            notes.push("ends inside a packet, what stands before that was read".to_owned());
        }
        if datagrams.left() > 0 {
            let left = datagrams.left();
            notes.push(format!("{left} fragments passed over: their datagrams are not whole"));
        }
        Ok(Ok((!notes.is_empty()).then(|| notes.join("; "))))
    }

    fn bare(&mut self, input: Box<dyn Read>) -> io::Result<Said> {
        let mut payload = Vec::new();
        if let Err(error) = input.take(DATAGRAM_MAX + 1).read_to_end(&mut payload) {
            return Ok(Err(error.into()));
        }
        if payload.len() as u64 > DATAGRAM_MAX {
            return Ok(Err(anyhow!("no capture, and longer than a datagram can be")));
        }
        if payload.is_empty() {
            return Ok(Err(anyhow!("empty")));
        }
        // The time of its header; where that has none, a second apart, so that order shows.
        self.bare += 1;
        let at = sent_at(&payload).unwrap_or_else(|| Millis::from_secs(self.bare));
        self.feed(BARE, &payload, at)?;
        Ok(Ok(None))
    }

    fn feed(&mut self, from: SocketAddr, payload: &[u8], at: Millis) -> io::Result<()> {
        let mut outcome = Ok(());
        let (json, out) = (self.json, &mut *self.out);
        self.inspector.datagram(from, payload, at, |line| {
            if outcome.is_ok() {
                outcome = show(&line, json, out);
            }
        });
        outcome
    }
}

/// The exporter's time in a datagram's header; sFlow has none.
fn sent_at(payload: &[u8]) -> Option<Millis> {
    let at = match payload {
        [0, 1 | 5..=9, ..] => 8,
        [0, 10, ..] => 4,
        _ => return None,
    };
    let secs: [u8; 4] = payload.get(at..at + 4)?.try_into().ok()?;
    Some(Millis::from_secs(u32::from_be_bytes(secs).into())).filter(|at| *at > Millis(0))
}

/// The first octets of a file, and the rest of it.
fn open(path: &Path) -> io::Result<(Vec<u8>, Box<dyn Read>)> {
    let mut input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().take(STDIN_MAX))
    } else {
        Box::new(std::fs::File::open(path)?)
    };
    let mut head = Vec::new();
    input.by_ref().take(4).read_to_end(&mut head)?;
    Ok((head, input))
}

fn show(line: &Line, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, line)?;
        writeln!(out)?;
        return Ok(());
    }
    let Value::Object(mut fields) = serde_json::to_value(line)? else { return Ok(()) };
    let kind = fields.remove("kind");
    write!(out, "{}", kind.as_ref().and_then(Value::as_str).unwrap_or("line"))?;
    for (name, value) in fields {
        match value {
            Value::Null => {}
            Value::String(text) => write!(out, " {name}={text}")?,
            other => write!(out, " {name}={other}")?,
        }
    }
    writeln!(out)?;
    Ok(())
}
