//! Compiles `shim.c` and makes the bindings of the kernel's interfaces.
//!
//! Which headers: `MOBCONN_SYSDIR`, the `sys` directory of a FreeBSD source
//! tree; or else `MOBCONN_HEADERS`, a directory with FreeBSD's installed
//! headers as zig carries them (`generic-freebsd` beside one directory for the
//! architecture), with `MOBCONN_CK`, a directory that holds `ck_queue.h` and
//! its kin. `tools/env` sets them.

use std::env;
use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The functions of the kernel that the wrappers call.
const FUNCTIONS: &[&str] = &[
    "__mtx_lock_flags",
    "__mtx_unlock_flags",
    "_mtx_destroy",
    "_mtx_init",
    "_sx_xlock",
    "_sx_xunlock",
    "arc4random_buf",
    "copyin",
    "copyout",
    "counter_u64_alloc",
    "counter_u64_fetch",
    "counter_u64_free",
    "counter_u64_zero",
    "destroy_dev",
    "devfs_get_cdevpriv",
    "devfs_set_cdevpriv",
    "frag6_input",
    "free",
    "if_getindex",
    "if_getmtu",
    "in6_localip",
    "in_localip",
    "ip6_output",
    "ip_output",
    "ip_reass",
    "m_copyup",
    "m_freem",
    "m_pullup",
    "m_rcvif_restore",
    "m_rcvif_serialize",
    "make_dev_s",
    "malloc",
    "malloc_aligned",
    "mobconn_.*",
    "netisr_queue",
    "panic",
    "pfil_add_hook",
    "pfil_link",
    "pfil_remove_hook",
    "priv_check",
    "sx_destroy",
    "sx_init_flags",
    "sysctl_add_oid",
    "sysctl_ctx_free",
    "sysctl_ctx_init",
    "sysctl_handle_64",
    "sysctl_handle_int",
    "taskqueue_cancel",
    "taskqueue_cancel_timeout",
    "taskqueue_drain",
    "taskqueue_drain_timeout",
    "taskqueue_enqueue",
    "taskqueue_enqueue_timeout",
    "uiomove",
];

const TYPES: &[&str] = &[
    "cdev",
    "cdevsw",
    "knote",
    "malloc_type",
    "mbuf",
    "modeventtype_t",
    "_pfil_head",
    "mtx",
    "pfil_return_t",
    "sdt_probe",
    "sysctl_oid",
    "sysctl_req",
    "task",
    "timeout_task",
    "uio",
];

const VARIABLES: &[&str] = &[
    "CSUM_.*",
    "CTLFLAG_.*",
    "CTLTYPE_.*",
    "E[A-Z0-9]+",
    "FREAD",
    "FWRITE",
    "LOG_.*",
    "MAKEDEV_.*",
    "M_EXTPG",
    "M_NOWAIT",
    "IP_RAWOUTPUT",
    "M_PROTO1",
    "M_PROTO10",
    "M_PROTO11",
    "M_SKIP_FIREWALL",
    "M_RDONLY",
    "M_WAITOK",
    "M_ZERO",
    "NETISR_IP",
    "NETISR_IPV6",
    "IPPROTO_DONE",
    "IPPROTO_FRAGMENT",
    "OID_AUTO",
    "O_NONBLOCK",
    "PAGE_SIZE",
    "PFIL_.*",
    "POLLIN",
    "POLLRDNORM",
    "PRIV_NETINET_PF",
    "UID_ROOT",
    "GID_WHEEL",
    "mobconn_.*",
    "modeventtype.*",
    "osreldate",
    "physmem",
    "hz",
    "taskqueue_thread",
    "time_uptime",
];

/// The kernel's generated options that its headers look at.
const OPTIONS: &str = "\
#define SMP 1
#define MAC 1
#define VIMAGE 1
#define EARLY_AP_STARTUP 1
#define CC_CUBIC 1
#define NEW_PCIB 1
#define NETLINK 1
";

/// What `MOBCONN_FREEBSD` may be, and the first `__FreeBSD_version` that a
/// module for that branch may name as the oldest kernel it serves: that of the
/// first release, so that every later kernel of the branch takes it.
const BRANCHES: &[(&str, u32)] = &[("14", 1_400_097), ("15", 1_500_068)];

fn directory(name: &str) -> Option<PathBuf> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var_os(name).map(PathBuf::from)
}

fn link(target: &Path, name: &Path) -> Result<()> {
    match fs::remove_file(name) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(symlink(target, name)?)
}

/// The include directories, in order.
fn includes(out: &Path) -> Result<Vec<PathBuf>> {
    let own = out.join("include");
    fs::create_dir_all(&own)?;
    if let Some(sys) = directory("MOBCONN_SYSDIR") {
        for (name, folder) in [("machine", "amd64"), ("x86", "x86"), ("i386", "i386")] {
            link(&sys.join(folder).join("include"), &own.join(name))?;
        }
        return Ok(vec![own, sys.clone(), sys.join("contrib/ck/include")]);
    }
    let (Some(headers), Some(ck)) = (directory("MOBCONN_HEADERS"), directory("MOBCONN_CK")) else {
        return Err("set MOBCONN_SYSDIR, or MOBCONN_HEADERS and MOBCONN_CK: see tools/env".into());
    };
    // The ck headers lie among those of the build machine, which must not be seen.
    for entry in fs::read_dir(&ck)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b"ck_") {
            link(&entry.path(), &own.join(entry.file_name()))?;
        }
    }
    link(&ck.join("gcc"), &own.join("gcc"))?;
    Ok(vec![own, headers.join("x86_64-freebsd-none"), headers.join("generic-freebsd")])
}

fn main() -> Result<()> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    for file in ["build.rs", "headers.h", "shim.h", "shim.c", "bell.c"] {
        println!("cargo::rerun-if-changed={file}");
    }

    let options = out.join("opt_global.h");
    fs::write(&options, OPTIONS)?;

    println!("cargo::rerun-if-env-changed=MOBCONN_FREEBSD");
    let branch = env::var("MOBCONN_FREEBSD").unwrap_or_else(|_| "14".into());
    let Some((branch, oldest)) = BRANCHES.iter().find(|(name, _)| *name == branch) else {
        return Err(format!("MOBCONN_FREEBSD is {branch}, which is none of {BRANCHES:?}").into());
    };
    // For the module, which looks at the running kernel too.
    fs::write(
        out.join("branch.rs"),
        format!(
            "/// The branch of FreeBSD whose kernels this is built for.\npub const BRANCH: i32 = {branch};\n\n\
             /// The oldest of them, as `osreldate`: that of the first release.\npub const OLDEST: i32 = {oldest};\n"
        ),
    )?;

    let mut flags: Vec<String> = [
        &format!("--target=x86_64-unknown-freebsd{branch}.0"),
        "-std=gnu17",
        "-ffreestanding",
        "-nostdinc",
        "-mcmodel=kernel",
        "-D_KERNEL",
        "-DKLD_MODULE",
        "-include",
    ]
    .map(String::from)
    .to_vec();
    flags.push(options.display().to_string());
    let includes = includes(&out)?;
    flags.extend(includes.iter().map(|path| format!("-isystem{}", path.display())));
    flags.push(format!("-I{}", here.display()));
    if env::var_os("MOBCONN_SYSDIR").is_none() {
        flags.push(format!("-D__FreeBSD_version={oldest}"));
    }

    let bindings = bindgen::Builder::default()
        .header(here.join("headers.h").display().to_string())
        .clang_args(&flags)
        .use_core()
        .rust_target(bindgen::RustTarget::stable(85, 0).map_err(|error| error.to_string())?)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_debug(false)
        .generate_comments(false)
        .merge_extern_blocks(true);
    let bindings = FUNCTIONS.iter().fold(bindings, |b, name| b.allowlist_function(name));
    let bindings = TYPES.iter().fold(bindings, |b, name| b.allowlist_type(name));
    let bindings = VARIABLES.iter().fold(bindings, |b, name| b.allowlist_var(name));
    bindings.generate()?.write_to_file(out.join("ffi.rs"))?;

    // As the kernel's own makefiles compile a module; without a stack
    // protector, because some clang versions address its guard through a
    // global offset table, which the kernel linker rejects.
    flags.extend(
        [
            "-O2",
            "-fno-common",
            "-fno-omit-frame-pointer",
            "-mno-omit-leaf-frame-pointer",
            "-mno-red-zone",
            "-mno-mmx",
            "-mno-sse",
            "-mno-aes",
            "-mno-avx",
            "-msoft-float",
            "-fno-asynchronous-unwind-tables",
            "-fwrapv",
            "-fno-stack-protector",
            "-Wall",
            "-Wextra",
            "-Wno-missing-field-initializers",
            "-Werror",
        ]
        .map(String::from),
    );
    let mut shim = cc::Build::new();
    shim.no_default_flags(true).file("shim.c").file("bell.c");
    for flag in &flags {
        shim.flag(flag);
    }
    shim.try_compile("mobconn_shim")?;
    // For the declarations of the module, which are C too (kmod/build.rs).
    println!("cargo::metadata=CFLAGS={}", flags.join("\u{1f}"));
    Ok(())
}
