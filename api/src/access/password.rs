//! Passwords by argon2id (RFC 9106), never on the runtime's own threads and never more than two at a
//! time: 26 ms each, in one of two rooms of 19 MiB that are made once and used again. A flood of sign-ins
//! neither starves the machine nor leaves its memory in the allocator of every thread that took part.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
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
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    rooms: Arc<Rooms>,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords")
    }
}

/// Memory to hash in: one room a turn, kept for the next.
#[derive(Default)]
struct Rooms(Mutex<Vec<Vec<Block>>>);

impl Rooms {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<Block>) -> T) -> T {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut room = free.unwrap_or_default();
        let done = work(&mut room);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(room);
        done
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            queue: Arc::new(Semaphore::new(WAITING_MAX)),
            rooms: Arc::default(),
        }
    }
}

impl Passwords {
    /// A new password's PHC string.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Problem> {
        check(&password)?;
        self.take_turn(move |room| hash(&password, room)).await?
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
        self.take_turn(move |room| {
            static NOBODYS: OnceLock<String> = OnceLock::new();
            let known = phc.is_some();
            let phc = phc.unwrap_or_else(|| {
                let nobodys = || hash("nobody's password", room).unwrap_or_default();
                NOBODYS.get_or_init(nobodys).clone()
            });
            let right = verify(&password, &phc, room);
            known && right
        })
        .await
    }

    async fn take_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let busy = || Problem::busy("too many people are signing in; try again");
        let _place = self.queue.try_acquire().map_err(|_| busy())?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| busy())?;
        let rooms = Arc::clone(&self.rooms);
        tokio::task::spawn_blocking(move || {
            let done = rooms.with(work);
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

fn hash(password: &str, room: &mut Vec<Block>) -> Result<String, Problem> {
    let mut phc = || {
        let (algorithm, version, params) = (Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
        let salt = Salt::new(&secret::random::<16>()).ok()?;
        let mut out = [0; Params::DEFAULT_OUTPUT_LEN];
        let argon = Argon2::new(algorithm, version, params.clone());
        argon
            .hash_password_into_with_memory(
                password.as_bytes(),
                &salt,
                &mut out,
                blocks(room, &params),
            )
            .ok()?;
        let phc = PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: ParamsString::try_from(&params).ok()?,
            salt: Some(salt),
            hash: Some(Output::new(&out).ok()?),
        };
        Some(phc.to_string())
    };
    phc().ok_or_else(|| Problem::internal("hashing"))
}

/// Whether this is the password, with whatever cost it was once hashed.
fn verify(password: &str, phc: &str, room: &mut Vec<Block>) -> bool {
    let mut check = || {
        let phc = PasswordHash::new(phc).ok()?;
        let algorithm = Algorithm::try_from(phc.algorithm.as_str()).ok()?;
        let version = Version::try_from(phc.version?).ok()?;
        let params = Params::try_from(&phc).ok()?;
        let (salt, known) = (phc.salt?, phc.hash?);
        let mut out = vec![0; known.len()];
        let blocks = blocks(room, &params);
        Argon2::new(algorithm, version, params.clone())
            .hash_password_into_with_memory(password.as_bytes(), &salt, &mut out, blocks)
            .ok()?;
        // Compared in constant time.
        Some(Output::new(&out).ok()? == known)
    };
    check().unwrap_or(false)
}

fn blocks<'a>(room: &'a mut Vec<Block>, params: &Params) -> &'a mut [Block] {
    let count = params.block_count();
    if room.len() < count {
        room.resize(count, Block::default());
    }
    &mut room[..count]
}

#[cfg(test)]
mod tests {
    use argon2::{PasswordHasher as _, PasswordVerifier as _};

    use super::*;

    #[tokio::test]
    async fn many_sign_ins_use_the_same_two_rooms() {
        let passwords = Arc::new(Passwords::default());
        let phc = passwords.hash("correct horse battery".to_owned()).await.unwrap();
        let sign_ins: Vec<_> = (0..8)
            .map(|n| {
                let (passwords, phc) = (Arc::clone(&passwords), phc.clone());
                tokio::spawn(async move {
                    let known = (n % 2 == 0).then_some(phc);
                    passwords.verify("wrong".to_owned(), known).await.unwrap()
                })
            })
            .collect();
        for sign_in in sign_ins {
            assert!(!sign_in.await.unwrap());
        }
        let rooms = passwords.rooms.0.lock().unwrap();
        assert!((1..=AT_ONCE).contains(&rooms.len()), "{}", rooms.len());
        let octets: usize = rooms.iter().map(|room| size_of_val(room.as_slice())).sum();
        assert!(octets <= AT_ONCE * 20 * 1024 * 1024, "{octets}");
    }

    #[test]
    fn what_the_library_itself_makes_and_takes_is_the_same() {
        let mut room = Vec::new();
        let ours = hash("correct horse battery", &mut room).unwrap();
        assert!(ours.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{ours}");
        let argon = Argon2::default();
        let check = |phc: &str, password: &str| {
            let by_library = PasswordHash::new(phc)
                .is_ok_and(|phc| argon.verify_password(password.as_bytes(), &phc).is_ok());
            (by_library, verify(password, phc, &mut Vec::new()))
        };
        assert_eq!(check(&ours, "correct horse battery"), (true, true));
        assert_eq!(check(&ours, "wrong"), (false, false));
        let theirs = argon.hash_password_with_salt(b"x", &[7; 16]).unwrap().to_string();
        assert_eq!((check(&theirs, "x"), check(&theirs, "y")), ((true, true), (false, false)));
        assert!(!verify("x", "nonsense", &mut room));
    }
}
