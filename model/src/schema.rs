//! JSON Schema of types whose derived one cannot name addresses: an address is a string on the wire.

use std::borrow::Cow;

use serde::Serialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::{Filter, IncidentId, Measure, Redirect};

/// One thing to have in force somewhere in the network.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its schema is used")]
#[expect(clippy::large_enum_variant, reason = "never made")]
enum MeasureShape {
    /// A FlowSpec rule.
    FlowSpec(Filter),
    /// A black-hole route for this prefix.
    Blackhole(String),
    /// Traffic of this prefix sent through a scrubbing service.
    Scrub(String),
    /// A route for this prefix to the peers that divert.
    Divert(String),
}

/// Where redirected packets go.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its schema is used")]
enum RedirectShape {
    /// The routing table with this route target.
    RouteTarget {
        /// AS.
        asn: u32,
        /// Value; at most 65535 where the AS is above 65535.
        value: u32,
    },
    /// The address of the next hop.
    NextHop(String),
    /// The address of the next hop that gets a copy.
    Copy(String),
}

macro_rules! stands_for {
    ($($shape:ty => $type:ident),*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                <$shape as PartialSchema>::schema()
            }
        }
        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }
            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                <$shape as ToSchema>::schemas(schemas);
            }
        }
    )*};
}

stands_for!(MeasureShape => Measure, RedirectShape => Redirect, String => IncidentId);
