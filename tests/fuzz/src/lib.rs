//! Fuzz targets: functions that take any bytes and panic when something that must hold does not.
//!
//! | target | what is fed | what must hold, besides not panicking |
//! |---|---|---|
//! | `packets` | a table filled by any commands, packets of any shape and split | see `oracle`; `input` undoes `output`; other flows pass |
//! | `quotes` | ICMP and ICMPv6 errors about bound flows, cut anywhere | see `oracle`; a quote becomes what the other side would have quoted |
//! | `commands` | any ioctls to `mobconn.ko`, in any order | an outcome that is written down; refused means unchanged; lists, and nothing written elsewhere |
//! | `messages` | the decoders of the protocol | what is read is written back byte for byte |
//! | `network` | two endpoints over real tables, a network that loses, repeats, reorders and forges | what one end sends, the other accepts |
//! | `texts` | configuration, key files, requests of the control socket, tuples | what is accepted is in range |
//! | `names` | answers of name servers, as meant and changed on the way; TSIG keys, resolv.conf, marks | what was meant is read; what is signed cannot be changed; nothing is believed without a signature |
//! | `lists` | connection lists of the kernels | - |
//!
//! `tests/corpus.rs` runs them over what was found so far; `tools/fuzz` searches for more.

mod commands;
mod lists;
mod messages;
mod names;
mod network;
mod oracle;
mod packet;
mod packets;
mod quotes;
mod table;
mod texts;

use std::sync::OnceLock;

/// What a target is: it takes any bytes.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("packets", packets::run),
    ("quotes", quotes::run),
    ("commands", commands::run),
    ("messages", messages::run),
    ("network", network::run),
    ("texts", texts::run),
    ("names", names::run),
    ("lists", lists::run),
];

/// The target that `MOBCONN_FUZZ` names.
///
/// # Panics
/// When it names none.
pub fn chosen() -> Target {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("MOBCONN_FUZZ").unwrap_or_default();
        let found = TARGETS.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("MOBCONN_FUZZ is \"{name}\", which is no target")).1
    })
}
