//! Bodies of the Application API -> listings. What a panel's owner typed is hostile input.
//!
//! `container.environment` holds passwords and tokens. Of it only pairs survive whose name speaks
//! of a port and whose value is a port number; of start commands only the program. The rest is
//! dropped while it is read and appears in no error.

mod lenient;

use std::net::IpAddr;

use serde::Deserialize;

use crate::listing::{Allocation, Egg, Node, Server, ServerState, User};
use lenient::{environment, number, optional_number, text, texts};

/// Longest name kept, characters; the panels' own limit is 191.
pub const NAME_MAX: usize = 191;
/// Most allocations of one server.
pub const SERVER_ALLOCATIONS_MAX: usize = 10_000;

/// Why a body cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A web page, not an answer of the API.
    #[error("a web page came instead of data")]
    Html,
    /// Not JSON, or not of this shape; the position, never the content.
    #[error("not the expected shape (line {line}, column {column})")]
    Shape {
        /// Line of the body.
        line: usize,
        /// Column of the body.
        column: usize,
    },
    /// A part came back empty because the key may not read it.
    #[error("the key may not read {0}")]
    Forbidden(&'static str),
    /// A part is missing for another reason.
    #[error("{0} are missing from the answer")]
    Missing(&'static str),
    /// More than weir takes.
    #[error("a server has more than {SERVER_ALLOCATIONS_MAX} allocations")]
    TooMany,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Rows, in the order of the page.
    pub rows: Vec<T>,
    /// How many rows the panel says there are in all.
    pub total: usize,
    /// How many pages the panel says there are, at least 1.
    pub pages: usize,
    /// Rows left out because they were unusable, such as a port of 0.
    pub skipped: u64,
}

#[derive(Deserialize)]
struct List<T> {
    data: Vec<Object<T>>,
    #[serde(default = "Option::default")]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    pagination: Option<Pagination>,
}

#[derive(Deserialize)]
struct Pagination {
    #[serde(deserialize_with = "number")]
    total: u64,
    #[serde(default, deserialize_with = "number")]
    total_pages: u64,
}

#[derive(Deserialize)]
struct Object<T> {
    attributes: T,
}

#[derive(Deserialize)]
struct Relation<T> {
    #[serde(default, deserialize_with = "text")]
    object: String,
    #[serde(default = "Option::default")]
    data: Option<Vec<Object<T>>>,
}

#[derive(Deserialize)]
struct NodeAttributes {
    #[serde(deserialize_with = "number")]
    id: u64,
    #[serde(default, deserialize_with = "text")]
    name: String,
    #[serde(default, deserialize_with = "text")]
    fqdn: String,
    #[serde(default, deserialize_with = "optional_number")]
    daemon_listen: Option<u64>,
    #[serde(default, deserialize_with = "optional_number")]
    daemon_sftp: Option<u64>,
    #[serde(default, deserialize_with = "optional_number")]
    daemon_connect: Option<u64>,
    #[serde(default, deserialize_with = "optional_number")]
    behind_proxy: Option<u64>,
}

#[derive(Deserialize)]
struct NestAttributes {
    #[serde(default, deserialize_with = "text")]
    name: String,
    relationships: NestRelations,
}

#[derive(Deserialize)]
struct NestRelations {
    eggs: Relation<EggAttributes>,
}

#[derive(Deserialize)]
struct EggAttributes {
    #[serde(deserialize_with = "number")]
    id: u64,
    #[serde(default, deserialize_with = "text")]
    uuid: String,
    #[serde(default, deserialize_with = "text")]
    name: String,
    #[serde(default, deserialize_with = "texts")]
    features: Vec<String>,
    #[serde(default, deserialize_with = "texts")]
    tags: Vec<String>,
    #[serde(default, deserialize_with = "text")]
    startup: String,
    #[serde(default, deserialize_with = "text")]
    docker_image: String,
}

#[derive(Deserialize)]
struct UserAttributes {
    #[serde(deserialize_with = "number")]
    id: u64,
    #[serde(default, deserialize_with = "text")]
    username: String,
    #[serde(default, deserialize_with = "text")]
    email: String,
}

#[derive(Deserialize)]
struct ServerAttributes {
    #[serde(deserialize_with = "number")]
    id: u64,
    #[serde(deserialize_with = "text")]
    uuid: String,
    #[serde(default, deserialize_with = "text")]
    name: String,
    #[serde(default, deserialize_with = "text")]
    status: String,
    #[serde(default, deserialize_with = "optional_number")]
    suspended: Option<u64>,
    #[serde(deserialize_with = "number")]
    node: u64,
    #[serde(default, deserialize_with = "optional_number")]
    user: Option<u64>,
    #[serde(default, deserialize_with = "optional_number")]
    egg: Option<u64>,
    #[serde(default, deserialize_with = "optional_number")]
    allocation: Option<u64>,
    #[serde(default = "Option::default")]
    container: Option<Container>,
    #[serde(default = "Option::default")]
    relationships: Option<ServerRelations>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default, deserialize_with = "text")]
    startup_command: String,
    #[serde(default, deserialize_with = "text")]
    image: String,
    #[serde(default, deserialize_with = "environment")]
    environment: Vec<(String, u16)>,
}

#[derive(Deserialize)]
struct ServerRelations {
    #[serde(default = "Option::default")]
    allocations: Option<Relation<AllocationAttributes>>,
    #[serde(default = "Option::default")]
    subusers: Option<Relation<SubuserAttributes>>,
}

#[derive(Deserialize)]
struct AllocationAttributes {
    #[serde(deserialize_with = "number")]
    id: u64,
    #[serde(default, deserialize_with = "text")]
    ip: String,
    #[serde(default, deserialize_with = "text")]
    alias: String,
    #[serde(deserialize_with = "number")]
    port: u64,
}

#[derive(Deserialize)]
struct SubuserAttributes {
    #[serde(default, deserialize_with = "optional_number")]
    user_id: Option<u64>,
}

/// Reads `/nodes`.
///
/// # Errors
/// See [`ParseError`].
pub fn nodes(body: &[u8]) -> Result<Page<Node>, ParseError> {
    page(body, |a: NodeAttributes, _| {
        Ok(Node {
            id: a.id,
            name: clean(&a.name),
            fqdn: clean(&a.fqdn),
            daemon_listen: port_of(a.daemon_listen).unwrap_or(8080),
            daemon_sftp: port_of(a.daemon_sftp).unwrap_or(2022),
            daemon_connect: port_of(a.daemon_connect),
            behind_proxy: a.behind_proxy.unwrap_or(0) != 0,
        })
    })
}

/// Reads `/servers?include=allocations`, with or without `subusers`.
///
/// # Errors
/// See [`ParseError`].
pub fn servers(body: &[u8]) -> Result<Page<Server>, ParseError> {
    page(body, server)
}

/// Reads `/users`; of an address of e-mail nothing is kept.
///
/// # Errors
/// See [`ParseError`].
pub fn users(body: &[u8]) -> Result<Page<User>, ParseError> {
    page(body, |a: UserAttributes, _| Ok(User { id: a.id, name: clean(&a.username) }))
}

/// The number of the user with exactly this e-mail address, out of a filtered `/users`: the panel's
/// filter also finds addresses that only contain it.
///
/// # Errors
/// See [`ParseError`].
pub fn user_with_email(body: &[u8], email: &str) -> Result<Option<u64>, ParseError> {
    let list: List<UserAttributes> = read(body)?;
    let wanted = email.trim().to_lowercase();
    Ok(list
        .data
        .into_iter()
        .find(|o| !wanted.is_empty() && o.attributes.email.trim().to_lowercase() == wanted)
        .map(|o| o.attributes.id))
}

/// Reads Pterodactyl's `/nests?include=eggs`.
///
/// # Errors
/// See [`ParseError`].
pub fn nests(body: &[u8]) -> Result<Page<Vec<Egg>>, ParseError> {
    page(body, |nest: NestAttributes, _| {
        let name = clean(&nest.name);
        let eggs = rows(Some(nest.relationships.eggs), "eggs")?;
        Ok(eggs.into_iter().map(|e| egg(e, Some(name.clone()))).collect())
    })
}

/// Reads Pelican's `/eggs`, which has no pages.
///
/// # Errors
/// See [`ParseError`].
pub fn eggs(body: &[u8]) -> Result<Vec<Egg>, ParseError> {
    let list: List<EggAttributes> = read(body)?;
    Ok(list.data.into_iter().map(|o| egg(o.attributes, None)).collect())
}

/// The panel's own words in an error answer, cleaned: `This action is unauthorized.`
pub fn error_detail(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Detail>,
    }
    #[derive(Deserialize)]
    struct Detail {
        #[serde(default, deserialize_with = "text")]
        detail: String,
    }
    let errors: Errors = serde_json::from_slice(body).ok()?;
    errors.errors.first().map(|e| clean(&e.detail)).filter(|d| !d.is_empty())
}

/// Text without characters that steer a terminal or turn the direction of writing, and no longer
/// than [`NAME_MAX`].
pub fn clean(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.trim().chars().filter(|c| !steers(*c)).take(NAME_MAX).collect()
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ParseError> {
    let first = body.iter().find(|b| !b.is_ascii_whitespace());
    if first == Some(&b'<') {
        return Err(ParseError::Html);
    }
    // The text of serde's errors can quote values, and a value can be a secret: only the position.
    serde_json::from_slice(body)
        .map_err(|e| ParseError::Shape { line: e.line(), column: e.column() })
}

fn page<A: for<'de> Deserialize<'de>, T>(
    body: &[u8],
    convert: impl Fn(A, &mut u64) -> Result<T, ParseError>,
) -> Result<Page<T>, ParseError> {
    let list: List<A> = read(body)?;
    let pagination =
        list.meta.and_then(|m| m.pagination).ok_or(ParseError::Missing("page numbers"))?;
    let mut skipped = 0;
    let rows = list
        .data
        .into_iter()
        .map(|o| convert(o.attributes, &mut skipped))
        .collect::<Result<_, _>>()?;
    Ok(Page {
        rows,
        total: usize::try_from(pagination.total).unwrap_or(usize::MAX),
        pages: usize::try_from(pagination.total_pages.max(1)).unwrap_or(usize::MAX),
        skipped,
    })
}

/// A relation that the key may not read is there, but empty: that must not look like "none".
fn rows<T>(relation: Option<Relation<T>>, what: &'static str) -> Result<Vec<T>, ParseError> {
    let relation = relation.ok_or(ParseError::Missing(what))?;
    if relation.object == "null_resource" {
        return Err(ParseError::Forbidden(what));
    }
    let data = relation.data.ok_or(ParseError::Missing(what))?;
    Ok(data.into_iter().map(|o| o.attributes).collect())
}

fn server(a: ServerAttributes, skipped: &mut u64) -> Result<Server, ParseError> {
    let relations = a.relationships.ok_or(ParseError::Missing("allocations"))?;
    let listed = rows(relations.allocations, "allocations")?;
    if listed.len() > SERVER_ALLOCATIONS_MAX {
        return Err(ParseError::TooMany);
    }
    let before = listed.len();
    let mut allocations: Vec<Allocation> = listed.into_iter().filter_map(allocation).collect();
    *skipped += (before - allocations.len()) as u64;
    allocations.sort_by_key(|a| a.id);
    allocations.dedup_by_key(|a| a.id);
    let subusers = match relations.subusers {
        None => Vec::new(),
        Some(relation) => rows(Some(relation), "users")?
            .into_iter()
            .filter_map(|s| s.user_id)
            .take(1000)
            .collect(),
    };
    let container = a.container.unwrap_or(Container {
        startup_command: String::new(),
        image: String::new(),
        environment: Vec::new(),
    });
    Ok(Server {
        id: a.id,
        uuid: clean(&a.uuid),
        name: clean(&a.name),
        state: state(&a.status, a.suspended.unwrap_or(0) != 0),
        node: a.node,
        owner: a.user.unwrap_or(0),
        subusers,
        egg: a.egg.unwrap_or(0),
        primary: a.allocation,
        program: program(&container.startup_command),
        image_tag: image_tag(&container.image),
        port_variables: container.environment,
        allocations,
    })
}

fn allocation(a: AllocationAttributes) -> Option<Allocation> {
    Some(Allocation {
        id: a.id,
        ip: a.ip.trim().parse::<IpAddr>().ok().map(|ip| ip.to_canonical()),
        alias: Some(clean(&a.alias)).filter(|alias| !alias.is_empty()),
        port: port_of(Some(a.port))?,
        held: false,
    })
}

fn egg(a: EggAttributes, nest: Option<String>) -> Egg {
    Egg {
        id: a.id,
        uuid: clean(&a.uuid),
        name: clean(&a.name),
        nest,
        features: a.features.iter().take(32).map(|f| clean(f)).collect(),
        tags: a.tags.iter().take(32).map(|t| clean(t)).collect(),
        program: program(&a.startup),
        image_tag: image_tag(&a.docker_image),
    }
}

fn state(status: &str, suspended: bool) -> ServerState {
    match status {
        "suspended" => ServerState::Suspended,
        "installing" | "install_failed" | "reinstall_failed" => ServerState::Installing,
        "restoring_backup" => ServerState::Restoring,
        // Older panels say it in the second field only.
        _ if suspended => ServerState::Suspended,
        "" => ServerState::Normal,
        _ => ServerState::Other,
    }
}

fn port_of(number: Option<u64>) -> Option<u16> {
    number.and_then(|n| u16::try_from(n).ok()).filter(|port| *port > 0)
}

/// The program of a start command: arguments may hold passwords typed by hand.
fn program(command: &str) -> String {
    let word = command
        .split_whitespace()
        .find(|w| !w.contains('=') && !w.contains(['{', '}', '$', '"', '\'', '(', ';']))
        .unwrap_or_default();
    clean(word.rsplit('/').next().unwrap_or_default()).chars().take(64).collect()
}

fn image_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or_default();
    let tag = name.split_once(':').map_or(name, |(_, tag)| tag);
    clean(tag).chars().take(64).collect()
}

#[cfg(test)]
mod tests;
