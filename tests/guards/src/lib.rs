//! Guards of the artefact: what `mobconn.ko` must be so that a FreeBSD 14
//! kernel takes it, and what its interface must be so that C programs and
//! `mobctl` mean the same.
//!
//! Every guard is a function from what it looks at to a list of complaints;
//! the tests hold each against the real module, where there must be none, and
//! against something broken, where there must be one.
#![forbid(unsafe_code)]

pub mod abi;
pub mod instructions;
pub mod metadata;
pub mod module;
pub mod relocations;
pub mod symbols;

use std::path::PathBuf;

/// The top of the source tree.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The module under test: `MOBCONN_KO`, or what the Makefile builds.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn mobconn_ko() -> Vec<u8> {
    let path = std::env::var_os("MOBCONN_KO").map_or_else(|| root().join("build/mobconn.ko"), PathBuf::from);
    match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => panic!("{}: {error}: build it with `make kmod`", path.display()),
    }
}
