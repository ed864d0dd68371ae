//! Everything that fuzzing found so far, once more: the corpus, and what once failed.

use std::fs;
use std::path::Path;

/// Runs every target over the files of its folder below `kind`; returns how many there were.
fn replay(kind: &str, target: &str) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(target);
    let Ok(files) = fs::read_dir(&folder) else { return 0 };
    let run = mobconn_fuzz::TARGETS.iter().find(|(name, _)| *name == target).expect("a target").1;
    let mut count = 0;
    for file in files {
        let path = file.expect("a folder can be read").path();
        println!("{}", path.display());
        run(&fs::read(&path).expect("a file can be read"));
        count += 1;
    }
    count
}

#[test]
fn what_was_found_holds() {
    for (target, _) in mobconn_fuzz::TARGETS {
        assert!(replay("corpus", target) > 10, "{target} has no corpus");
    }
}

#[test]
fn what_once_failed_holds() {
    for (target, _) in mobconn_fuzz::TARGETS {
        replay("crashes", target);
    }
}

/// No folder of inputs is left over from a target that has gone.
#[test]
fn every_folder_has_its_target() {
    for kind in ["corpus", "crashes"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind);
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let name = entry.expect("a folder can be read").file_name();
            assert!(mobconn_fuzz::TARGETS.iter().any(|(target, _)| name == *target), "{name:?}");
        }
    }
}
