//! What the tests share: where the module is, tuples and packets.
#![allow(dead_code, reason = "every test program uses a part of it")]

use mobconn_kpi::{Machine, Options};
use std::path::{Path, PathBuf};

/// The module under test: `MOBCONN_KO`, or `build/mobconn.ko` of this workspace.
pub(crate) fn module() -> PathBuf {
    let path = std::env::var_os("MOBCONN_KO").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/mobconn.ko"),
        PathBuf::from,
    );
    assert!(path.is_file(), "{} is missing: run `make kmod` first", path.display());
    path
}

/// A machine with the module loaded.
pub(crate) fn loaded(options: Options) -> Machine {
    let machine = Machine::boot(options);
    if let Err(error) = machine.kldload(&module(), &[]) {
        panic!("kldload: {error}; console: {:#?}", machine.console());
    }
    machine
}
