//! mobctl: the command and daemon of mobconn, see mobctl(8).

use clap::Parser;
use mobctl::cli::Cli;
use mobctl::exit::Exit;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help is no error; it goes to standard output.
            let exit = if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
            let _ = error.print();
            return exit;
        }
    };
    match mobctl::run::run(cli) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(exit)) => ExitCode::from(exit as u8),
        Err(failure) => {
            let text = failure.to_string().replace('\n', "\nmobctl: ");
            let _ = writeln!(std::io::stderr(), "mobctl: {text}");
            ExitCode::from(failure.exit as u8)
        }
    }
}
