//! Lines of text without an allocation: for the log and for panics.
//!
//! Context: anywhere.

use core::ffi::CStr;
use core::fmt::{self, Write};
use core::panic::PanicInfo;

/// A line of at most 191 bytes; what does not fit is cut off.
pub(crate) struct Line {
    // The last byte stays zero.
    bytes: [u8; 192],
    len: usize,
}

impl Line {
    /// `text` as a line.
    pub(crate) fn new(text: fmt::Arguments<'_>) -> Self {
        let mut line = Self { bytes: [0; 192], len: 0 };
        let _ = line.write_fmt(text);
        line
    }

    /// The line for C.
    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let last = self.bytes.len().saturating_sub(1);
        let room = self.bytes.get_mut(self.len..last).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(text.bytes()) {
            *to = from;
            self.len = self.len.saturating_add(1);
        }
        Ok(())
    }
}

/// Writes one line to the system log: `log!(Warning, "{} is odd", x)`.
macro_rules! log {
    ($level:ident, $($text:tt)+) => {
        mobconn_sys::log(mobconn_sys::LogLevel::$level, $crate::text::Line::new(format_args!($($text)+)).as_c_str())
    };
}
pub(crate) use log;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    mobconn_sys::panic(Line::new(format_args!("{info}")).as_c_str())
}
