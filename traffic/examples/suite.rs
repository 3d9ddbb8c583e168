//! Plays scenarios without sending anything and says how long each takes:
//! `cargo run --release -p weir-traffic --example suite [FEED] [ID]`.

use std::collections::VecDeque;
use std::io::{self, Write};

use weir_model::Millis;
use weir_traffic::suite::{self, Feed};

#[expect(clippy::disallowed_methods, reason = "an example that measures")]
fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let feed = args.next().and_then(|f| Feed::from_id(&f)).unwrap_or(Feed::Sflow1000);
    let only = args.next();
    let mut out = io::stdout().lock();
    for case in suite::cases() {
        if only.as_deref().is_some_and(|id| id != case.id) {
            continue;
        }
        let scene = case.scene(feed, 1);
        let start = std::time::Instant::now();
        let mut stream = scene.stream(Millis::from_secs(1_800_000_000));
        let mut datagrams = VecDeque::new();
        let (mut packets, mut count, mut octets) = (0, 0, 0);
        while stream.tick(&mut datagrams) {
            packets += stream.packets().len();
            count += datagrams.len();
            octets += datagrams.drain(..).map(|d| d.payload.len()).sum::<usize>();
        }
        let ms = start.elapsed().as_millis();
        let id = case.id;
        writeln!(
            out,
            "{id:14} {packets:>10} trains {count:>8} datagrams {octets:>11} octets {ms:>6} ms"
        )?;
    }
    Ok(())
}
