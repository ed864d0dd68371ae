//! What this host published, kept in a file: after a crash the next start repairs it.

use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What is in the file, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// The name.
    pub name: String,
    /// The stamp of the mark, in hexadecimal, if there is one.
    pub stamp: Option<String>,
    /// Every address that the name may have.
    pub addresses: Vec<IpAddr>,
}

impl Store {
    /// Reads the file at `path`. One that is missing or spoiled says nothing: then the servers are asked.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        let text = fs::read(path).ok().filter(|text| text.len() < 1 << 20)?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes the file, all or nothing.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_string(self)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_data()?;
        fs::rename(&beside, path)
    }

    /// The stamp as a number.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        u64::from_str_radix(self.stamp.as_deref()?, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ddns");
        assert_eq!(Store::read(&path), None);
        let store = Store {
            name: "a.example".into(),
            stamp: Some("00000000000000ff".into()),
            addresses: vec![[192, 0, 2, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()],
        };
        store.write(&path).unwrap();
        store.write(&path).unwrap();
        assert_eq!(Store::read(&path), Some(store.clone()));
        assert_eq!(store.number(), Some(255));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        for spoiled in ["", "{", "{\"name\": 1}", "\u{0}"] {
            fs::write(&path, spoiled).unwrap();
            assert_eq!(Store::read(&path), None, "{spoiled}");
        }
    }
}
