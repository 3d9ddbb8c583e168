//! GoBGP's messages, as far as weir uses them (`api/gobgp.proto`; the numbers are the same in
//! versions 3 and 4). Fields that weir has no use for are left out: protobuf skips them.

use prost::Message;

/// An address family by its codes.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Family {
    #[prost(int32, tag = "1")]
    pub(super) afi: i32,
    #[prost(int32, tag = "2")]
    pub(super) safi: i32,
}

/// A route: NLRI and attributes as they are on the wire.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Path {
    #[prost(bool, tag = "5")]
    pub(super) is_withdraw: bool,
    #[prost(message, optional, tag = "9")]
    pub(super) family: Option<Family>,
    /// Who announced it; of GoBGP's own routes `<nil>` in version 3 and empty or unspecified in 4.
    #[prost(string, tag = "15")]
    pub(super) neighbor_ip: String,
    #[prost(bytes = "vec", tag = "20")]
    pub(super) nlri_binary: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "21")]
    pub(super) pattrs_binary: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct AddPathRequest {
    #[prost(int32, tag = "1")]
    pub(super) table_type: i32,
    #[prost(message, optional, tag = "3")]
    pub(super) path: Option<Path>,
}

/// Without a path it would delete everything of the family: see [`super::deletion`].
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct DeletePathRequest {
    #[prost(int32, tag = "1")]
    pub(super) table_type: i32,
    #[prost(message, optional, tag = "3")]
    pub(super) family: Option<Family>,
    #[prost(message, optional, tag = "4")]
    pub(super) path: Option<Path>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ListPathRequest {
    #[prost(int32, tag = "1")]
    pub(super) table_type: i32,
    #[prost(message, optional, tag = "3")]
    pub(super) family: Option<Family>,
    #[prost(bool, tag = "7")]
    pub(super) enable_nlri_binary: bool,
    #[prost(bool, tag = "8")]
    pub(super) enable_attribute_binary: bool,
    /// Leave out the decoded forms; versions that do not know the field send them too.
    #[prost(bool, tag = "9")]
    pub(super) enable_only_binary: bool,
}

/// All routes of one NLRI.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Destination {
    #[prost(message, repeated, tag = "2")]
    pub(super) paths: Vec<Path>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ListPathResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) destination: Option<Destination>,
}

/// A message without fields, or one whose fields are not looked at.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Nothing {}
