//! Loading and unloading the module.

mod common;

use mobconn_kpi::{Errno, Options};

#[test]
fn loads_and_unloads() {
    let machine = common::loaded(Options { verbose: true, ..Options::default() });
    assert_eq!(machine.kldunload(false), Ok(()));
    assert_eq!(machine.kldunload(false), Err(Errno::ENOENT));
}
