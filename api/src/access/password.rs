//! Passwords by argon2id (RFC 9106), never on the runtime's own threads and never more than two at a
//! time: 19 MiB and some 26 ms each, so that a flood of sign-ins cannot starve the machine.

use std::sync::{Arc, OnceLock};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::secret;
use crate::problem::Problem;

/// Passwords checked at the same time.
const AT_ONCE: usize = 2;

/// Sign-ins that may wait for their turn; one more is answered 503.
const WAITING_MAX: usize = 32;

/// Shortest password taken, characters.
pub(crate) const PASSWORD_MIN: usize = 12;

/// Longest password taken, octets.
pub(crate) const PASSWORD_MAX: usize = 256;

/// Turns at hashing.
#[derive(Debug)]
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            queue: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }
}

impl Passwords {
    /// A new password's PHC string.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Problem> {
        check(&password)?;
        self.take_turn(move || hash(&password)).await?
    }

    /// Whether a password is the one of this PHC string; without one, as long as if there were one.
    pub(crate) async fn verify(
        &self,
        password: String,
        phc: Option<String>,
    ) -> Result<bool, Problem> {
        if password.len() > PASSWORD_MAX {
            return Ok(false);
        }
        self.take_turn(move || {
            static NOBODYS: OnceLock<String> = OnceLock::new();
            let known = phc.is_some();
            let phc = phc.unwrap_or_else(|| {
                NOBODYS.get_or_init(|| hash("nobody's password").unwrap_or_default()).clone()
            });
            let right = PasswordHash::new(&phc).is_ok_and(|phc| {
                Argon2::default().verify_password(password.as_bytes(), &phc).is_ok()
            });
            known && right
        })
        .await
    }

    async fn take_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let busy = || Problem::busy("too many people are signing in; try again");
        let _place = self.queue.try_acquire().map_err(|_| busy())?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| busy())?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        })
        .await
        .map_err(|_| Problem::internal("hashing"))
    }
}

fn check(password: &str) -> Result<(), Problem> {
    let long = password.chars().count() >= PASSWORD_MIN && password.len() <= PASSWORD_MAX;
    long.then_some(()).ok_or_else(|| {
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("a password has at least {PASSWORD_MIN} characters and at most {PASSWORD_MAX} octets"),
        )
    })
}

fn hash(password: &str) -> Result<String, Problem> {
    Argon2::default()
        .hash_password_with_salt(password.as_bytes(), &secret::random::<16>())
        .map(|phc| phc.to_string())
        .map_err(|_| Problem::internal("hashing"))
}
