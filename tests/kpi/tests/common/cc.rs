//! Compiles the C modules of `testmod`, for FreeBSD, against FreeBSD's headers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

const OPTIONS: &str = "#define SMP 1\n#define MAC 1\n#define VIMAGE 1\n#define EARLY_AP_STARTUP 1\n#define NETLINK 1\n";

fn folder(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// FreeBSD's headers as zig carries them: `MOBCONN_HEADERS`, or where `make setup` puts them.
fn headers() -> PathBuf {
    if let Some(headers) = folder("MOBCONN_HEADERS") {
        return headers;
    }
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build/tools/python/lib");
    let versions = std::fs::read_dir(&python).into_iter().flatten().flatten();
    let found = versions
        .map(|version| version.path().join("site-packages/ziglang/lib/libc/include"))
        .find(|path| path.join("generic-freebsd").is_dir());
    found.expect("FreeBSD's headers are missing: run `make setup` first")
}

/// The compiler's arguments for kernel code.
fn flags(work: &Path) -> Vec<OsString> {
    let mut flags: Vec<OsString> = [
        "--target=x86_64-unknown-freebsd14.0",
        "-O1",
        "-std=gnu17",
        "-ffreestanding",
        "-nostdinc",
        "-fno-common",
        "-fno-omit-frame-pointer",
        "-mcmodel=kernel",
        "-mno-red-zone",
        "-mno-sse",
        "-msoft-float",
        "-fno-asynchronous-unwind-tables",
        "-fno-stack-protector",
        "-Wall",
        "-Werror",
        "-Wno-array-bounds",
        "-D_KERNEL",
        "-DKLD_MODULE",
        "-include",
    ]
    .map(OsString::from)
    .to_vec();
    let own = work.join("include");
    std::fs::create_dir_all(&own).expect("a folder");
    std::fs::write(own.join("opt_global.h"), OPTIONS).expect("a header");
    flags.push(own.join("opt_global.h").into());
    let mut include = |path: PathBuf| {
        flags.push("-isystem".into());
        flags.push(path.into());
    };
    if let Some(sys) = folder("MOBCONN_SYSDIR") {
        for (name, target) in [("machine", "amd64"), ("x86", "x86"), ("i386", "i386")] {
            link(&sys.join(target).join("include"), &own.join(name));
        }
        include(own);
        include(sys.clone());
        include(sys.join("contrib/ck/include"));
    } else {
        // ck's headers lie among those of the build machine, which must not be seen.
        let ck = folder("MOBCONN_CK").unwrap_or_else(|| "/usr/include".into());
        for entry in std::fs::read_dir(&ck).expect("MOBCONN_CK").flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(b"ck_") {
                link(&entry.path(), &own.join(entry.file_name()));
            }
        }
        link(&ck.join("gcc"), &own.join("gcc"));
        include(own);
        include(headers().join("x86_64-freebsd-none"));
        include(headers().join("generic-freebsd"));
        flags.push("-D__FreeBSD_version=1400097".into());
    }
    flags
}

fn link(target: &Path, name: &Path) {
    let _ = std::fs::remove_file(name);
    std::os::unix::fs::symlink(target, name).expect("a link");
}

fn clang() -> OsString {
    if let Some(clang) = std::env::var_os("MOBCONN_CLANG") {
        return clang;
    }
    let own = Path::new("/usr/lib/llvm-19/bin/clang");
    if own.exists() { own.into() } else { "clang".into() }
}

/// Compiles a C file of this crate for the FreeBSD kernel; `name` must be used by one test program only.
pub(crate) fn compile(source: &str, name: &str) -> PathBuf {
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&work).expect("a folder");
    let object = work.join(name).with_extension("ko");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let output = Command::new(clang())
        .args(flags(&work))
        .args([OsString::from("-c"), source.into(), "-o".into(), object.clone().into()])
        .output()
        .expect("clang (package clang-19)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    object
}
