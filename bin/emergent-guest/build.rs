//! Compiles the library that the guest preloads into programs where the kernel lacks a flag: see
//! `src/process/preload.rs`.

use std::{env, path::PathBuf, process::Command};

const SOURCE: &str = "src/process/preload.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let output = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("preload.so");
    // What links this program for its machine is a C compiler, too.
    let compiler = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let status = Command::new(&compiler)
        .args(["-shared", "-nostdlib", "-O2", "-fPIC", "-s", "-Wl,--build-id=none", "-Wl,-z,noseparate-code", "-o"])
        .arg(output)
        .arg(SOURCE)
        .status();
    let done = status.unwrap_or_else(|error| panic!("a C compiler is needed and {compiler:?} cannot be run: {error}"));
    assert!(done.success(), "{compiler:?} could not compile {SOURCE}");
}
