//! Where the log goes: standard error in the foreground, syslog(3) otherwise.

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::syslog::{Facility, Priority, Severity, syslog};
use std::io::Write;
use std::sync::OnceLock;

#[derive(Debug)]
struct Logger {
    foreground: bool,
}

/// Begins to log. Once in a process; later calls only change the level.
pub(super) fn begin(foreground: bool, level: LevelFilter) {
    static LOGGER: OnceLock<Logger> = OnceLock::new();
    let logger = LOGGER.get_or_init(|| Logger { foreground });
    // Fails when it is set already, which is as well.
    let _ = log::set_logger(logger);
    log::set_max_level(level);
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if self.foreground {
            let level = match record.level() {
                Level::Error => "error",
                Level::Warn => "warning",
                Level::Info => "info",
                Level::Debug | Level::Trace => "debug",
            };
            // Nobody may be listening.
            let _ = writeln!(std::io::stderr(), "mobctl: {level}: {}", record.args());
            return;
        }
        let severity = match record.level() {
            Level::Error => Severity::LOG_ERR,
            Level::Warn => Severity::LOG_WARNING,
            Level::Info => Severity::LOG_INFO,
            Level::Debug | Level::Trace => Severity::LOG_DEBUG,
        };
        let text = record.args().to_string().replace('\0', " ");
        let _ = syslog(Priority::new(severity, Facility::LOG_DAEMON), text.as_str());
    }

    fn flush(&self) {}
}
