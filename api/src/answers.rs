//! Answers given under an idempotency key to what only takes away: kept in memory, because such a request
//! waits for no disk. Lost with the process, which does no harm: what is withdrawn stays withdrawn.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use weir_model::Millis;
use weir_store::notes::Answer;

/// Answers kept; the oldest give way.
const KEPT_MAX: usize = 4096;

type Key = (String, String);

/// Answers by who asked and their key.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    kept: Mutex<HashMap<Key, (Millis, Answer)>>,
}

impl Answers {
    /// Takes a key, or says what was answered under it; older answers than `forget` are forgotten.
    pub(crate) fn claim(
        &self,
        key: &Key,
        request: [u8; 32],
        at: Millis,
        forget: Millis,
    ) -> Option<Answer> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = kept.get(key).filter(|(at, _)| *at >= forget) {
            return Some(known.clone());
        }
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (at, _)| *at >= forget);
            let oldest = kept.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest.filter(|_| kept.len() >= KEPT_MAX) {
                kept.remove(&oldest);
            }
        }
        kept.insert(key.clone(), (at, Answer { request, status: 0, body: Vec::new() }));
        None
    }

    /// Keeps the answer given under a key that was taken; without one, the key may be used again.
    pub(crate) fn put(&self, key: &Key, body: Option<Vec<u8>>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match body {
            None => drop(kept.remove(key)),
            Some(body) => {
                if let Some((_, answer)) = kept.get_mut(key) {
                    (answer.status, answer.body) = (200, body);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_answers_give_way() {
        let answers = Answers::default();
        let key = |n: usize| ("eve".to_owned(), n.to_string());
        for n in 0..KEPT_MAX + 10 {
            assert_eq!(answers.claim(&key(n), [0; 32], Millis(n as u64), Millis(0)), None);
            answers.put(&key(n), Some(vec![1]));
        }
        assert_eq!(answers.kept.lock().unwrap().len(), KEPT_MAX);
        let last = answers.claim(&key(KEPT_MAX), [0; 32], Millis(9_000_000), Millis(0)).unwrap();
        assert_eq!((last.status, last.body), (200, vec![1]));
        let old = answers.claim(&key(KEPT_MAX), [0; 32], Millis(9_000_000), Millis(8_000_000));
        assert_eq!(old, None, "too old to count");
    }
}
