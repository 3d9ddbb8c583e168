//! Packets of a capture file, as classic pcap or pcapng.

mod udp;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use pcap_file::TsResolution;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use weir_model::Millis;

pub use udp::{Datagram, datagram};

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
    interfaces: Vec<LinkType>,
}

enum Inner {
    Classic(PcapReader<BufReader<File>>),
    Ng(PcapNgReader<BufReader<File>>),
}

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
        let mut file = File::open(path).with_context(|| format!("{name}"))?;
        let size = file.metadata().with_context(|| format!("{name}"))?.len();
        let mut magic = [0_u8; 4];
        file.read_exact(&mut magic).with_context(|| format!("{name}: no capture file"))?;
        file.seek(SeekFrom::Start(0))?;
        let reader = BufReader::with_capacity(1 << 20, file);
        // The section header block of pcapng reads the same in both byte orders.
        let inner = if magic == [0x0a, 0x0d, 0x0d, 0x0a] {
            Inner::Ng(PcapNgReader::new(reader).with_context(|| format!("{name}: pcapng"))?)
        } else {
            Inner::Classic(PcapReader::new(reader).with_context(|| format!("{name}: pcap"))?)
        };
        let (link, resolution) = match &inner {
            Inner::Classic(reader) => {
                let header = reader.header();
                (u32::from(header.datalink), header.ts_resolution)
            }
            Inner::Ng(_) => (1, TsResolution::MicroSecond),
        };
        Ok(Self { inner, size, link, resolution, interfaces: Vec::new() })
    }

    /// Size of the file, octets: what a progress bar counts to.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The next packet.
    ///
    /// # Errors
    /// When the file is damaged; a file cut off inside the last packet ends there without error.
    pub fn next_frame(&mut self) -> anyhow::Result<Option<Frame>> {
        match &mut self.inner {
            // Raw packets: the checked reader refuses a capture whose packets were cut, for which
            // the length on the wire rightly exceeds the snapshot length.
            Inner::Classic(reader) => match reader.next_raw_packet() {
                None | Some(Err(pcap_file::PcapError::IncompleteBuffer)) => Ok(None),
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
                    None | Some(Err(pcap_file::PcapError::IncompleteBuffer)) => return Ok(None),
                    Some(Err(error)) => bail!("damaged capture: {error}"),
                    Some(Ok(block)) => block,
                };
                match block {
                    Block::InterfaceDescription(interface) => {
                        self.interfaces.push(u32::from(interface.linktype));
                    }
                    Block::SectionHeader(_) => self.interfaces.clear(),
                    Block::EnhancedPacket(packet) => {
                        let interface = usize::try_from(packet.interface_id).unwrap_or(usize::MAX);
                        return Ok(Some(Frame {
                            at: millis(packet.timestamp),
                            link: self.interfaces.get(interface).copied().unwrap_or(1),
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

/// Time of a classic packet header; a fraction beyond its second is the file's mistake and kept.
fn classic_time(resolution: TsResolution, secs: u32, fraction: u32) -> Millis {
    let per_milli = match resolution {
        TsResolution::MicroSecond => 1000,
        TsResolution::NanoSecond => 1_000_000,
    };
    Millis::from_secs(u64::from(secs)) + u64::from(fraction / per_milli)
}

fn millis(timestamp: Duration) -> Millis {
    Millis(u64::try_from(timestamp.as_millis()).unwrap_or(u64::MAX))
}
