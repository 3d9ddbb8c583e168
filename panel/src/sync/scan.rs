//! One pass: the lists as far as they have come.

use std::collections::BTreeMap;

use weir_model::Millis;

use super::{ALLOCATIONS_MAX, Failure, NODES_MAX, SERVERS_MAX, USERS_MAX};
use crate::listing::{Egg, Flavour, Listing, Node, Server, User};
use crate::parse::{self, Page, ParseError};

/// What is asked next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Servers { page: u32 },
    Nodes { page: u32 },
    Eggs { page: u32 },
    Users { page: u32 },
}

/// How a list goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Page(u32),
    Again,
    Done,
}

impl Step {
    pub(super) const fn at(self, page: u32) -> Self {
        match self {
            Self::Servers { .. } => Self::Servers { page },
            Self::Nodes { .. } => Self::Nodes { page },
            Self::Eggs { .. } => Self::Eggs { page },
            Self::Users { .. } => Self::Users { page },
        }
    }

    /// There is no default order in a panel's lists: without `sort` pages overlap at random.
    pub(super) fn path(self, flavour: Flavour, size: u32, owners: bool) -> String {
        match self {
            Self::Servers { page } => {
                let include = if owners { "allocations,subusers" } else { "allocations" };
                format!(
                    "/api/application/servers?include={include}&sort=id&per_page={size}&page={page}"
                )
            }
            Self::Nodes { page } => {
                format!("/api/application/nodes?sort=id&per_page=500&page={page}")
            }
            Self::Eggs { page } => match flavour {
                Flavour::Pterodactyl => {
                    format!("/api/application/nests?include=eggs&per_page=100&page={page}")
                }
                Flavour::Pelican => "/api/application/eggs".to_owned(),
            },
            Self::Users { page } => {
                format!("/api/application/users?sort=id&per_page=500&page={page}")
            }
        }
    }
}

/// Rows by number, so that a row seen twice counts once.
#[derive(Debug)]
struct Rows<T> {
    rows: BTreeMap<u64, T>,
    total: Option<usize>,
    duplicates: u64,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), total: None, duplicates: 0 }
    }
}

impl<T> Rows<T> {
    fn restart(&mut self) {
        self.rows.clear();
        self.total = None;
    }

    fn take(
        &mut self,
        page: Page<T>,
        number: u32,
        max: usize,
        what: &'static str,
        id: impl Fn(&T) -> u64,
    ) -> Result<Next, Failure> {
        if page.total > max || self.rows.len() + page.rows.len() > max + 1 {
            return Err(Failure::TooMany(what));
        }
        if self.total.is_some_and(|total| total != page.total) {
            self.restart();
            return Ok(Next::Again);
        }
        self.total = Some(page.total);
        let empty = page.rows.is_empty();
        for row in page.rows {
            if self.rows.insert(id(&row), row).is_some() {
                self.duplicates += 1;
            }
        }
        let last = u32::try_from(page.pages).unwrap_or(u32::MAX);
        if !empty && number < last {
            return Ok(Next::Page(number + 1));
        }
        if self.rows.len() == page.total {
            return Ok(Next::Done);
        }
        self.restart();
        Ok(Next::Again)
    }
}

/// One pass.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) started: Millis,
    pub(super) requests: u32,
    pub(super) restarts: u32,
    pub(super) throttled: u32,
    /// Whether the other flavour was already tried in this pass.
    pub(super) turned: bool,
    pub(super) eggs_done: bool,
    pub(super) skipped: u64,
    allocations: usize,
    servers_complete: bool,
    servers: Rows<Server>,
    nodes: Rows<Node>,
    nests: Rows<(u64, Vec<Egg>)>,
    eggs: Vec<Egg>,
    users: Rows<User>,
}

impl Scan {
    pub(super) fn begin(now: Millis) -> Self {
        Self { started: now, ..Self::default() }
    }

    pub(super) const fn duplicates(&self) -> u64 {
        self.servers.duplicates + self.nodes.duplicates + self.users.duplicates
    }

    pub(super) const fn servers_done(&self) -> bool {
        self.servers_complete
    }

    pub(super) fn restart_servers(&mut self) {
        self.servers.restart();
        self.allocations = 0;
        self.servers_complete = false;
    }

    /// Takes one body.
    pub(super) fn take(
        &mut self,
        step: Step,
        flavour: Flavour,
        body: &[u8],
    ) -> Result<Next, Failure> {
        let next = match step {
            Step::Servers { page } => {
                let list = parse::servers(body).map_err(failure)?;
                self.skipped += list.skipped;
                self.allocations += list.rows.iter().map(|s| s.allocations.len()).sum::<usize>();
                if self.allocations > ALLOCATIONS_MAX {
                    return Err(Failure::TooMany("allocations"));
                }
                let next = self.servers.take(list, page, SERVERS_MAX, "servers", |s| s.id)?;
                if next == Next::Again {
                    self.allocations = 0;
                }
                self.servers_complete = next == Next::Done;
                next
            }
            Step::Nodes { page } => {
                let list = parse::nodes(body).map_err(failure)?;
                self.nodes.take(list, page, NODES_MAX, "nodes", |n| n.id)?
            }
            Step::Eggs { page } => self.take_eggs_page(page, flavour, body)?,
            Step::Users { page } => {
                let list = parse::users(body).map_err(failure)?;
                self.users.take(list, page, USERS_MAX, "users", |u| u.id)?
            }
        };
        Ok(next)
    }

    fn take_eggs_page(
        &mut self,
        page: u32,
        flavour: Flavour,
        body: &[u8],
    ) -> Result<Next, Failure> {
        let next = match flavour {
            Flavour::Pelican => {
                self.eggs = parse::eggs(body).map_err(failure)?;
                Next::Done
            }
            Flavour::Pterodactyl => {
                let list = parse::nests(body).map_err(failure)?;
                // Nests are told apart by their place in the list: their eggs carry the numbers.
                let first = u64::from(page) << 32;
                let rows = (first..).zip(list.rows).collect();
                let list =
                    Page { rows, total: list.total, pages: list.pages, skipped: list.skipped };
                let next = self.nests.take(list, page, NODES_MAX, "nests", |n| n.0)?;
                if next == Next::Done {
                    let nests = std::mem::take(&mut self.nests.rows);
                    self.eggs = nests.into_values().flat_map(|(_, eggs)| eggs).collect();
                }
                next
            }
        };
        if self.eggs.len() > NODES_MAX {
            return Err(Failure::TooMany("eggs"));
        }
        self.eggs_done = next == Next::Done;
        Ok(next)
    }

    pub(super) fn take_eggs(&mut self) -> Vec<Egg> {
        let mut eggs = std::mem::take(&mut self.eggs);
        eggs.sort_by_key(|e| e.id);
        eggs.dedup_by_key(|e| e.id);
        eggs
    }

    pub(super) fn has_unknown_egg(&self, eggs: &[Egg]) -> bool {
        self.servers
            .rows
            .values()
            .any(|s| s.egg != 0 && eggs.binary_search_by_key(&s.egg, |e| e.id).is_err())
    }

    pub(super) fn listing(self, flavour: Flavour, eggs: Vec<Egg>, now: Millis) -> Listing {
        Listing {
            flavour,
            taken: now,
            nodes: self.nodes.rows.into_values().collect(),
            eggs,
            servers: self.servers.rows.into_values().collect(),
            users: self.users.rows.into_values().collect(),
        }
    }
}

fn failure(error: ParseError) -> Failure {
    match error {
        ParseError::Html => Failure::Html,
        ParseError::Forbidden(what) => Failure::KeyLacks(what),
        error => Failure::Shape(error.to_string()),
    }
}
