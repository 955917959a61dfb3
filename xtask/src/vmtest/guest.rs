//! What lies in the guest: test programs, what they run, the shared libraries of all of them, and a script.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::{cpio::Archive, debian, report::MARK};
use crate::{machine::program, workspace::Workspace};

/// A test program and what it is told.
#[derive(Debug)]
pub(crate) struct Suite {
    /// As cargo names it.
    pub(crate) program: &'static str,
    /// Its root module: names may come twice.
    pub(crate) source: &'static str,
    /// For libtest.
    pub(crate) arguments: &'static [&'static str],
}

/// Programs that tests start, or ask for before they start. Busybox has some of these names, and knows less.
const PROGRAMS: [&str; 7] = ["ip", "ethtool", "nsenter", "setpriv", "taskset", "nginx", "curl"];
/// Where the daemon lies in the guest.
const DAEMON: &str = "/tests/daemon";

/// Everything but the kernel's modules.
///
/// # Errors
/// A program is not built or not there.
pub(crate) fn userland(workspace: &Workspace, place: &Path, suites: &[Suite]) -> Result<Archive> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "sys", "tmp", "run", "root"] {
        archive.directory(directory);
    }
    let busybox = debian::unpacked(workspace, place, "busybox", &["busybox-static"])?;
    let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| busybox.join(path));
    let busybox = busybox.iter().find(|path| path.is_file()).context("no busybox in its package")?;
    archive.file("bin/busybox", 0o755, read(busybox)?);
    archive.link("bin/sh", "busybox");
    let mut libraries = BTreeSet::new();
    for name in PROGRAMS {
        let path = program(name).with_context(|| format!("no program {name}"))?;
        archive.file(&format!("usr/bin/{name}"), 0o755, read(&path)?);
        libraries.extend(libraries_of(&path)?);
    }
    let built = test_programs(workspace)?;
    for Suite { program, source, .. } in suites {
        let source = workspace.root.join(source);
        let (_, path) = built
            .iter()
            .find(|(of, _)| Path::new(of) == source)
            .with_context(|| format!("no test program of {}", source.display()))?;
        libraries.extend(libraries_of(Path::new(path))?);
        archive.file(&format!("tests/{program}"), 0o755, stripped(workspace, place, Path::new(path))?);
    }
    let daemon = workspace.built("debug", "lb");
    libraries.extend(libraries_of(&daemon)?);
    archive.file(DAEMON, 0o755, stripped(workspace, place, &daemon)?);
    for library in libraries {
        archive.file(&library, 0o755, read(Path::new(&library))?);
    }
    // Where the tests look for it: beside their own sources, by a path with `..` in it.
    let object = workspace.bpf_object();
    archive.file(&object.to_string_lossy(), 0o644, read(&object)?);
    archive.directory(&workspace.root.join("tests").to_string_lossy());
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n".to_vec());
    archive.file("etc/group", 0o644, b"root:x:0:\n".to_vec());
    archive.file("init", 0o755, script(suites).into_bytes());
    Ok(archive)
}

/// The first process: furnishes the machine, runs the suites, and powers off.
fn script(suites: &[Suite]) -> String {
    let mut script = format!(
        "#!/bin/sh\n\
         /bin/busybox mkdir -p /busybox\n\
         /bin/busybox --install -s /busybox\n\
         export PATH=/usr/bin:/bin:/busybox HOME=/root CI=true RUST_BACKTRACE=1 LB_BIN={DAEMON} LB_WITNESS_STEP=3 \
         LB_KTLS=required\n\
         mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev\n\
         mount -t tmpfs tmp /tmp && mount -t tmpfs run /run && mount -t bpf bpf /sys/fs/bpf\n\
         for module in /modules/*.ko; do\n\
         insmod $module || echo {MARK} insmod $module failed\n\
         done\n\
         ip link set lo up\n\
         up() {{ cut -d ' ' -f 1 /proc/uptime; }}\n\
         cd /root\n"
    );
    for Suite { program, arguments, .. } in suites {
        let arguments = arguments.join(" ");
        // Writing to a String cannot fail.
        let _ = writeln!(script, "echo {MARK} begin {program} $(up)");
        let _ = writeln!(script, "/tests/{program} {arguments} 2>&1; echo {MARK} end {program} $? $(up)");
    }
    let _ = writeln!(script, "echo {MARK} done; poweroff -f");
    script
}

/// Root module and path of every test program, by cargo's own account.
fn test_programs(workspace: &Workspace) -> Result<Vec<(String, String)>> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--no-run", "--quiet", "--message-format=json"]);
    let output = cargo.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo test --no-run: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// From cargo's JSON messages, one a line, with `"src_path":"/w/tests/xdp/main.rs"`, `"test":true` where the profile
/// ends, and `"executable":"/t/debug/deps/xdp-0123"`.
fn executables(messages: &str) -> Vec<(String, String)> {
    let field = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("\"{name}\":\""))?;
        rest.split_once('"').map(|(value, _)| value.to_owned())
    };
    let tests = messages.lines().filter(|line| line.contains("\"test\":true}"));
    tests.filter_map(|line| Some((field(line, "src_path")?, field(line, "executable")?))).collect()
}

/// Paths of the shared libraries that a program is started with, its loader among them.
fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let libraries = libraries(&text);
    if libraries.is_empty() || text.contains("not found") {
        bail!("ldd {}: {text}{}", program.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(libraries)
}

/// From `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f..)` and `/lib64/ld-linux-x86-64.so.2 (0x7f..)`.
fn libraries(text: &str) -> Vec<String> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    text.lines().filter_map(path).collect()
}

/// A program without its debug information, most of its size; its symbols stay, for backtraces.
fn stripped(workspace: &Workspace, place: &Path, program: &Path) -> Result<Vec<u8>> {
    let small = place.join("stripped");
    let mut strip = workspace.command("strip");
    strip.args(["--strip-debug", "-o"]).arg(&small).arg(program);
    crate::workspace::run(&mut strip)?;
    let bytes = read(&small)?;
    fs::remove_file(&small).with_context(|| format!("remove {}", small.display()))?;
    Ok(bytes)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_told_from_other_executables() {
        let messages = concat!(
            r#"{"target":{"name":"lb","src_path":"/w/main.rs"},"profile":{"test":false},"executable":"/t/lb"}"#,
            "\n",
            r#"{"target":{"name":"lb","src_path":"/w/lib.rs"},"profile":{"test":true},"executable":"/t/lb-0123"}"#,
            "\n",
            r#"{"target":{"name":"x","src_path":"/w/x.rs"},"profile":{"test":true},"executable":null}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executables(messages), [("/w/lib.rs".to_owned(), "/t/lb-0123".to_owned())]);
    }

    #[test]
    fn libraries_and_the_loader_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(libraries(text), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn a_script_marks_begin_and_end_of_each_suite() {
        let script = script(&[Suite { program: "rows", source: "rows.rs", arguments: &["--skip", "x"] }]);
        for line in [
            "echo vmtest: begin rows $(up)\n",
            "/tests/rows --skip x 2>&1; echo vmtest: end rows $? $(up)\n",
            "echo vmtest: done; poweroff -f\n",
        ] {
            assert!(script.contains(line), "{line} in {script}");
        }
    }
}
