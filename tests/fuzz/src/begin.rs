//! What a fuzzer's process begins with. It has no arguments of ours, as libFuzzer reads them all.
//!
//! `LB_FUZZ_TARGET` names the target; `LB_FUZZ_SEEDS` is a directory that its seeds and its dictionary are written to.

use std::{env, fs, io, path::Path, sync::OnceLock};

use crate::target::{self, Target};

/// The target of this process.
///
/// # Panics
/// There is none of that name, or its seeds cannot be written.
pub fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&'static Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = env::var("LB_FUZZ_TARGET").expect("LB_FUZZ_TARGET names a target");
        let target = target::ALL.iter().find(|target| target.name == name);
        let target = target.expect("LB_FUZZ_TARGET is a target's name");
        if let Some(directory) = env::var_os("LB_FUZZ_SEEDS") {
            write_seeds(target, Path::new(&directory)).expect("LB_FUZZ_SEEDS can be written to");
        }
        target
    })
}

/// `seeds/N` and `words`, as libFuzzer reads them.
fn write_seeds(target: &Target, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory.join("seeds"))?;
    for (number, seed) in (target.seeds)().iter().enumerate() {
        fs::write(directory.join(format!("seeds/{number}")), seed)?;
    }
    let quoted = (target.words)().into_iter().map(|word| {
        let escaped: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("\"{escaped}\"\n")
    });
    fs::write(directory.join("words"), quoted.collect::<String>())
}
