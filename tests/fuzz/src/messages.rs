//! Target `messages`.

/// Runs the target.
pub(crate) fn run(data: &[u8]) {
    mobconn_dprp::fuzz::decoders(data);
}
