//! What other parsers make of a datagram, for comparison. No type of theirs leaves this module.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use netflow_parser::NetflowParser;
use serde::Serialize;
use serde_json::Value;
use weir_model::FlowProtocol;

use super::protocol_of;
use crate::read::{be16, be32};

/// Exporters' observation domains for which netflow_parser keeps templates at most.
const MAX_PARSERS: usize = 256;

/// Another parser's reading of one datagram.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reading {
    /// Which parser: `netflow_parser` or `sflow-parser`.
    pub parser: &'static str,
    /// What it read, in its own words.
    pub value: Value,
    /// What it complained of.
    pub error: Option<String>,
}

/// The other parsers, with their templates.
#[derive(Debug, Default)]
pub struct Oracle {
    /// By exporter, version and observation domain: netflow_parser itself has one table of templates
    /// for all domains.
    netflow: HashMap<(IpAddr, u16, u32), NetflowParser>,
}

impl Oracle {
    /// Has the parser for the protocol read a datagram.
    pub fn read(&mut self, from: SocketAddr, payload: &[u8]) -> Reading {
        if protocol_of(payload) == Some(FlowProtocol::Sflow) {
            return sflow(payload);
        }
        let version = be16(payload, 0).unwrap_or(0);
        let domain = match version {
            9 => be32(payload, 16),
            10 => be32(payload, 12),
            _ => None,
        };
        let key = (from.ip(), version, domain.unwrap_or(0));
        if self.netflow.len() >= MAX_PARSERS && !self.netflow.contains_key(&key) {
            self.netflow.clear();
        }
        let parser = self.netflow.entry(key).or_default();
        let result = parser.parse_bytes(payload);
        Reading {
            parser: "netflow_parser",
            value: serde_json::to_value(&result.packets).unwrap_or_default(),
            error: result.error.map(|error| format!("{error:?}")),
        }
    }
}

fn sflow(payload: &[u8]) -> Reading {
    let (value, error) = match parse(payload) {
        Ok(value) => (value, None),
        Err(error) => (Value::Null, Some(error)),
    };
    Reading { parser: "sflow-parser", value, error }
}

fn parse(payload: &[u8]) -> Result<Value, String> {
    let datagram = sflow_parser::parse_datagram(payload).map_err(|error| format!("{error:?}"))?;
    serde_json::to_value(datagram).map_err(|error| error.to_string())
}
