//! `weir inspect`: what is in these datagrams.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;
use weir_collector::Config;
use weir_collector::inspect::{Inspector, Line, protocol_of};
use weir_model::Millis;

use crate::capture::{Capture, datagram, format_of};

/// Octets of a file or of standard input that is taken as one datagram, at most: UDP's own limit.
const DATAGRAM_MAX: u64 = 65_535;

/// Octets of a capture on standard input, at most.
const STDIN_MAX: u64 = 1 << 30;

/// Ports on which exporters are commonly heard: what goes there is looked at although it does not
/// look like an export.
const PORTS: [u16; 6] = [2055, 2056, 4739, 6343, 9995, 9996];

/// Who sent a datagram that comes as a bare file (192.0.2.1, RFC 5737).
const BARE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 0);

/// Reads captures, and files of one raw datagram each, in order; `-` is standard input. Writes a line
/// a finding and last the summary.
///
/// # Errors
/// When a file cannot be read, or the output is closed.
pub fn run(
    files: &[PathBuf],
    config: &Config,
    json: bool,
    oracle: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut inspector = Inspector::new(config, oracle);
    let mut number = 0;
    for path in files {
        let (head, rest) = open(path).with_context(|| format!("{}", path.display()))?;
        let whole = std::io::Cursor::new(head.clone()).chain(rest);
        if format_of(&head).is_some() {
            let mut capture =
                Capture::read(Box::new(whole), 0).with_context(|| format!("{}", path.display()))?;
            while let Some(frame) = capture.next_frame()? {
                let Some(found) = datagram(frame.link, &frame.data) else { continue };
                if protocol_of(found.payload).is_some() || PORTS.contains(&found.to.port()) {
                    feed(&mut inspector, found.from, found.payload, frame.at, json, out)?;
                }
            }
        } else {
            let mut payload = Vec::new();
            whole.take(DATAGRAM_MAX).read_to_end(&mut payload)?;
            // A bare datagram has no time of its own: a second apart, so that order shows.
            number += 1;
            feed(&mut inspector, BARE, &payload, Millis::from_secs(number), json, out)?;
        }
    }
    for line in inspector.finish() {
        show(&line, json, out)?;
    }
    Ok(())
}

/// The first octets of a file, and the rest of it.
fn open(path: &Path) -> std::io::Result<(Vec<u8>, Box<dyn Read>)> {
    let mut input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().take(STDIN_MAX))
    } else {
        Box::new(std::fs::File::open(path)?)
    };
    let mut head = Vec::new();
    input.by_ref().take(4).read_to_end(&mut head)?;
    Ok((head, input))
}

fn feed(
    inspector: &mut Inspector,
    from: SocketAddr,
    payload: &[u8],
    at: Millis,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    inspector.datagram(from, payload, at, |line| {
        if outcome.is_ok() {
            outcome = show(&line, json, out);
        }
    });
    outcome
}

fn show(line: &Line, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
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
