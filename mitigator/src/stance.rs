//! Who says how far weir goes: the configuration file, or a person while weir runs. A person's word outlives
//! the process. The brake outranks the file, whatever it says, until a person lifts it; any other word
//! outranks it until the file's own value changes.

use serde::{Deserialize, Serialize};
use weir_model::{Millis, MitigationState, Mode, Stance};

use crate::Mitigator;
use crate::ledger::{BY_OPERATOR, EVERYTHING, close, is_live};

/// The last word on the mode: what is kept of it, in the state file and beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// When it was said.
    pub at: Millis,
    /// What; nothing when the file decides again.
    pub stance: Option<Stance>,
}

impl Word {
    /// The later of two.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        if other.at > self.at { other } else { self }
    }
}

impl Mitigator {
    /// What a person said about the mode, as far as it stands.
    pub const fn stance(&self) -> Option<&Stance> {
        self.word.stance.as_ref()
    }

    /// The last word on the mode, to be kept.
    pub const fn word(&self) -> &Word {
        &self.word
    }

    /// Takes the last word back, after a restart. One that is not the brake counts only as long as the file
    /// says what it said then.
    pub(crate) fn restore_word(&mut self, word: Word) {
        let stands = |stance: &Stance| stance.brake || stance.file == self.config.mode;
        self.word = Word { at: word.at, stance: word.stance.filter(stands) };
        self.mode = self.word.stance.as_ref().map_or(self.config.mode, |stance| stance.mode);
    }

    /// Whether the brake ended this measure although what the store remembers says otherwise.
    pub(crate) fn is_braked(&self, since: Millis) -> bool {
        self.stance().is_some_and(|stance| stance.brake && since <= stance.at)
    }

    /// A person sets the mode. The brake stays where it already holds weir; another mode lifts it.
    pub(crate) fn set_mode(&mut self, mode: Mode, by: &str, now: Millis) {
        let braked = self.stance().is_some_and(|stance| stance.brake);
        if braked && mode == Mode::Observe {
            return;
        }
        let file = self.config.mode;
        let said = Stance { mode, brake: false, by: by.to_owned(), at: now, file };
        self.word = Word { at: now, stance: (mode != file).then_some(said) };
        self.go(mode, by, braked, now);
    }

    /// A person lets the file decide.
    pub(crate) fn follow_file(&mut self, by: &str, now: Millis) {
        let braked = self.stance().is_some_and(|stance| stance.brake);
        self.word = Word { at: now, stance: None };
        self.go(self.config.mode, by, braked, now);
    }

    /// The file says something else than before. It decides, unless the brake holds.
    pub fn set_file_mode(&mut self, mode: Mode, now: Millis) {
        if std::mem::replace(&mut self.config.mode, mode) == mode {
            return;
        }
        match &mut self.word.stance {
            Some(stance) if stance.brake => stance.file = mode,
            _ => {
                self.word = Word { at: now, stance: None };
                self.go(mode, "the configuration file", false, now);
            }
        }
    }

    fn go(&mut self, mode: Mode, by: &str, lifted: bool, now: Millis) {
        let before = std::mem::replace(&mut self.mode, mode);
        if before == mode && !lifted {
            return;
        }
        let brake = if lifted { ", the brake is lifted" } else { "" };
        let detail = format!("{before} -> {mode} by {by}{brake}");
        self.note_everywhere("mode", &detail, now);
        let note = format!("mode is now {mode}");
        self.end_everywhere(&note, now, |m| match (m.state, mode) {
            // What is in force or approved stays, except where nothing may be in force.
            (MitigationState::Active, mode) => mode == Mode::Observe,
            _ => true,
        });
    }

    /// The brake: everything is withdrawn, and weir observes until a person lifts it.
    pub(crate) fn panic(&mut self, by: &str, now: Millis) {
        let file = self.config.mode;
        let said = Stance { mode: Mode::Observe, brake: true, by: by.to_owned(), at: now, file };
        self.word = Word { at: now, stance: Some(said) };
        self.mode = Mode::Observe;
        let note = format!("{BY_OPERATOR}{by}{EVERYTHING}");
        self.note_everywhere("panic", &note, now);
        self.end_everywhere(&note, now, |_| true);
        for m in &mut self.manual {
            if is_live(m) {
                close(m, MitigationState::Withdrawn, &note, now);
            }
        }
        self.ledger.dirty = true;
    }
}
