//! Interfaces of `[xdp]` come and go while the daemon runs.

use anyhow::{Result, ensure};
use lb_tests::{
    daemon::{self, Daemon},
    scene::{self, Scene},
    topology::VIP_V4,
    wait::{self, PATIENCE},
};

fn config() -> String {
    format!(
        r#"
[xdp]
interfaces = ["eth0", "late0"]

[vip.echo]
address = ["{VIP_V4}"]
ports = ["9000/tcp"]
forward = "ipip"
pool = "echo"

[pool.echo]
backends = ["10.77.0.11"]
"#
    )
}

fn wait_for(scene: &Scene, daemon: &Daemon<'_>, expected: &[&str]) -> Result<()> {
    wait::until_ok("interfaces with a program", PATIENCE, || {
        let status = daemon.status()?;
        let interfaces = status["xdp"]["interfaces"].as_array().cloned().unwrap_or_default();
        let names: Vec<_> = interfaces.iter().filter_map(|one| one["interface"].as_str()).collect();
        ensure!(names == expected, "{names:?}");
        Ok(())
    })?;
    for name in expected {
        let mut shown = scene.topology().lb.netns.command("ip");
        shown.args(["link", "show", "dev", name]);
        let shown = lb_tests::process::run(shown, PATIENCE)?.success()?;
        ensure!(shown.contains("prog/xdp"), "no program: {shown}");
    }
    Ok(())
}

#[test]
fn an_interface_is_attached_when_it_comes_and_missed_when_it_goes() {
    scene::run(|scene| {
        let lb = &scene.topology().lb;
        let mut daemon = Daemon::start(scene, &config())?;
        wait_for(scene, &daemon, &["eth0"])?;
        ensure!(daemon.process().log().contains("interface late0 is not there"), "it was not said");
        for _ in 0..2 {
            lb.netns
                .ip("link add late0 type veth peer name latepeer\nlink set late0 up\nlink set latepeer up")?;
            wait_for(scene, &daemon, &["eth0", "late0"])?;
            lb.netns.ip("link del late0")?;
            wait_for(scene, &daemon, &["eth0"])?;
        }
        let log = daemon.process().log();
        ensure!(log.contains("the interface has come"), "{log}");
        ensure!(
            log.matches("no packet comes in by this interface").count() <= 3,
            "said again and again: {log}"
        );
        Ok(())
    });
}

/// Somebody else's program on the interface: the daemon says whose, and changes nothing.
#[test]
fn a_strangers_program_is_named_and_left_alone() {
    scene::run(|scene| {
        let lb = &scene.topology().lb;
        let _stranger = lb_tests::daemon::Decap::start(scene, lb)?;
        let file = scene.directory().join("stranger.toml");
        let head =
            format!("version = 1\n[admin]\nsocket = {:?}\nhttp = \"\"\n", scene.directory().join("a.sock"));
        let state = format!("[state]\ndir = {:?}\n", scene.directory().join("state"));
        std::fs::create_dir_all(scene.directory().join("state"))?;
        std::fs::write(&file, head + &state + &config())?;
        let (file, pins) = (file.display().to_string(), scene.pin_directory().display().to_string());
        let output = daemon::verb(lb, &["run", "--config", &file, "--bpf-dir", &pins])?;
        ensure!(output.code == 1, "{output:?}");
        for part in ["eth0", "lb_decap", "id "] {
            ensure!(output.stderr.contains(part), "{part}: {output:?}");
        }
        ensure!(lb.has_xdp()?, "it was taken off");
        Ok(())
    });
}
