//! Packets of a capture file, as classic pcap or pcapng.

mod fragments;
mod udp;

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{PcapError, TsResolution};
use weir_model::Millis;

pub use fragments::Datagrams;
pub use udp::{Datagram, datagram, is_fragment};

/// Link type of a capture file (tcpdump.org/linktypes.html).
pub type LinkType = u32;

/// One captured packet.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When it was captured.
    pub at: Millis,
    /// Link type of its interface.
    pub link: LinkType,
    /// Octets captured.
    pub data: Vec<u8>,
    /// Octets on the wire.
    pub wire_len: u32,
}

/// A capture file being read.
pub struct Capture {
    inner: Inner,
    size: u64,
    link: LinkType,
    resolution: TsResolution,
    interfaces: Vec<Interface>,
    cut_off: bool,
}

/// An interface of a pcapng section.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: LinkType,
    /// Units of a time stamp in a second.
    units_per_sec: u128,
}

impl Default for Interface {
    /// Ethernet, microseconds.
    fn default() -> Self {
        Self { link: 1, units_per_sec: 1_000_000 }
    }
}

impl Interface {
    fn new(block: &InterfaceDescriptionBlock<'_>) -> Self {
        let mut units_per_sec = Self::default().units_per_sec;
        for option in &block.options {
            // A power of ten, or of two when the highest bit is set; finer ones than any clock
            // has are a mistake of the file.
            if let InterfaceDescriptionOption::IfTsResol(resolution) = option {
                let exponent = u32::from((resolution & 0x7f).min(18));
                let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
                units_per_sec = base.pow(exponent);
            }
        }
        Self { link: u32::from(block.linktype), units_per_sec }
    }

    /// The time of a stamp. pcap-file hands it over as if its unit were a nanosecond, whatever it is.
    fn time(self, stamp: Duration) -> Millis {
        let ms = stamp.as_nanos() * 1000 / self.units_per_sec;
        Millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

enum Inner {
    Classic(PcapReader<Input>),
    Ng(PcapNgReader<Input>),
}

type Input = BufReader<Box<dyn Read>>;

/// Octets read at a time.
const BUFFER: usize = 1 << 20;

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Capture {
    /// Opens a file of either format.
    ///
    /// # Errors
    /// When it cannot be read or is no capture.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let file = File::open(path).with_context(|| format!("{name}"))?;
        let size = file.metadata().with_context(|| format!("{name}"))?.len();
        Self::read(Box::new(file), size).with_context(|| format!("{name}"))
    }

    /// Reads a capture of either format from anywhere; `size` is only told on.
    ///
    /// # Errors
    /// When it is no capture.
    pub fn read(input: Box<dyn Read>, size: u64) -> anyhow::Result<Self> {
        let mut reader = BufReader::with_capacity(BUFFER, input);
        let format = format_of(reader.fill_buf()?);
        let inner = match format {
            Some(Format::Ng) => Inner::Ng(PcapNgReader::new(reader).context("pcapng")?),
            Some(Format::Classic) => Inner::Classic(PcapReader::new(reader).context("pcap")?),
            None => bail!("no capture file"),
        };
        let (link, resolution) = match &inner {
            Inner::Classic(reader) => {
                let header = reader.header();
                // The upper half says how long the frames' check sequences are.
                (u32::from(header.datalink) & 0xffff, header.ts_resolution)
            }
            Inner::Ng(_) => (1, TsResolution::MicroSecond),
        };
        Ok(Self { inner, size, link, resolution, interfaces: Vec::new(), cut_off: false })
    }

    /// Size of the file, octets: what a progress bar counts to.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Whether the file ended inside a packet: it is still being written, was not copied whole, or
    /// a length in it is nonsense.
    pub const fn cut_off(&self) -> bool {
        self.cut_off
    }

    /// The next packet.
    ///
    /// # Errors
    /// When the file is damaged; a file cut off inside the last packet ends there without error:
    /// [`Capture::cut_off`] tells.
    pub fn next_frame(&mut self) -> anyhow::Result<Option<Frame>> {
        match &mut self.inner {
            // Raw packets: the checked reader refuses a capture whose packets were cut, for which
            // the length on the wire rightly exceeds the snapshot length.
            Inner::Classic(reader) => match reader.next_raw_packet() {
                None => Ok(None),
                Some(Err(error)) if ends_early(&error) => {
                    self.cut_off = true;
                    Ok(None)
                }
                Some(Err(error)) => bail!("damaged capture: {error}"),
                Some(Ok(packet)) => Ok(Some(Frame {
                    at: classic_time(self.resolution, packet.ts_sec, packet.ts_frac),
                    link: self.link,
                    wire_len: packet.orig_len,
                    data: packet.data.into_owned(),
                })),
            },
            Inner::Ng(reader) => loop {
                let block = match reader.next_block() {
                    None => return Ok(None),
                    Some(Err(error)) if ends_early(&error) => {
                        self.cut_off = true;
                        return Ok(None);
                    }
                    Some(Err(error)) => bail!("damaged capture: {error}"),
                    Some(Ok(block)) => block,
                };
                match block {
                    Block::InterfaceDescription(interface) => {
                        self.interfaces.push(Interface::new(&interface));
                    }
                    Block::SectionHeader(_) => self.interfaces.clear(),
                    Block::EnhancedPacket(packet) => {
                        let interface = usize::try_from(packet.interface_id).unwrap_or(usize::MAX);
                        let interface = self.interfaces.get(interface).copied().unwrap_or_default();
                        return Ok(Some(Frame {
                            at: interface.time(packet.timestamp),
                            link: interface.link,
                            wire_len: packet.original_len,
                            data: packet.data.into_owned(),
                        }));
                    }
                    _ => {}
                }
            },
        }
    }
}

/// Whether the reader found the end of the file where a packet should have gone on.
fn ends_early(error: &PcapError) -> bool {
    match error {
        PcapError::IncompleteBuffer => true,
        PcapError::IoError(error) => error.kind() == ErrorKind::UnexpectedEof,
        _ => false,
    }
}

/// The two formats of captures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// libpcap's first.
    Classic,
    /// pcapng.
    Ng,
}

/// The format that begins with these octets, if it is a capture.
pub fn format_of(head: &[u8]) -> Option<Format> {
    match head {
        // The section header block reads the same in both byte orders.
        [0x0a, 0x0d, 0x0d, 0x0a, ..] => Some(Format::Ng),
        // Microseconds and nanoseconds, both byte orders.
        [0xa1, 0xb2, 0xc3, 0xd4, ..]
        | [0xd4, 0xc3, 0xb2, 0xa1, ..]
        | [0xa1, 0xb2, 0x3c, 0x4d, ..]
        | [0x4d, 0x3c, 0xb2, 0xa1, ..] => Some(Format::Classic),
        _ => None,
    }
}

/// Time of a classic packet header; a fraction beyond its second is the file's mistake and kept.
fn classic_time(resolution: TsResolution, secs: u32, fraction: u32) -> Millis {
    let per_milli = match resolution {
        TsResolution::MicroSecond => 1000,
        TsResolution::NanoSecond => 1_000_000,
    };
    Millis::from_secs(u64::from(secs)) + u64::from(fraction / per_milli)
}
