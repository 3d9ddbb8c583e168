//! Users, their sessions, and bearer tokens. Secrets are stored as hashes only; what hashes them is the
//! API's business.

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use weir_model::{IpNet, Millis, Role};

use crate::{Change, Store, StoreError, from_sql, to_sql};

/// SHA-256 of a session's or token's secret.
pub type SecretHash = [u8; 32];

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name, unique without regard to case.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// A tenant's prefixes.
    pub prefixes: Vec<IpNet>,
    /// Password as a PHC string.
    pub password: String,
    /// Secret of the second factor, base 32, when it is on.
    pub totp: Option<String>,
    /// Last time step for which a code was taken: a code counts once.
    pub totp_step: u64,
    /// May not sign in.
    pub disabled: bool,
    /// When it was made.
    pub created: Millis,
}

/// A signed-in browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Names it without giving it away.
    pub id: u64,
    /// Hash of the cookie's secret.
    pub hash: SecretHash,
    /// Whose.
    pub user: String,
    /// When signed in.
    pub created: Millis,
    /// Last used, to the minute.
    pub seen: Millis,
    /// From where it was opened.
    pub address: String,
    /// With which browser, as it says.
    pub agent: String,
}

/// A bearer token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its number; 0 before it is stored.
    pub id: u64,
    /// Hash of its secret.
    pub hash: SecretHash,
    /// For people.
    pub name: String,
    /// What it may do at most.
    pub role: Role,
    /// Permissions it is narrowed to; `None` for all of the role.
    pub scopes: Option<Vec<String>>,
    /// A tenant's prefixes.
    pub prefixes: Vec<IpNet>,
    /// Networks it may be used from; empty for any.
    pub networks: Vec<IpNet>,
    /// When it was made.
    pub created: Millis,
    /// By whom.
    pub created_by: String,
    /// When it ends.
    pub expires: Option<Millis>,
    /// Last used, to the minute.
    pub used: Option<Millis>,
}

impl Token {
    /// The account that made it, which it ends with; none when a local user did.
    pub fn maker(&self) -> Option<&str> {
        // Names of accounts have no colon: `local:root`, `token:ci`.
        Some(self.created_by.as_str()).filter(|name| !name.contains(':'))
    }
}

const USER: &str =
    "SELECT name, role, prefixes, password, totp, totp_step, disabled, created_ms FROM users";
const SESSION: &str = "SELECT id, hash, user, created_ms, seen_ms, address, agent FROM sessions";
const TOKEN: &str =
    "SELECT id, hash, name, role, scopes, prefixes, networks, created_ms, created_by,
     expires_ms, used_ms FROM tokens";

impl Store {
    /// An account by its name.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`].
    pub fn user(&self, name: &str) -> Result<Option<User>, StoreError> {
        find_user(&self.connection, name)
    }

    /// All accounts by name.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`].
    pub fn users(&self) -> Result<Vec<User>, StoreError> {
        let mut statement = self.connection.prepare_cached(&format!("{USER} ORDER BY name"))?;
        let rows = statement.query_map([], |row| Ok(user(row)))?;
        rows.map(|row| row?).collect()
    }

    /// Accounts that may do everything and are not disabled.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn owners(&self) -> Result<u64, StoreError> {
        owners(&self.connection)
    }

    /// A session by the hash of its secret.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn session(&self, hash: &SecretHash) -> Result<Option<Session>, StoreError> {
        Ok(self
            .connection
            .prepare_cached(&format!("{SESSION} WHERE hash = ?1"))?
            .query_row([hash], session)
            .optional()?)
    }

    /// An account's sessions, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn sessions(&self, user: &str) -> Result<Vec<Session>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("{SESSION} WHERE user = ?1 ORDER BY created_ms DESC"))?;
        let rows = statement.query_map([user], session)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A token by the hash of its secret.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`].
    pub fn token(&self, hash: &SecretHash) -> Result<Option<Token>, StoreError> {
        self.connection
            .prepare_cached(&format!("{TOKEN} WHERE hash = ?1"))?
            .query_row([hash], |row| Ok(token(row)))
            .optional()?
            .transpose()
    }

    /// All tokens, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`].
    pub fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        let mut statement = self.connection.prepare_cached(&format!("{TOKEN} ORDER BY id"))?;
        let rows = statement.query_map([], |row| Ok(token(row)))?;
        rows.map(|row| row?).collect()
    }
}

impl Change<'_> {
    /// As [`Store::owners`], inside the change.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn owners(&self) -> Result<u64, StoreError> {
        owners(&self.transaction)
    }

    /// Makes an account.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken.
    pub fn add_user(&self, user: &User) -> Result<(), StoreError> {
        let added = self.transaction.execute(
            "INSERT INTO users (name, role, prefixes, password, totp, totp_step, disabled, created_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
            params![
                user.name,
                user.role.id(),
                serde_json::to_string(&user.prefixes)?,
                user.password,
                user.totp,
                to_sql(user.totp_step),
                user.disabled,
                to_sql(user.created.0),
            ],
        )?;
        if added == 0 {
            return Err(StoreError::Conflict(format!("there is a user {} already", user.name)));
        }
        Ok(())
    }

    /// An account as it is inside the change: what is read here is still true when it is written.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn user(&self, name: &str) -> Result<Option<User>, StoreError> {
        find_user(&self.transaction, name)
    }

    /// How many accounts there are.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn count_users(&self) -> Result<u64, StoreError> {
        self.count("users")
    }

    /// How many tokens there are.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn count_tokens(&self) -> Result<u64, StoreError> {
        self.count("tokens")
    }

    fn count(&self, table: &str) -> Result<u64, StoreError> {
        let query = format!("SELECT count(*) FROM {table}");
        Ok(from_sql(self.transaction.query_row(&query, [], |row| row.get(0))?))
    }

    /// Changes what others decide about an account, and nothing else of it; returns whether there is one.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`].
    pub fn set_standing(
        &self,
        name: &str,
        role: Role,
        prefixes: &[IpNet],
        disabled: bool,
    ) -> Result<bool, StoreError> {
        self.accounts.set(true);
        let changed = self.transaction.execute(
            "UPDATE users SET role = ?2, prefixes = ?3, disabled = ?4 WHERE name = ?1",
            params![name, role.id(), serde_json::to_string(prefixes)?, disabled],
        )?;
        Ok(changed > 0)
    }

    /// Gives an account a new password, whatever it had; returns whether there is one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn reset_password(&self, name: &str, password: &str) -> Result<bool, StoreError> {
        self.accounts.set(true);
        let changed = self
            .transaction
            .execute("UPDATE users SET password = ?2 WHERE name = ?1", [name, password])?;
        Ok(changed > 0)
    }

    /// Takes an account's second factor away; returns whether there is one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn reset_factor(&self, name: &str) -> Result<bool, StoreError> {
        self.accounts.set(true);
        let changed =
            self.transaction.execute("UPDATE users SET totp = NULL WHERE name = ?1", [name])?;
        Ok(changed > 0)
    }

    /// Changes the password of an account that still has the password that was proven and is not disabled;
    /// returns whether that is so.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn change_password(
        &self,
        name: &str,
        proven: &str,
        password: &str,
    ) -> Result<bool, StoreError> {
        self.accounts.set(true);
        let changed = self.transaction.execute(
            "UPDATE users SET password = ?3 WHERE name = ?1 AND password = ?2 AND NOT disabled",
            [name, proven, password],
        )?;
        Ok(changed > 0)
    }

    /// Changes the second factor likewise; `step` is the last time step for which a code was taken.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn change_factor(
        &self,
        name: &str,
        proven: &str,
        totp: Option<&str>,
        step: u64,
    ) -> Result<bool, StoreError> {
        self.accounts.set(true);
        let changed = self.transaction.execute(
            "UPDATE users SET totp = ?3, totp_step = ?4
             WHERE name = ?1 AND password = ?2 AND NOT disabled",
            params![name, proven, totp, to_sql(step)],
        )?;
        Ok(changed > 0)
    }

    /// Whether an account has this session.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn has_session(&self, user: &str, id: u64) -> Result<bool, StoreError> {
        let found = self.transaction.query_row(
            "SELECT count(*) FROM sessions WHERE user = ?1 AND id = ?2",
            params![user, to_sql(id)],
            |row| row.get::<_, i64>(0),
        )?;
        Ok(found > 0)
    }

    /// Ends all but the newest sessions of an account.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn trim_sessions(&self, user: &str, keep: usize) -> Result<usize, StoreError> {
        Ok(self.transaction.execute(
            "DELETE FROM sessions WHERE user = ?1 AND id IN (
                 SELECT id FROM sessions WHERE user = ?1 ORDER BY created_ms DESC LIMIT -1 OFFSET ?2)",
            params![user, i64::try_from(keep).unwrap_or(i64::MAX)],
        )?)
    }

    /// A token by its number.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn token(&self, id: u64) -> Result<Option<Token>, StoreError> {
        self.transaction
            .prepare_cached(&format!("{TOKEN} WHERE id = ?1"))?
            .query_row([to_sql(id)], |row| Ok(token(row)))
            .optional()?
            .transpose()
    }

    /// Marks a time step of the second factor as used; false when it, or a later one, already was.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn spend_totp(&self, name: &str, step: u64) -> Result<bool, StoreError> {
        let spent = self.transaction.execute(
            "UPDATE users SET totp_step = ?2 WHERE name = ?1 AND totp_step < ?2",
            params![name, to_sql(step)],
        )?;
        Ok(spent > 0)
    }

    /// Removes an account with its sessions; returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn remove_user(&self, name: &str) -> Result<bool, StoreError> {
        self.accounts.set(true);
        self.end_sessions(name, None)?;
        Ok(self.transaction.execute("DELETE FROM users WHERE name = ?1", [name])? > 0)
    }

    /// Opens a session.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn add_session(&self, session: &Session) -> Result<(), StoreError> {
        self.transaction.execute(
            "INSERT INTO sessions (hash, id, user, created_ms, seen_ms, address, agent)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                session.hash,
                to_sql(session.id),
                session.user,
                to_sql(session.created.0),
                to_sql(session.seen.0),
                session.address,
                session.agent,
            ],
        )?;
        Ok(())
    }

    /// Ends one of an account's sessions; returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn end_session(&self, user: &str, id: u64) -> Result<bool, StoreError> {
        self.accounts.set(true);
        let ended = self.transaction.execute(
            "DELETE FROM sessions WHERE user = ?1 AND id = ?2",
            params![user, to_sql(id)],
        )?;
        Ok(ended > 0)
    }

    /// Ends an account's sessions, all but `keep`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn end_sessions(&self, user: &str, keep: Option<u64>) -> Result<usize, StoreError> {
        self.accounts.set(true);
        Ok(self.transaction.execute(
            "DELETE FROM sessions WHERE user = ?1 AND id IS NOT ?2",
            params![user, keep.map(to_sql)],
        )?)
    }

    /// Forgets sessions last used before `idle` or opened before `created`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn sweep_sessions(&self, idle: Millis, created: Millis) -> Result<usize, StoreError> {
        self.accounts.set(true);
        Ok(self.transaction.execute(
            "DELETE FROM sessions WHERE seen_ms < ?1 OR created_ms < ?2",
            params![to_sql(idle.0), to_sql(created.0)],
        )?)
    }

    /// Notes when a session was last used.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn touch_session(&self, id: u64, at: Millis) -> Result<(), StoreError> {
        self.transaction.execute(
            "UPDATE sessions SET seen_ms = ?2 WHERE id = ?1",
            params![to_sql(id), to_sql(at.0)],
        )?;
        Ok(())
    }

    /// Keeps a new token; returns its number.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Encode`].
    pub fn add_token(&self, token: &Token) -> Result<u64, StoreError> {
        let scopes = token.scopes.as_ref().map(serde_json::to_string).transpose()?;
        self.transaction.execute(
            "INSERT INTO tokens (hash, name, role, scopes, prefixes, networks, created_ms, created_by,
                 expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                token.hash,
                token.name,
                token.role.id(),
                scopes,
                serde_json::to_string(&token.prefixes)?,
                serde_json::to_string(&token.networks)?,
                to_sql(token.created.0),
                token.created_by,
                token.expires.map(|at| to_sql(at.0)),
            ],
        )?;
        Ok(from_sql(self.transaction.last_insert_rowid()))
    }

    /// Removes a token; returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn remove_token(&self, id: u64) -> Result<bool, StoreError> {
        self.accounts.set(true);
        Ok(self.transaction.execute("DELETE FROM tokens WHERE id = ?1", [to_sql(id)])? > 0)
    }

    /// Notes when a token was last used.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn touch_token(&self, id: u64, at: Millis) -> Result<(), StoreError> {
        self.transaction.execute(
            "UPDATE tokens SET used_ms = ?2 WHERE id = ?1",
            params![to_sql(id), to_sql(at.0)],
        )?;
        Ok(())
    }
}

fn find_user(connection: &Connection, name: &str) -> Result<Option<User>, StoreError> {
    connection
        .prepare_cached(&format!("{USER} WHERE name = ?1"))?
        .query_row([name], |row| Ok(user(row)))
        .optional()?
        .transpose()
}

fn owners(connection: &Connection) -> Result<u64, StoreError> {
    let count: i64 = connection.query_row(
        "SELECT count(*) FROM users WHERE role = 'owner' AND NOT disabled",
        [],
        |row| row.get(0),
    )?;
    Ok(from_sql(count))
}

/// A word that is no role any more gives the least.
fn role(text: &str) -> Role {
    text.parse().unwrap_or(Role::Tenant)
}

fn user(row: &Row<'_>) -> Result<User, StoreError> {
    Ok(User {
        name: row.get(0)?,
        role: role(&row.get::<_, String>(1)?),
        // What cannot be read gives nothing: a tenant without prefixes sees nothing.
        prefixes: serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default(),
        password: row.get(3)?,
        totp: row.get(4)?,
        totp_step: from_sql(row.get(5)?),
        disabled: row.get(6)?,
        created: Millis(from_sql(row.get(7)?)),
    })
}

fn session(row: &Row<'_>) -> Result<Session, rusqlite::Error> {
    Ok(Session {
        id: from_sql(row.get(0)?),
        hash: row.get(1)?,
        user: row.get(2)?,
        created: Millis(from_sql(row.get(3)?)),
        seen: Millis(from_sql(row.get(4)?)),
        address: row.get(5)?,
        agent: row.get(6)?,
    })
}

fn token(row: &Row<'_>) -> Result<Token, StoreError> {
    let scopes: Option<String> = row.get(4)?;
    let networks: Result<Vec<IpNet>, _> = serde_json::from_str(&row.get::<_, String>(6)?);
    // What cannot be read gives nothing: no scope, no prefix, and nowhere to use it from.
    let scopes = match (&networks, scopes) {
        (Err(_), _) => Some(Vec::new()),
        (Ok(_), scopes) => scopes.map(|text| serde_json::from_str(&text).unwrap_or_default()),
    };
    let time = |at: Option<i64>| at.map(|at| Millis(from_sql(at)));
    Ok(Token {
        id: from_sql(row.get(0)?),
        hash: row.get(1)?,
        name: row.get(2)?,
        role: role(&row.get::<_, String>(3)?),
        scopes,
        prefixes: serde_json::from_str(&row.get::<_, String>(5)?).unwrap_or_default(),
        networks: networks.unwrap_or_default(),
        created: Millis(from_sql(row.get(7)?)),
        created_by: row.get(8)?,
        expires: time(row.get(9)?),
        used: time(row.get(10)?),
    })
}
