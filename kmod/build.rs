//! Compiles `declare.c` and `probes.c` as the bindings' shim is compiled, and has the linker
//! make a kernel module: one relocatable object, laid out by `mobconn.ld`.

use std::env;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    for file in ["build.rs", "declare.c", "mobconn.h", "mobconn.ld", "probes.c"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut declarations = cc::Build::new();
    declarations.no_default_flags(true).files(["declare.c", "probes.c"]);
    for flag in env::var("DEP_MOBCONN_SYS_CFLAGS")?.split('\u{1f}') {
        declarations.flag(flag);
    }
    for object in declarations.try_compile_intermediates()? {
        println!("cargo::rustc-link-arg-bins={}", object.display());
    }
    println!("cargo::rustc-link-arg-bins=-r");
    println!("cargo::rustc-link-arg-bins=-T{}", here.join("mobconn.ld").display());
    Ok(())
}
