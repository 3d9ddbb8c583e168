//! NetFlow v9 (RFC 3954) and IPFIX (RFC 7011): templates, options that announce the sampling, data.

use weir_model::Fragment;

use crate::encode::{Flow, Put, low32};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// NetFlow version 9.
    V9,
    /// IPFIX, version 10.
    Ipfix,
}

/// How an exporter announces its sampling rate: routers differ, and collectors trip over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplingStyle {
    /// Not at all.
    None,
    /// One rate for the observation domain: IE 34 and 35.
    Domain,
    /// A table of samplers, IE 48, 49, 50; each record names its sampler.
    Sampler,
    /// A table of selectors with "n out of N", IE 302, 304, 309, 310; each record names its
    /// selector (IPFIX only; v9 exporters of this style use the same elements).
    Selector,
}

/// What the message header and the templates need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which protocol.
    pub version: Version,
    /// When the datagram is sent, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// When the router started, milliseconds since the Unix epoch.
    pub boot_ms: u64,
    /// v9: datagrams sent before; IPFIX: data records sent before.
    pub sequence: u32,
    /// Source id or observation domain.
    pub domain: u32,
    /// One in how many packets is looked at.
    pub sampling: u32,
    /// How that is announced.
    pub style: SamplingStyle,
    /// Whether records tell the shortest and longest packet and time to live: many do not.
    pub extremes: bool,
}

/// Template of IPv4 flows.
const TEMPLATE_V4: u16 = 256;
/// Template of IPv6 flows.
const TEMPLATE_V6: u16 = 257;
/// Options template that carries the sampling.
const TEMPLATE_SAMPLING: u16 = 512;
/// The one sampler's number.
const SAMPLER: u8 = 1;

/// Fields after the addresses: information element and length. v9 has uptime stamps and 4-octet
/// counters, IPFIX absolute stamps and 8-octet counters.
const FIELDS_V9: &[(u16, u16)] = &[
    (2, 4),
    (1, 4),
    (22, 4),
    (21, 4),
    (7, 2),
    (11, 2),
    (4, 1),
    (6, 1),
    (5, 1),
    (61, 1),
    (10, 4),
    (14, 4),
    (25, 2),
    (26, 2),
    (52, 1),
    (53, 1),
    (32, 2),
    (88, 2),
    (89, 1),
];
const FIELDS_IPFIX: &[(u16, u16)] = &[
    (2, 8),
    (1, 8),
    (152, 8),
    (153, 8),
    (7, 2),
    (11, 2),
    (4, 1),
    (6, 2),
    (5, 1),
    (61, 1),
    (10, 4),
    (14, 4),
    (25, 2),
    (26, 2),
    (52, 1),
    (53, 1),
    (32, 2),
    (88, 2),
    (89, 1),
];

/// Where in an IPv4 data record of IPFIX its start (IE 152) stands, followed by its end (IE 153):
/// after two addresses and two counters.
pub const IPFIX_TIMES_AT: usize = 24;

/// Octets of an IPv4 data record of IPFIX that names no sampler.
pub const IPFIX_RECORD_LEN_V4: usize = 68;

/// The shortest and longest packet and time to live.
const EXTREMES: [u16; 4] = [25, 26, 52, 53];

impl Header {
    fn fields(&self) -> impl Iterator<Item = (u16, u16)> {
        let all = match self.version {
            Version::V9 => FIELDS_V9,
            Version::Ipfix => FIELDS_IPFIX,
        };
        let extremes = self.extremes;
        all.iter().copied().filter(move |(element, _)| extremes || !EXTREMES.contains(element))
    }

    /// The element by which a record names its sampler, if it does.
    const fn sampler_field(&self) -> Option<(u16, u16)> {
        match self.style {
            SamplingStyle::None | SamplingStyle::Domain => None,
            SamplingStyle::Sampler => Some((48, 1)),
            SamplingStyle::Selector => Some((302, 1)),
        }
    }

    /// Octets of one data record.
    pub fn record_len(&self, ipv4: bool) -> usize {
        let addresses = if ipv4 { 8 } else { 32 };
        let fields: usize = self.fields().map(|(_, len)| usize::from(len)).sum();
        addresses + fields + self.sampler_field().map_or(0, |(_, len)| usize::from(len))
    }

    /// Octets of the message header.
    const fn message_len(&self) -> usize {
        match self.version {
            Version::V9 => 20,
            Version::Ipfix => 16,
        }
    }
}

/// Which part of the datagram to write besides the flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The data templates.
    pub templates: bool,
    /// The options template and the sampling record.
    pub sampling: bool,
}

/// One datagram; the caller keeps the flows few enough for the path's MTU. Returns the octets and
/// by how much the sequence number rises.
pub fn datagram(header: &Header, contents: Contents, flows: &[Flow]) -> (Vec<u8>, u32) {
    let mut out = Vec::with_capacity(1500);
    message_header(&mut out, header);
    // v9 counts records of every kind, templates included (RFC 3954 §5.1).
    let mut all_records = 0;
    let mut data_records = 0;
    if contents.templates {
        all_records += templates(&mut out, header);
    }
    if contents.sampling && header.style != SamplingStyle::None {
        all_records += 2;
        data_records += 1;
        options(&mut out, header);
    }
    for (ipv4, template) in [(true, TEMPLATE_V4), (false, TEMPLATE_V6)] {
        let of_family = || flows.iter().filter(|f| f.src.is_ipv4() == ipv4);
        if of_family().next().is_none() {
            continue;
        }
        let set = set_start(&mut out, template);
        for flow in of_family() {
            record(&mut out, header, flow);
            all_records += 1;
            data_records += 1;
        }
        set_end(&mut out, set);
    }
    match header.version {
        Version::V9 => {
            out.patch16(2, all_records);
            (out, 1)
        }
        Version::Ipfix => {
            let len = out.len();
            out.patch16(2, len);
            (out, data_records)
        }
    }
}

fn message_header(out: &mut Vec<u8>, header: &Header) {
    match header.version {
        Version::V9 => {
            out.put16(9);
            out.put16(0);
            out.put32(low32(header.now_ms.saturating_sub(header.boot_ms)));
        }
        Version::Ipfix => {
            out.put16(10);
            out.put16(0);
        }
    }
    out.put32(low32(header.now_ms / 1000));
    out.put32(header.sequence);
    out.put32(header.domain);
    debug_assert_eq!(out.len(), header.message_len());
}

fn set_start(out: &mut Vec<u8>, id: u16) -> usize {
    let at = out.len();
    out.put16(id);
    out.put16(0);
    at
}

/// Pads the set to a multiple of four octets and writes its length.
fn set_end(out: &mut Vec<u8>, at: usize) {
    let len = (out.len() - at).next_multiple_of(4);
    out.resize(at + len, 0);
    out.patch16(at + 2, len);
}

/// Both data templates in one set; returns how many.
fn templates(out: &mut Vec<u8>, header: &Header) -> usize {
    let set = set_start(out, if header.version == Version::V9 { 0 } else { 2 });
    for (id, addresses) in
        [(TEMPLATE_V4, [(8, 4), (12, 4)]), (TEMPLATE_V6, [(27u16, 16u16), (28, 16)])]
    {
        let sampler = header.sampler_field();
        out.put16(id);
        let count = out.len();
        out.put16(0);
        let mut fields = 0;
        for (element, len) in addresses.into_iter().chain(header.fields()).chain(sampler) {
            // ICMPv6 has a type and code element of its own (RFC 7012, IE 139).
            let element = if element == 32 && id == TEMPLATE_V6 { 139 } else { element };
            out.put16(element);
            out.put16(len);
            fields += 1;
        }
        out.patch16(count, fields);
    }
    set_end(out, set);
    2
}

/// The sampling options' fields after the scope.
const fn option_fields(style: SamplingStyle) -> &'static [(u16, u16)] {
    match style {
        SamplingStyle::None => &[],
        SamplingStyle::Domain => &[(34, 4), (35, 1)],
        SamplingStyle::Sampler => &[(48, 1), (49, 1), (50, 4)],
        SamplingStyle::Selector => &[(302, 1), (304, 2), (309, 4), (310, 4)],
    }
}

fn options(out: &mut Vec<u8>, header: &Header) {
    let fields = option_fields(header.style);
    match header.version {
        Version::V9 => {
            let set = set_start(out, 1);
            out.put16(TEMPLATE_SAMPLING);
            out.put16(4); // scope octets
            out.put16(u16::try_from(fields.len() * 4).unwrap_or(0));
            out.put16(1); // scope: system
            out.put16(4);
            for (element, len) in fields {
                out.put16(*element);
                out.put16(*len);
            }
            set_end(out, set);
        }
        Version::Ipfix => {
            let set = set_start(out, 3);
            out.put16(TEMPLATE_SAMPLING);
            out.put16(u16::try_from(fields.len() + 1).unwrap_or(0));
            out.put16(1); // scope fields
            out.put16(149); // observationDomainId
            out.put16(4);
            for (element, len) in fields {
                out.put16(*element);
                out.put16(*len);
            }
            set_end(out, set);
        }
    }
    let set = set_start(out, TEMPLATE_SAMPLING);
    out.put32(if header.version == Version::V9 { 0 } else { header.domain });
    match header.style {
        SamplingStyle::None => {}
        SamplingStyle::Domain => {
            out.put32(header.sampling);
            out.put8(2); // random
        }
        SamplingStyle::Sampler => {
            out.put8(SAMPLER);
            out.put8(2); // random
            out.put32(header.sampling);
        }
        SamplingStyle::Selector => {
            out.put8(SAMPLER);
            out.put16(3); // random n-out-of-N
            out.put32(1);
            out.put32(header.sampling);
        }
    }
    set_end(out, set);
}

fn record(out: &mut Vec<u8>, header: &Header, flow: &Flow) {
    out.put_ip(flow.src);
    out.put_ip(flow.dst);
    match header.version {
        Version::V9 => {
            out.put32(u32::try_from(flow.packets).unwrap_or(u32::MAX));
            out.put32(u32::try_from(flow.bytes).unwrap_or(u32::MAX));
            out.put32(low32(flow.first_ms.saturating_sub(header.boot_ms)));
            out.put32(low32(flow.last_ms.saturating_sub(header.boot_ms)));
        }
        Version::Ipfix => {
            out.put64(flow.packets);
            out.put64(flow.bytes);
            out.put64(flow.first_ms);
            out.put64(flow.last_ms);
        }
    }
    out.put16(flow.src_port);
    out.put16(flow.dst_port_field());
    out.put8(flow.protocol);
    if header.version == Version::Ipfix {
        out.put8(0); // IE 6 has two octets in IPFIX
    }
    out.put8(flow.tcp_flags);
    out.put8(0); // type of service
    out.put8(0); // ingress
    out.put32(flow.input_if);
    out.put32(flow.output_if);
    if header.extremes {
        out.put16(flow.length_min);
        out.put16(flow.length_max);
        out.put8(flow.ttl_min);
        out.put8(flow.ttl_max);
    }
    out.put16(flow.icmp_as_port());
    out.put16(if flow.fragment == Fragment::Later { 185 } else { 0 });
    out.put8(64); // forwarded, unknown reason (RFC 7270 §4.12)
    if header.sampler_field().is_some() {
        out.put8(SAMPLER);
    }
}
