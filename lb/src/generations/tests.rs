//! Crashes at every step, full disks, damaged files: after a restart the old or the new config runs, whole.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use super::{
    disk::{Disk, Step},
    *,
};
use crate::{
    config::{ChangedEntry, Digest},
    model::Generation,
};

/// A directory of one test; gone with it.
pub(super) struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lb-generations-{name}-{}", std::process::id()));
        _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl std::ops::Deref for TemporaryDirectory {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// What befalls a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// It fails with this error, once.
    Errno(i32),
    /// It never comes, and nothing after it: the process was killed.
    Kill,
}

/// Steps that were done, and what befalls one of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    done: Vec<Step>,
    at: Option<(usize, Fault)>,
    came_to_pass: bool,
}

impl Faults {
    pub(super) fn at(step: usize, fault: Fault) -> Self {
        Self(Arc::new(Mutex::new(Plan { at: Some((step, fault)), ..Plan::default() })))
    }

    pub(super) fn came_to_pass(&self) -> bool {
        self.0.lock().unwrap().came_to_pass
    }

    pub(super) fn step(&self, step: Step) -> io::Result<()> {
        let mut plan = self.0.lock().unwrap();
        let index = plan.done.len();
        plan.done.push(step);
        match plan.at {
            Some((at, Fault::Errno(errno))) if at == index => {
                plan.came_to_pass = true;
                Err(io::Error::from_raw_os_error(errno))
            }
            Some((at, Fault::Kill)) if at <= index => {
                plan.came_to_pass = true;
                Err(io::Error::other("killed"))
            }
            _ => Ok(()),
        }
    }
}

const BOUNDS: Bounds = Bounds { keep: 3, span: 2, changed_bytes: 1 << 20 };

fn about(number: u64) -> About {
    About {
        number: Generation(number),
        when_ns: number,
        author: Author { by: "test".to_owned(), uid: Some(0), pid: None },
        origin: Origin::Api,
        file: Some(SourceFile { path: "/etc/lb/lb.toml".into(), digest: Digest::of(b"x") }),
        directory: "/etc/lb".into(),
        etag: "e".to_owned(),
        changed: vec!["pool.api".to_owned()],
        references: [("keys/hash".to_owned(), Digest::of(b"y"))].into(),
    }
}

/// What the config of a generation says: some pools, of which each generation changes one and takes one away.
fn document(number: u64) -> Value {
    let mut document = json!({ "version": 1, "limits": { "connections": 7 }, "pool": {} });
    for at in 0..number {
        let entry = (at + 3 > number).then(|| json!({ "weight": at }));
        crate::config::put_entry(&mut document, "pool", Some(&format!("p{at}")), entry);
    }
    document
}

fn changes(number: u64) -> Vec<ChangedEntry> {
    let entry = |at: u64, after| ChangedEntry {
        table: "pool",
        name: Some(format!("p{at}").into()),
        before: None,
        after,
    };
    let mut changes = vec![entry(number - 1, Some(json!({ "weight": number - 1 })))];
    changes.extend(number.checked_sub(3).map(|at| entry(at, None)));
    changes
}

/// One change as control makes it; `number` of the document, which is that of the generation where nothing failed.
fn change(store: &mut Store, number: u64) -> Result<(), StoreError> {
    let about = About { number: store.next_number(), ..about(number) };
    let is_first = store.current().is_none();
    let prepared = match is_first {
        true => store.prepare(about, &Content::Whole(&document(number))),
        false => store.prepare(about, &Content::Changed(&changes(number))),
    }?;
    store.commit(prepared)
}

fn open(state: &Path) -> Opened {
    Store::open(state, BOUNDS).unwrap()
}

fn files(state: &Path) -> Vec<String> {
    let entries = fs::read_dir(state.join("generations")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_by_key(|name| name.split('.').next().unwrap().parse::<u64>().unwrap());
    names
}

#[test]
fn generations_come_back_as_they_were_kept() {
    let state = TemporaryDirectory::new("kept");
    let Opened { mut store, current, damaged } = open(&state);
    assert!(current.is_none() && damaged.is_empty() && store.list().is_empty());
    for number in 1..=9 {
        change(&mut store, number).unwrap();
        store.maintain(Pace::Idle, || document(number)).unwrap();
        let Opened { store: again, current, damaged } = open(&state);
        assert_eq!(damaged, []);
        assert_eq!(current.unwrap(), Record { about: about(number), document: document(number) });
        let listed: Vec<_> =
            again.list().into_iter().map(|(n, about)| (n.0, about.unwrap().number.0)).collect();
        let expected: Vec<_> = (1..=number).rev().take(3).map(|n| (n, n)).collect();
        assert_eq!(listed, expected);
        for (known, _) in listed {
            assert_eq!(again.load(Generation(known)).unwrap().document, document(known));
        }
    }
    assert_eq!(files(&state), ["7.whole", "8.on-7", "9.whole"]);
    assert!(matches!(store.load(Generation(2)), Err(StoreError::Unknown(Generation(2)))));
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(&state.join("generations")), 0o700);
    assert!(files(&state).iter().all(|file| mode(&state.join("generations").join(file)) == 0o600));
}

#[test]
fn what_was_prepared_is_dropped_without_a_trace() {
    let state = TemporaryDirectory::new("dropped");
    let mut store = open(&state).store;
    change(&mut store, 1).unwrap();
    let prepared = store.prepare(about(2), &Content::Changed(&changes(2))).unwrap();
    assert_eq!(
        (prepared.number(), files(&state)),
        (Generation(2), vec!["1.whole".into(), "2.prepared".into()])
    );
    drop(prepared);
    assert_eq!(files(&state), ["1.whole"]);
    assert!(matches!(store.prepare(about(2), &Content::Changed(&changes(2))), Err(StoreError::Misused(..))));
    assert_eq!(store.next_number(), Generation(3));
    let first = store.prepare(about(3), &Content::Changed(&changes(2))).unwrap();
    let second = store.prepare(about(4), &Content::Changed(&changes(2))).unwrap();
    store.commit(second).unwrap();
    assert!(matches!(store.commit(first), Err(StoreError::Misused(..))));
    assert_eq!(files(&state), ["1.whole", "4.on-1"]);
}

#[test]
fn numbers_go_up_over_restarts_and_rollbacks() {
    let state = TemporaryDirectory::new("numbers");
    let mut store = open(&state).store;
    for number in 1..=4 {
        change(&mut store, number).unwrap();
    }
    let old = store.load(Generation(2)).unwrap();
    let about = About { number: store.next_number(), origin: Origin::Rollback(Generation(2)), ..old.about };
    let prepared = store.prepare(about, &Content::Whole(&old.document)).unwrap();
    store.commit(prepared).unwrap();
    let Opened { store, current, .. } = open(&state);
    let current = current.unwrap();
    assert_eq!((current.about.number, current.document), (Generation(5), document(2)));
    assert_eq!((current.about.origin, store.next_number()), (Origin::Rollback(Generation(2)), Generation(6)));
}

/// A history with every kind of step, on a disk that fails somewhere.
fn history(disk: Disk, state: &Path, acknowledged: &mut u64, tried: &mut u64) -> Result<(), StoreError> {
    let mut store = Store::open_on(disk, state, BOUNDS)?.store;
    for number in 1..=7 {
        *tried = number;
        change(&mut store, number)?;
        *acknowledged = number;
        store.maintain(Pace::Idle, || document(number))?;
    }
    Ok(())
}

#[test]
fn a_crash_at_any_step_leaves_the_old_or_the_new() {
    for at in 0.. {
        let state = TemporaryDirectory::new("crash");
        let faults = Faults::at(at, Fault::Kill);
        let (mut acknowledged, mut tried) = (0, 0);
        let done = history(Disk { faults: faults.clone() }, &state, &mut acknowledged, &mut tried);
        let Opened { mut store, current, damaged } = open(&state);
        assert_eq!(damaged, [], "step {at}");
        let found = current.as_ref().map_or(0, |record| record.about.number.0);
        assert!(found == acknowledged || found == tried, "step {at}: {found}, {acknowledged}, {tried}");
        if let Some(record) = current {
            assert_eq!(record.document, document(found), "step {at}");
        }
        assert!(
            files(&state).iter().all(|file| file.contains(".whole") || file.contains(".on-")),
            "step {at}"
        );
        // And it goes on from there.
        change(&mut store, found + 1).unwrap();
        store.maintain(Pace::Idle, || document(found + 1)).unwrap();
        assert_eq!(open(&state).current.unwrap().document, document(found + 1), "step {at}");
        if !faults.came_to_pass() {
            assert!(done.is_ok() && at > 30, "{at}");
            return;
        }
    }
}

#[test]
fn a_full_or_broken_disk_changes_nothing_and_the_next_change_works() {
    for errno in [28, 5] {
        for at in 0.. {
            let state = TemporaryDirectory::new("full");
            let faults = Faults::at(at, Fault::Errno(errno));
            let mut store = Store::open_on(Disk { faults: faults.clone() }, &state, BOUNDS).unwrap().store;
            let mut said = 0;
            let mut now = 0;
            for number in 1..=5 {
                if let Err(error) = change(&mut store, now + 1) {
                    said += 1;
                    assert!(error.to_string().contains("/generations/"), "{error}");
                    assert!(error.to_string().contains("os error"), "{error}");
                }
                // Only a directory that was not synced may hold what was refused, and then it is said.
                let known = store.current().map_or(0, |about| about.when_ns);
                assert!(known == now || known == now + 1, "step {at}");
                now = known;
                said += u32::from(store.maintain(Pace::Idle, || document(now)).is_err());
                let Opened { current, damaged, .. } = open(&state);
                assert_eq!(damaged, [], "step {at}, change {number}");
                let expected = if now == 0 { None } else { Some(document(now)) };
                assert_eq!(current.map(|record| record.document), expected, "step {at}, change {number}");
            }
            assert!(now >= 4, "step {at}: one failed, {now} of 5 were made");
            if !faults.came_to_pass() {
                assert_eq!((said, now), (0, 5));
                break;
            }
            // What is left of a removed record is nothing that anybody has to know.
            assert!(said <= 1, "step {at}");
        }
    }
}

/// Nothing is renamed that was not synced, and no rename is believed before its directory was.
#[test]
fn every_change_is_synced_before_it_is_acknowledged() {
    let state = TemporaryDirectory::new("synced");
    let faults = Faults::default();
    let mut store = Store::open_on(Disk { faults: faults.clone() }, &state, BOUNDS).unwrap().store;
    change(&mut store, 1).unwrap();
    let steps = [Step::Create, Step::Write, Step::Sync, Step::Rename, Step::SyncDirectory];
    assert_eq!(faults.0.lock().unwrap().done, steps);
}

#[test]
fn what_is_damaged_is_named_and_the_one_before_runs() {
    let state = TemporaryDirectory::new("damaged");
    let mut store = open(&state).store;
    for number in 1..=6 {
        change(&mut store, number).unwrap();
        store.maintain(Pace::Idle, || document(number)).unwrap();
    }
    let file = |name: &str| state.join("generations").join(name);
    assert_eq!(files(&state), ["3.whole", "4.on-3", "5.whole", "6.on-5"]);
    let bytes = fs::read(file("6.on-5")).unwrap();
    fs::write(file("6.on-5"), &bytes[..bytes.len() - 7]).unwrap();
    let Opened { mut store, current, damaged } = open(&state);
    assert_eq!(current.unwrap().document, document(5));
    assert_eq!(damaged.len(), 1);
    assert!(damaged[0].to_string().ends_with(&format!(
        "/generations/6.on-5: has {} bytes after its first line instead of {}",
        bytes.len() - 7 - bytes.iter().position(|byte| *byte == b'\n').unwrap() - 1,
        bytes.len() - bytes.iter().position(|byte| *byte == b'\n').unwrap() - 1,
    )));
    assert!(store.list()[0].1.is_err() && store.list()[1].1.is_ok());
    assert!(matches!(store.load(Generation(6)), Err(StoreError::Damaged(_))));
    // The next one is of the one that runs, and of a new number.
    change(&mut store, 6).unwrap();
    let Opened { current, damaged, .. } = open(&state);
    assert_eq!(damaged, []);
    let current = current.unwrap();
    assert_eq!((current.about.number, current.document), (Generation(7), document(6)));
    // The whole one that others need.
    fs::write(file("5.whole"), b"").unwrap();
    let Opened { current, damaged, .. } = open(&state);
    assert_eq!(current.unwrap().document, document(4));
    let said: Vec<_> = damaged.iter().map(ToString::to_string).collect();
    assert!(said[0].ends_with("5.whole: is empty; generation 7 needs it"), "{said:?}");
    assert!(said[1].contains("6.on-5") && said[2].ends_with("5.whole: is empty"), "{said:?}");
    for name in files(&state) {
        fs::write(file(&name), b"lb-generation 2 0 0\n").unwrap();
    }
    let Opened { current, damaged, store } = open(&state);
    assert!(current.is_none() && damaged[0].what.contains("is of version \"2\""), "{damaged:?}");
    assert_eq!(store.next_number(), Generation(8));
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let state = TemporaryDirectory::new("foreign");
    change(&mut open(&state).store, 1).unwrap();
    let foreign = ["notes", "x.whole", "07.whole", "7.on-x", "7.other", "+7.whole"];
    for name in foreign {
        fs::write(state.join("generations").join(name), b"").unwrap();
    }
    let Opened { store, damaged, .. } = open(&state);
    assert_eq!((damaged, store.next_number()), (vec![], Generation(2)));
    assert!(foreign.iter().all(|name| state.join("generations").join(name).exists()));
}

#[test]
fn a_large_record_is_followed_by_a_whole_one() {
    let state = TemporaryDirectory::new("large");
    let bounds = Bounds { changed_bytes: 2000, span: 100, ..BOUNDS };
    let mut store = Store::open(&state, bounds).unwrap().store;
    change(&mut store, 1).unwrap();
    change(&mut store, 2).unwrap();
    store.maintain(Pace::Idle, || panic!("nobody needs it")).unwrap();
    let mut large = changes(3);
    large[0].after = Some(json!({ "note": "x".repeat(2000) }));
    let prepared = store.prepare(about(3), &Content::Changed(&large)).unwrap();
    store.commit(prepared).unwrap();
    store.maintain(Pace::Idle, || document(3)).unwrap();
    assert_eq!(files(&state), ["1.whole", "2.on-1", "3.whole"]);
}

const CHILD: &str = "LB_TEST_GENERATIONS_CHILD";

/// The process that [`a_process_that_is_killed`] kills: it makes changes until then, and says each that was acknowledged.
#[test]
fn child() {
    let Ok(state) = std::env::var(CHILD) else { return };
    let Opened { mut store, current, .. } = open(Path::new(&state));
    for number in current.map_or(0, |record| record.about.when_ns) + 1.. {
        change(&mut store, number).unwrap();
        println!("\nkept {number}");
        store.maintain(Pace::Idle, || document(number)).unwrap();
    }
}

#[test]
fn a_process_that_is_killed() {
    let state = TemporaryDirectory::new("killed");
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["generations::tests::child", "--exact", "--nocapture"])
            .env(CHILD, &*state)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut kept = 0;
        let mut read = |kept: &mut u64| {
            let line = lines.next()?.unwrap();
            if let Some(number) = line.strip_prefix("kept ") {
                *kept = number.parse().unwrap();
            }
            Some(())
        };
        for _ in 0..20 * round {
            read(&mut kept).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        while read(&mut kept).is_some() {}
        let Opened { current, damaged, .. } = open(&state);
        assert_eq!(damaged, []);
        let record = current.unwrap();
        let found = record.about.when_ns;
        assert!(kept > 0 && (found == kept || found == kept + 1), "{found}, {kept}");
        assert_eq!(record.document, document(found));
    }
}
