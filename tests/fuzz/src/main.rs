//! Fuzzes the target that the environment variable `MOBCONN_FUZZ` names; libFuzzer's own options apply.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mobconn_fuzz::chosen()(data));
