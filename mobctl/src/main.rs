//! mobctl: the command and daemon of mobconn, see mobctl(8).

use clap::Parser;
use mobctl::cli::Cli;
use mobctl::exit::Exit;
use std::io::Write;
use std::process::ExitCode;

/// The note that tells FreeBSD's kernel for which release a program was built; without it the kernel assumes a very old
/// one. Linkers of other systems may leave out the one that the C runtime has.
#[cfg(target_os = "freebsd")]
mod abi_note {
    /// An ELF note, elf(5), whose name is `FreeBSD`.
    #[repr(C)]
    struct Note {
        name_length: u32,
        value_length: u32,
        kind: u32,
        name: [u8; 8],
        value: u32,
    }

    /// `NT_FREEBSD_ABI_TAG`.
    const ABI_TAG: u32 = 1;
    /// `__FreeBSD_version` of 14.0-RELEASE.
    const RELEASE: u32 = 1_400_097;

    // SAFETY: the section is for notes, and this is one.
    #[unsafe(link_section = ".note.tag")]
    #[used]
    static NOTE: Note = Note { name_length: 8, value_length: 4, kind: ABI_TAG, name: *b"FreeBSD\0", value: RELEASE };
}

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
