//! What the engine does alone: it cuts its journal at the first place it cannot read and says nothing. These tests
//! promise nothing about our store. They are the reason for its mark, and fail when the engine learns to tell.

use std::path::Path;

use fjall::{CompressionType, Database, KeyspaceCreateOptions, PersistMode};

use crate::child::{Said, Task};
use crate::common::{key, trim, value};
use crate::full_disk::SmallDisk;

const COUNT: u64 = 10;
const LENGTH: usize = 64;

fn open(folder: &Path) -> fjall::Result<(Database, fjall::Keyspace)> {
    let database = Database::builder(folder).journal_compression(CompressionType::None).open()?;
    let table = database.keyspace("records", KeyspaceCreateOptions::default)?;
    Ok((database, table))
}

fn commit(database: &Database, table: &fjall::Keyspace, number: u64, length: usize) -> fjall::Result<()> {
    let mut batch = database.batch().durability(Some(PersistMode::SyncData));
    batch.insert(table, key(number), value(number, length));
    batch.commit()
}

/// The task of a child process, done by the engine alone.
pub(crate) fn write(task: &Task, say: fn(&str)) {
    let (database, table) = match open(&task.folder) {
        Ok(opened) => opened,
        Err(error) => return say(&format!("not-opened {error}")),
    };
    say("opened -");
    for number in 0..task.count {
        match commit(&database, &table, number, task.length) {
            Ok(()) => say(&format!("acknowledged {number}")),
            Err(error) => say(&format!("refused {number} {error}")),
        }
    }
}

/// Ten records, each in a batch of its own, synced and acknowledged. Returns the bytes of the journal.
fn filled(folder: &Path) -> Vec<u8> {
    let (database, table) = open(folder).unwrap();
    for number in 0..COUNT {
        commit(&database, &table, number, LENGTH).unwrap();
    }
    drop((table, database));
    trim(&folder.join("0.jnl"))
}

/// How many records are there after the journal was replaced, or the error.
fn survivors(damage: impl FnOnce(&mut Vec<u8>)) -> Result<u64, String> {
    let folder = crate::common::folder();
    let mut bytes = filled(folder.path());
    damage(&mut bytes);
    std::fs::write(folder.path().join("0.jnl"), bytes).unwrap();
    let opened = std::panic::catch_unwind(|| open(folder.path()));
    let (_database, table) = opened.map_err(|_| "panic".to_owned())?.map_err(|error| error.to_string())?;
    Ok((0..COUNT).filter(|number| table.get(key(*number)).unwrap() == Some(value(*number, LENGTH).into())).count()
        as u64)
}

/// Where record `number` starts in the journal: start (13), item head (21), key, value, end (13).
fn group(bytes: &[u8], number: u64) -> usize {
    let key = key(number);
    bytes.windows(key.len()).position(|window| window == key).unwrap() - 21 - 13
}

#[test]
fn bare_engine_forgets_a_torn_tail_without_a_word() {
    // Rightly so: a torn tail is a write that was never acknowledged. The engine cannot know that.
    let kept = survivors(|bytes| bytes.truncate(group(bytes, 9) + 20));
    assert_eq!(kept, Ok(9));
}

#[test]
fn bare_engine_forgets_acknowledged_records_after_a_flipped_start() {
    assert_eq!(survivors(|bytes| flip(bytes, 5, 0)), Ok(5), "half of the acknowledged records, and no error");
}

#[test]
fn bare_engine_forgets_acknowledged_records_after_a_flipped_end() {
    let end = 13 + 21 + key(5).len() + value(5, LENGTH).len();
    assert_eq!(survivors(|bytes| flip(bytes, 5, end)), Ok(5), "its tag");
    assert_eq!(survivors(|bytes| flip(bytes, 5, end + 10)), Ok(5), "its trailer");
}

#[test]
fn bare_engine_forgets_acknowledged_records_after_a_flipped_item_tag() {
    assert_eq!(survivors(|bytes| flip(bytes, 5, 13)), Ok(5));
}

#[test]
fn bare_engine_notices_a_flipped_value_without_naming_the_place() {
    let error = survivors(|bytes| flip(bytes, 5, 13 + 21 + key(5).len() + 3)).unwrap_err();
    assert!(!error.contains("jnl"), "{error}");
}

#[test]
fn bare_engine_does_not_notice_a_flipped_sequence() {
    // The start of a batch is outside the checksum. Here it does no harm; beside a sorted file it skips the batch.
    assert_eq!(survivors(|bytes| flip(bytes, 5, 5)), Ok(10));
}

#[test]
fn bare_engine_forgets_acknowledged_records_when_its_journal_is_gone() {
    let folder = crate::common::folder();
    filled(folder.path());
    std::fs::remove_file(folder.path().join("0.jnl")).unwrap();
    let (_database, table) = open(folder.path()).unwrap();
    assert!(table.is_empty().unwrap());
}

#[test]
fn bare_engine_deletes_a_table_whose_manifest_mark_is_gone() {
    let folder = crate::common::folder();
    filled(folder.path());
    std::fs::remove_file(folder.path().join("keyspaces/1/current")).unwrap();
    let (_database, table) = open(folder.path()).unwrap();
    assert!(table.is_empty().unwrap());
}

#[test]
fn bare_engine_tells_of_a_full_disk_and_takes_nothing_after_it() {
    let folder = tempfile::tempdir().unwrap();
    // Without the right to mount there is no full disk to show; the store's own test then uses another way.
    let Some(disk) = SmallDisk::mount(folder.path(), 12 << 20) else { return };
    let data = folder.path().join("data");
    let (database, table) = open(&data).unwrap();
    let written = (0..).take_while(|number| commit(&database, &table, *number, 5000).is_ok()).count() as u64;
    assert!(matches!(commit(&database, &table, written, 5000), Err(fjall::Error::Poisoned)));
    drop((table, database));
    disk.grow();
    let (_database, table) = open(&data).unwrap();
    assert!((0..written).all(|number| table.get(key(number)).unwrap() == Some(value(number, 5000).into())));
}

#[test]
fn bare_engine_tells_of_a_failed_sync_and_takes_nothing_after_it() {
    let folder = crate::common::folder();
    drop(open(folder.path()).unwrap());
    let tools = tempfile::tempdir().unwrap();
    let shim = crate::sync::shim(tools.path());
    let task = Task { count: 60, bare: true, ..Task::new(folder.path()) };
    let said = task
        .start(|command| {
            command.env("LD_PRELOAD", &shim).env("FAIL_AFTER", "30").env("FAIL_COUNT", "1");
        })
        .rest();
    let refused = said.iter().position(|said| matches!(said, Said::Refused(..))).expect("the shim failed a sync");
    assert!(refused > 1 && said[refused..].iter().all(|said| matches!(said, Said::Refused(..))), "{said:?}");
}

fn flip(bytes: &mut [u8], number: u64, offset: usize) {
    let at = group(bytes, number) + offset;
    bytes[at] ^= 0x40;
}
