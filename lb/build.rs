//! Hands the object of the packet programs to `steering::object`, when it has been built.
//!
//! `LB_EBPF_OBJECT` names a file, else `target/bpf/lb.o` of the workspace is taken, which
//! `cargo xtask build-ebpf` makes. Without either the daemon is built without packet programs and says so.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    println!("cargo::rustc-check-cfg=cfg(lb_object)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LB_EBPF_OBJECT");
    let Some(object) = object()? else { return Ok(()) };
    println!("cargo::rerun-if-changed={}", object.display());
    let out = PathBuf::from(variable("OUT_DIR")?).join("lb.o");
    fs::copy(&object, &out)
        .map_err(|error| io::Error::new(error.kind(), format!("copy {}: {error}", object.display())))?;
    println!("cargo::rustc-cfg=lb_object");
    println!("cargo::rustc-env=LB_EBPF_OBJECT_COPY={}", out.display());
    Ok(())
}

/// The object to embed, if there is one. A path that was named must be there.
fn object() -> io::Result<Option<PathBuf>> {
    if let Some(named) = env::var_os("LB_EBPF_OBJECT").filter(|path| !path.is_empty()) {
        return Ok(Some(named.into()));
    }
    let directory = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../target/bpf");
    let object = directory.join("lb.o");
    if object.is_file() {
        return Ok(Some(object));
    }
    // Cargo takes a missing file as changed on every build; the directory it will appear in can be watched.
    fs::create_dir_all(&directory)?;
    println!("cargo::rerun-if-changed={}", directory.display());
    Ok(None)
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}
