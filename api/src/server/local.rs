//! The unix socket: the kernel says who is at the other end, so nobody needs a password.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};

/// Members of this group may do everything, like root and the user weir runs as.
const GROUP: &str = "weir";

/// A local user.
#[derive(Clone, Debug)]
pub struct Local {
    /// Their number.
    pub uid: u32,
    /// Their login name, else their number.
    pub user: String,
    /// Whether they may use weir.
    pub trusted: bool,
}

impl Local {
    pub(super) fn of(stream: &UnixStream, owner: u32) -> Self {
        let Ok(credentials) = stream.peer_cred() else {
            return Self { uid: u32::MAX, user: "unknown".to_owned(), trusted: false };
        };
        let uid = credentials.uid();
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        let user = name_of(&users, uid).unwrap_or_else(|| uid.to_string());
        let trusted = uid == 0 || uid == owner || is_member(&groups, &user, credentials.gid());
        Self { uid, user, trusted }
    }

    /// Name for the audit log.
    pub fn name(&self) -> String {
        format!("local:{}", self.user)
    }
}

fn name_of(users: &str, uid: u32) -> Option<String> {
    let wanted = uid.to_string();
    users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&wanted.as_str()))
        .map(|fields| fields[0].to_owned())
}

fn is_member(groups: &str, user: &str, gid: u32) -> bool {
    groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).any(|fields| {
        fields.len() == 4
            && fields[0] == GROUP
            && (fields[2] == gid.to_string() || fields[3].split(',').any(|member| member == user))
    })
}

/// How long, and how much, a stranger who was turned away may still send.
const LINGER: std::time::Duration = std::time::Duration::from_millis(500);
const LINGER_READS: usize = 4;

/// Why an untrusted user gets nothing else.
pub(crate) const NOT_YOURS: &str =
    "the local socket is for root, for the user weir runs as, and for the group weir";

/// Says so and no more: a stranger takes no place.
pub(super) fn turn_away(stream: &UnixStream) {
    let body = format!("{{\"title\":\"Forbidden\",\"status\":403,\"detail\":\"{NOT_YOURS}\"}}");
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    // A fresh socket has room for it; if not, closing says enough.
    let _ = stream.try_write(answer.as_bytes());
}

/// Turns a stranger away once he has asked something, and takes what he still sends, for a moment: whoever
/// is answered before he asks, or finds the socket closed while he writes, may not read why.
pub(super) async fn see_out(mut stream: UnixStream) {
    use tokio::io::AsyncReadExt as _;
    let mut sent = [0; 4096];
    let _ = tokio::time::timeout(LINGER, stream.read(&mut sent)).await;
    turn_away(&stream);
    let rest = async {
        for _ in 0..LINGER_READS {
            if !stream.read(&mut sent).await.is_ok_and(|read| read > 0) {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, rest).await;
}

/// Binds the socket. Everybody may connect; who may do something is decided by their user and group.
///
/// # Errors
/// When another weir answers there, or the folder cannot be written.
pub fn bind_local(path: &Path) -> std::io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::AddrInUse,
                format!("{}: another weir answers here", path.display()),
            ));
        }
        // Left by one that was killed.
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// The user weir runs as: owner of the socket it made.
pub(super) fn owner(listener: &UnixListener) -> std::io::Result<u32> {
    let address = listener.local_addr()?;
    match address.as_pathname() {
        Some(path) => Ok(std::fs::metadata(path)?.uid()),
        None => Ok(0),
    }
}

/// The next connection; never when there is no socket.
pub(super) async fn accept(listener: Option<&UnixListener>) -> std::io::Result<UnixStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_members_are_found() {
        let users = "root:x:0:0:root:/root:/bin/sh\neve:x:1001:1001::/home/eve:/bin/sh\n";
        assert_eq!(name_of(users, 1001).as_deref(), Some("eve"));
        assert_eq!(name_of(users, 7), None);
        let groups = "root:x:0:\nweir:x:998:bob,eve\nweird:x:997:mallory\n";
        assert!(is_member(groups, "eve", 1001));
        assert!(is_member(groups, "carol", 998), "by primary group");
        assert!(!is_member(groups, "mallory", 997));
        assert!(!is_member(groups, "ev", 1001));
    }
}
