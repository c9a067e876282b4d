//! Syncs that fail, by a shim in front of the C library.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child::{Said, Task, acknowledged};
use crate::common::{config, open, read};

/// Fails `FAIL_COUNT` syncs after the first `FAIL_AFTER`.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/syscall.h>
static long calls = 0;
static int fails(void) {
    const char *after = getenv("FAIL_AFTER"), *count = getenv("FAIL_COUNT");
    long call = __atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST);
    if (!after || !count) return 0;
    if (call < atol(after) || call >= atol(after) + atol(count)) return 0;
    errno = EIO;
    return 1;
}
int fsync(int fd) { return fails() ? -1 : syscall(SYS_fsync, fd); }
int fdatasync(int fd) { return fails() ? -1 : syscall(SYS_fdatasync, fd); }
"#;

pub(crate) fn shim(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    std::fs::write(&source, SHIM).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(built.unwrap().success(), "a C compiler is where Rust can link");
    library
}

fn run(after: u32, count: u32, shim: &Path, folder: &Path) -> Vec<Said> {
    let task = Task { count: 60, persist: true, ..Task::new(folder) };
    task.start(|command| {
        command.env("LD_PRELOAD", shim).env("FAIL_AFTER", after.to_string()).env("FAIL_COUNT", count.to_string());
    })
    .rest()
}

#[test]
fn a_failed_sync_fails_the_store_for_good_and_loses_nothing_acknowledged() {
    let tools = crate::common::folder();
    let shim = shim(tools.path());
    let mut failed_while_writing = 0;
    // Once, then healthy again: the disk that "recovers" is the trap. And for ever.
    for count in [1, 1_000_000] {
        for after in [0, 1, 4, 9, 15, 22, 30, 31, 40, 55] {
            let folder = crate::common::folder();
            // Making a store takes many syncs, opening it a few: the early ones hit the first, the later ones a commit.
            if after > 4 {
                drop(open(config(folder.path())).unwrap());
            }
            let said = run(after, count, &shim, folder.path());
            let what = format!("{count} failures after {after} syncs: {said:?}");
            let acknowledged = acknowledged(&said);
            if let Some(at) = said.iter().position(|said| matches!(said, Said::Refused(..))) {
                failed_while_writing += 1;
                assert!(matches!(&said[at], Said::Refused(_, error) if error.contains("store stopped")), "{what}");
                assert!(said[at..].iter().all(|said| matches!(said, Said::Refused(..))), "acknowledged after: {what}");
            }
            let store = open(config(folder.path())).unwrap_or_else(|error| panic!("{error}: {what}"));
            let found = read(&store, 60, 64).unwrap();
            assert!(found >= acknowledged.len() as u64, "{found} are there of {what}");
            assert!(!folder.path().join("store.failed").exists(), "the note is used up");
        }
    }
    assert!(failed_while_writing > 6, "the shim hardly ever failed a commit: {failed_while_writing}");
}

#[test]
fn after_a_failed_sync_the_journal_is_written_anew() {
    let tools = crate::common::folder();
    let shim = shim(tools.path());
    let folder = crate::common::folder();
    drop(open(config(folder.path())).unwrap());
    let said = run(30, 1_000_000, &shim, folder.path());
    assert!(!acknowledged(&said).is_empty(), "{said:?}");
    assert!(folder.path().join("store.failed").exists(), "the failure is noted for the next start");
    let inode = |path: PathBuf| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let before = inode(crate::common::journal(folder.path()));
    drop(open(config(folder.path())).unwrap());
    assert_ne!(inode(crate::common::journal(folder.path())), before, "pages the system forgot to write are written");
}
