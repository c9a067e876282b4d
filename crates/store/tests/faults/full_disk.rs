//! A disk that fills up.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tidegate_store::{Config, Error};

use crate::child::{Said, Task, acknowledged};
use crate::common::{JOBS, PAYLOADS, config, key, open, read, record, value, wait};

/// A tmpfs of its own, where mounting is permitted.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn mount(folder: &Path, bytes: u64) -> Option<Self> {
        let size = format!("size={bytes}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tidegate-test"]).arg(folder).output();
        let mounted = mount.is_ok_and(|output| output.status.success());
        mounted.then(|| Self(folder.to_path_buf()))
    }

    pub(crate) fn grow(&self) {
        let grown = Command::new("mount").args(["-o", "remount,size=1g"]).arg(&self.0).status();
        assert!(grown.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn growth_is_refused_below_the_reserve_while_work_in_progress_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(Config { reserve_bytes: u64::MAX, ..config(folder.path()) }).unwrap();
    let error = store.check_growth().unwrap_err();
    assert!(matches!(error, Error::DiskFull { reserve: u64::MAX, .. }) && error.is_retryable(), "{error}");
    wait(store.submit(record(0, 64))).unwrap();
    store.check().unwrap();
}

/// Writes until the disk is full, with records of `length` bytes; what was acknowledged is there once there is room.
fn fill_up(length: usize, buffer_bytes: u64) {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), 12 << 20) else { return fill_up_to_a_limit() };
    let data = folder.path().join("data");
    let config = Config { buffer_bytes, ..config(&data) };
    let store = open(config.clone()).unwrap();
    let mut acknowledged = 0;
    let failure = loop {
        // The wait is for a hang, which is what this test is about; the disk is full within a second.
        let written = wait(async {
            tokio::time::timeout(Duration::from_secs(30), store.submit(record(acknowledged, length))).await
        });
        match written.expect("a commit hangs on a full disk") {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(failure, Error::Failed { .. }), "{failure}");
    assert!(matches!(store.check(), Err(Error::Failed { .. })));
    for number in 0..5 {
        assert!(wait(store.submit(record(acknowledged + 1 + number, length))).is_err(), "acknowledged after a failure");
    }
    assert!(matches!(store.close(), Err(Error::Failed { .. })), "close tells");
    drop(store);
    // A start on the full disk is possible, or nobody could delete anything.
    let store = open(config.clone()).unwrap();
    assert_eq!(store.get(JOBS, &key(0)).unwrap(), Some(0_u64.to_be_bytes().to_vec()));
    drop(store);
    disk.grow();
    let store = open(config).unwrap();
    for number in 0..acknowledged {
        assert_eq!(store.get(JOBS, &key(number)).unwrap(), Some(number.to_be_bytes().to_vec()));
        assert_eq!(store.get(PAYLOADS, &key(number)).unwrap(), Some(value(number, length)));
    }
    wait(store.submit(record(acknowledged, length))).unwrap();
}

/// Where mounting is not permitted: a limit on the size of files, beyond what the engine allocates ahead.
fn fill_up_to_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let task = Task { length: 1 << 20, ..Task::new(folder.path()) };
    let said = task.start_after("trap '' XFSZ; ulimit -f 140000").rest();
    assert!(matches!(said.last(), Some(Said::Refused(_, error)) if error.contains("stopped")), "{:?}", said.last());
    let store = open(config(folder.path())).unwrap();
    let acknowledged = acknowledged(&said).len() as u64;
    assert!(read(&store, acknowledged + 1, 1 << 20).unwrap() >= acknowledged);
}

#[test]
fn a_full_disk_fails_the_store_and_loses_nothing_acknowledged() {
    fill_up(5000, 32 << 20);
}

#[test]
fn a_full_disk_under_the_sorted_files_never_hangs_a_commit() {
    // Tiny buffers: the engine's background threads meet the full disk first, with buffers queued behind them.
    for buffer in [4 << 10, 16 << 10, 64 << 10] {
        fill_up(3000, buffer);
    }
}
