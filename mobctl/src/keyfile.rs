//! Key files: one line, `host-key` or `group-key` and 64 hexadecimal digits.
//!
//! A key file belongs to root or to who runs mobctl, and nobody else may read
//! it. Secrets are overwritten in memory when they are no longer needed.

use crate::exit::{Exit, Failure};
use mobconn_dprp::{GroupKey, HostKey, KEY_LENGTH};
use nix::unistd::geteuid;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// What a key file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This host's private key: its identity.
    Host,
    /// The key that all members of the group share.
    Group,
}

impl Kind {
    /// The word before the digits.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Host => "host-key",
            Self::Group => "group-key",
        }
    }

    const fn command(self) -> &'static str {
        match self {
            Self::Host => "mobctl keygen host",
            Self::Group => "mobctl keygen group",
        }
    }
}

/// Reads the host key in the file at `path`.
///
/// # Errors
/// A [`Failure`] that says what to do; never a part of the key.
pub fn read_host(path: &Path) -> Result<HostKey, Failure> {
    Ok(HostKey::from_bytes(&*read(path, Kind::Host)?))
}

/// Reads the group key in the file at `path`.
///
/// # Errors
/// As [`read_host`].
pub fn read_group(path: &Path) -> Result<GroupKey, Failure> {
    Ok(GroupKey::from_bytes(&*read(path, Kind::Group)?))
}

/// Longest key file that is read: room for comments.
const LENGTH_MAX: u64 = 4096;

fn read(path: &Path, kind: Kind) -> Result<Zeroizing<[u8; KEY_LENGTH]>, Failure> {
    let text = read_secret(path, |_| match kind {
        Kind::Host => format!("Make one: {}", kind.command()),
        Kind::Group => {
            format!("Copy it from another host of the group, or for a new group make one: {}", kind.command())
        }
    })?;
    parse(&text, kind).map_err(|what| {
        Failure::new(Exit::Config, format!("{}: {what}", path.display())).advise(format!(
            "A key file has one line, \"{} \" and 64 hexadecimal digits; make one: {}",
            kind.label(),
            kind.command()
        ))
    })
}

/// What is in the file at `path`, which must belong to root or to who runs mobctl, and which nobody else may read or
/// write. `missing` says what to do when there is no such file.
///
/// # Errors
/// A [`Failure`] that says what to do.
pub fn read_secret(path: &Path, missing: impl FnOnce(&Path) -> String) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(Exit::Config, format!("{shown}: no such key file")).advise(missing(path))
        }
        io::ErrorKind::PermissionDenied => {
            Failure::new(Exit::NoPermission, format!("{shown}: permission denied")).advise("Run mobctl as root")
        }
        _ => Failure::new(Exit::Io, format!("{shown}: {error}")),
    })?;
    let unreadable = |error: io::Error| Failure::new(Exit::Io, format!("{shown}: {error}"));
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Failure::new(Exit::Config, format!("{shown}: not a regular file")));
    }
    if metadata.uid() != 0 && metadata.uid() != geteuid().as_raw() {
        return Err(Failure::new(
            Exit::Config,
            format!("{shown}: belongs to user {}, who could change it", metadata.uid()),
        )
        .advise(format!("chown root {shown}; chmod 600 {shown}")));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(Failure::new(
            Exit::Config,
            format!("{shown}: mode {:04o} lets others than its owner at the key", metadata.mode() & 0o7777),
        )
        .advise(format!("chmod 600 {shown}, and consider whether the key is still secret")));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(LENGTH_MAX as usize + 1));
    (&file).take(LENGTH_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > LENGTH_MAX {
        return Err(Failure::new(Exit::Config, format!("{shown}: too long for a key file")));
    }
    Ok(text)
}

/// The key in the text of a key file. Lines that begin with # and empty lines are comments.
///
/// # Errors
/// What is wrong with the text; never a part of the key.
pub fn parse(text: &[u8], kind: Kind) -> Result<Zeroizing<[u8; KEY_LENGTH]>, &'static str> {
    if text.len() as u64 > LENGTH_MAX {
        return Err("too long for a key file");
    }
    let mut lines = text
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    let line = lines.next().ok_or("no key in it")?;
    if lines.next().is_some() {
        return Err("more than one key in it");
    }
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let (label, digits, rest) = (words.next(), words.next(), words.next());
    if label != Some(kind.label().as_bytes()) {
        let other = [Kind::Host, Kind::Group].into_iter().find(|other| label == Some(other.label().as_bytes()));
        return Err(match other {
            Some(Kind::Host) => "it holds a host key, not a group key",
            Some(Kind::Group) => "it holds a group key, not a host key",
            None => "its line does not begin with the kind of the key",
        });
    }
    let digits =
        digits.filter(|digits| digits.len() == 2 * KEY_LENGTH && rest.is_none()).ok_or("not 64 digits in it")?;
    let mut key = Zeroizing::new([0; KEY_LENGTH]);
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        for &digit in pair {
            let value = char::from(digit).to_digit(16).ok_or("a digit that is not hexadecimal")?;
            *byte = *byte << 4 | value as u8;
        }
    }
    if key.iter().all(|&byte| byte == 0) {
        return Err("the key is zero");
    }
    Ok(key)
}

/// Makes the file at `path` with `key`, mode 0600, and the folder around it when that is missing.
///
/// # Errors
/// A [`Failure`]; a file that exists is left alone.
pub fn create(path: &Path, kind: Kind, key: &[u8; KEY_LENGTH]) -> Result<(), Failure> {
    let shown = path.display();
    let cannot = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::new(Exit::CannotCreate, format!("{shown} exists and is not overwritten")).advise(match kind {
                Kind::Host => {
                    "Peers that pinned this host know it by that key. To give it up, move the file away first"
                }
                Kind::Group => "All hosts of the group share that key. To give it up, move the file away first",
            })
        }
        io::ErrorKind::PermissionDenied => {
            Failure::new(Exit::NoPermission, format!("{shown}: permission denied")).advise("Run mobctl as root")
        }
        _ => Failure::new(Exit::CannotCreate, format!("{shown}: {error}")),
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(cannot)?;
    }
    let mut text = Zeroizing::new(Vec::with_capacity(128));
    text.extend_from_slice(kind.label().as_bytes());
    text.push(b' ');
    for byte in key {
        for digit in [byte >> 4, byte & 15] {
            text.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
        }
    }
    text.push(b'\n');
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(cannot)?;
    let written = file.write_all(&text).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a key is none.
        let _ = std::fs::remove_file(path);
        cannot(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/host.key");
        (folder, path)
    }

    #[test]
    fn a_key_comes_back_and_is_not_overwritten() {
        let (_folder, path) = folder();
        let key: [u8; 32] = std::array::from_fn(|i| (i * 37 + 1) as u8);
        create(&path, Kind::Host, &key).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(read_host(&path).unwrap().expose(), &key);
        let failure = create(&path, Kind::Host, &[1; 32]).unwrap_err();
        assert_eq!(failure.exit, Exit::CannotCreate);
        assert_eq!(read_host(&path).unwrap().expose(), &key);
        let mixed_up = read_group(&path).unwrap_err();
        assert!(mixed_up.message.contains("holds a host key, not a group key"), "{mixed_up}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let (_folder, path) = folder();
        create(&path, Kind::Group, &[5; 32]).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let failure = read_group(&path).unwrap_err();
            assert_eq!(failure.exit, Exit::Config, "{mode:o}");
            assert!(failure.advice.contains("chmod 600"), "{failure}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(read_group(&path).is_ok());
    }

    #[test]
    fn a_missing_key_says_how_to_make_one() {
        let (_folder, path) = folder();
        assert!(read_host(&path).unwrap_err().advice.contains("mobctl keygen host"));
        assert!(read_group(&path).unwrap_err().advice.contains("mobctl keygen group"));
        let folder = path.parent().unwrap();
        std::fs::create_dir(folder).unwrap();
        assert!(read_host(folder).unwrap_err().message.contains("not a regular file"));
    }

    #[test]
    fn hostile_texts() {
        let digits = "ab".repeat(32);
        assert!(parse(format!("# comment\n\n  group-key {digits} \n").as_bytes(), Kind::Group).is_ok());
        for text in [
            String::new(),
            "# only a comment\n".into(),
            digits.clone(),
            format!("group-key {digits}x"),
            format!("group-key {digits} {digits}"),
            format!("group-key {digits}\ngroup-key {digits}\n"),
            format!("group-key {}", "ag".repeat(32)),
            format!("group-key {}", "00".repeat(32)),
            format!("GROUP-KEY {digits}"),
            format!("host-key {digits}"),
            "group-key".into(),
            format!("group-key {digits}\n{}", " ".repeat(5000)),
            "group-key \u{e9}".into(),
        ] {
            assert!(parse(text.as_bytes(), Kind::Group).is_err(), "{text}");
        }
    }
}
