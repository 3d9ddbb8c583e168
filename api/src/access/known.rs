//! Who was let in before, for when the state file cannot be read: whoever has to stop weir then must not be
//! locked out. Only what this process has read counts, and any change of an account, a session or a token
//! empties it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use weir_store::accounts::{SecretHash, Session, Token, User};

/// Sessions and tokens remembered.
const REMEMBERED_MAX: usize = 1024;

/// What a secret opened.
#[derive(Clone, Debug)]
pub(crate) enum Opened {
    Session(Box<(Session, User)>),
    Token(Box<Token>),
}

#[derive(Debug, Default)]
struct Memory {
    opened: HashMap<SecretHash, Opened>,
    /// Rises whenever it is emptied: what was read before then is not remembered after it.
    emptied: u64,
}

/// Who was let in before.
#[derive(Debug, Default)]
pub(crate) struct Known {
    memory: Mutex<Memory>,
}

impl Known {
    /// To be asked before the state file is read, and handed to [`Known::remember`].
    pub(crate) fn epoch(&self) -> u64 {
        self.with(|memory| memory.emptied)
    }

    /// The state file says that this secret opens this, or nothing.
    pub(crate) fn remember(&self, epoch: u64, hash: SecretHash, opened: Option<Opened>) {
        self.with(|memory| {
            let Some(opened) = opened.filter(|_| memory.emptied == epoch) else {
                memory.opened.remove(&hash);
                return;
            };
            if memory.opened.len() >= REMEMBERED_MAX && !memory.opened.contains_key(&hash) {
                let any = memory.opened.keys().next().copied();
                any.map(|any| memory.opened.remove(&any));
            }
            memory.opened.insert(hash, opened);
        });
    }

    /// What this secret opened when the state file could still be read.
    pub(crate) fn recall(&self, hash: &SecretHash) -> Option<Opened> {
        self.with(|memory| memory.opened.get(hash).cloned())
    }

    /// An account, a session or a token has changed.
    pub(crate) fn forget(&self) {
        self.with(|memory| {
            memory.emptied += 1;
            memory.opened.clear();
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        work(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
