//! `mobctl completion`: what a shell needs to complete the command line of mobctl.
//!
//! sh(1) completes nothing but file names, so there is nothing for it.

use crate::cli::Cli;
use clap::{Arg, Command, CommandFactory, ValueEnum, ValueHint};
use clap_complete::aot;

const NAME: &str = "mobctl";

/// The shells that complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// With the package bash-completion.
    Bash,
    /// fish.
    Fish,
    /// csh(1) of the base system.
    Tcsh,
    /// zsh, as the function `_mobctl`.
    Zsh,
}

/// The script for a shell.
#[must_use]
pub fn script(shell: Shell) -> String {
    let mut command = Cli::command();
    let generator = match shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Fish => aot::Shell::Fish,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Tcsh => {
            command.build();
            return tcsh(&command);
        }
    };
    let mut script = Vec::new();
    aot::generate(generator, &mut command, NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// One builtin `complete`: of its rules the first that fits holds, so what follows a word comes before options, and
/// those before the commands.
fn tcsh(command: &Command) -> String {
    let mut rules = Vec::new();
    let mut options = Vec::new();
    gather(command, &mut rules, &mut options);
    options.sort();
    options.dedup();
    rules.sort();
    rules.dedup();
    // An abbreviated rule of one word would hide the same word as an option, so options are told apart by their dashes.
    rules.push(format!("'c/--/({})/'", options.join(" ")));
    rules.push(format!("'p/1/({})/'", names(command)));
    format!("complete {NAME} {}\n", rules.join(" "))
}

fn gather(command: &Command, rules: &mut Vec<String>, options: &mut Vec<String>) {
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        if let Some(long) = argument.get_long() {
            options.push(long.to_owned());
            rules.extend(values(argument).map(|list| format!("'n/--{long}/{list}/'")));
        } else if argument.is_positional() && command.get_name() != NAME {
            rules.extend(values(argument).map(|list| format!("'n/{}/{list}/'", command.get_name())));
        }
    }
    for inner in command.get_subcommands() {
        if inner.has_subcommands() {
            rules.push(format!("'n/{}/({})/'", inner.get_name(), names(inner)));
        }
        gather(inner, rules, options);
    }
}

fn names(command: &Command) -> String {
    command.get_subcommands().map(Command::get_name).collect::<Vec<_>>().join(" ")
}

/// What an argument can be: a list, or files; nothing if it could be anything.
fn values(argument: &Arg) -> Option<String> {
    let known = argument.get_possible_values();
    // A switch has the values true and false, which nobody writes.
    if !argument.get_action().takes_values() {
        None
    } else if !known.is_empty() {
        Some(format!("({})", known.iter().map(|value| value.get_name()).collect::<Vec<_>>().join(" ")))
    } else {
        matches!(argument.get_value_hint(), ValueHint::FilePath | ValueHint::AnyPath).then(|| "f".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_option_is_known_to_every_shell() {
        let mut command = Cli::command();
        command.build();
        let (mut rules, mut options) = (Vec::new(), Vec::new());
        gather(&command, &mut rules, &mut options);
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for name in command.get_subcommands().map(Command::get_name).chain(options.iter().map(String::as_str)) {
                assert!(script.contains(name), "{shell:?} does not know {name}:\n{script}");
            }
            // Those of fish know no values without an option.
            for value in ["host", "group", "public", "tcp"].into_iter().filter(|_| *shell != Shell::Fish) {
                assert!(script.contains(value), "{shell:?} does not know {value}:\n{script}");
            }
        }
    }

    #[test]
    fn tcsh_has_one_line() {
        let script = script(Shell::Tcsh);
        assert_eq!(script.lines().count(), 1);
        for rule in ["'n/flow/(add del)/'", "'n/add/(tcp udp)/'", "'n/keygen/(host group public)/'", "'n/--config/f/'"]
        {
            assert!(script.contains(rule), "{rule} is not in {script}");
        }
        assert!(!script.contains("(true false)"), "{script}");
    }
}
