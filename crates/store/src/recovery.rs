//! Decides, before the engine opens its folder, whether everything acknowledged is there.
//!
//! Nothing is changed before the decision, so a refused start leaves the evidence as it was and each further start
//! refuses alike. What is cut from a journal is cut here, not by the engine.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::Error;
use crate::folder::Folder;
use crate::head::{Head, Mark, Notes};
use crate::journal::{Journals, Survey};
use crate::layout;

/// What is known when the engine may open its folder.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) notes: Notes,
    /// The mark, where only the opened engine can tell whether its writes are there.
    pub(crate) unproven: Option<u64>,
    /// The last group in the journals.
    pub(crate) last: Option<u64>,
    /// Whether the failure of the last process is dealt with.
    pub(crate) written_anew: bool,
    /// Whether something was given up.
    pub(crate) repaired: bool,
    /// Whether there was no store before.
    pub(crate) is_new: bool,
    /// Copies of journals that were cut, to be put back should the start be refused after all.
    copies: Vec<(PathBuf, PathBuf)>,
    place: String,
}

/// Looks at everything, and cuts what was never acknowledged; with `repair` also what was.
pub(crate) fn prepare(folder: &Folder, repair: bool) -> Result<Prepared, Error> {
    let engine = folder.engine();
    let (mark, mut notes) = match Head::read(&folder.head())? {
        Mark::At(mark, notes) => (Some(mark), notes),
        Mark::Absent if is_unfinished(&engine)? => {
            discard_unfinished(&engine)?;
            return Ok(Prepared { is_new: true, ..Prepared::default() });
        }
        unusable if !repair => {
            let detail = if unusable == Mark::Absent { "the file is missing" } else { "not a high-water mark" };
            return Err(Error::Damaged { place: folder.head().display().to_string(), detail: detail.to_owned() });
        }
        _ => {
            warn!(path = %folder.head().display(), "repair: the high-water mark is made anew");
            (None, Notes { tables: layout::all_tables(&engine), given_up: Vec::new() })
        }
    };
    if !engine.exists() {
        return without_engine(&engine, mark.unwrap_or(0), repair);
    }
    check_version(&engine, repair)?;
    layout::check(&engine, &notes.tables)?;
    let own = notes.tables.first().map(|own| layout::sorted_files(&engine, *own)).transpose()?;
    // While nothing of the store's own table has left the journals, they go back to the first group.
    let complete = mark.is_some() && own.is_some_and(|files| files.is_empty());
    let journals = Journals::survey(&engine, complete.then_some(1))?;
    let last = journals.last().or(complete.then_some(0));
    let place = journals.end().map_or_else(|| engine.display().to_string(), |(path, at, _)| describe(path, at));
    let lost = find_loss(&engine, mark, last, &notes, &journals);
    let first = journals.surveys.iter().find_map(|s| s.groups).map_or(0, |(first, _)| first);
    notes.given_up.retain(|(_, last)| last + 1 >= first);
    let mut prepared = Prepared { notes, last, place, ..Prepared::default() };
    match lost {
        Some(lost) if !repair => return Err(lost),
        Some(lost) => {
            warn!(%lost, "repair: given up");
            prepared.notes.given_up.extend(journals.holes.iter().map(|hole| (hole.first, hole.last)));
            prepared.repaired = true;
        }
        // Whatever the opened engine holds is what is kept.
        None if last.is_none() && repair => prepared.repaired = true,
        None if last.is_none() => prepared.unproven = mark,
        None => {}
    }
    prepared.repaired |= repair && mark.is_none();
    cut_all(folder, &journals, repair, &mut prepared)?;
    prepared.written_anew = folder.failed().exists() && write_anew(&engine, &journals)?;
    Ok(prepared)
}

impl Prepared {
    /// Compares the opened engine's `last` group with the mark, where that was left open. On an error the engine must
    /// be closed and the copies [put back](Self::put_back).
    pub(crate) fn prove(&self, last: u64) -> Result<(), Error> {
        match self.unproven {
            Some(acknowledged) if acknowledged > last => Err(Error::Lost {
                acknowledged,
                found: last,
                place: self.place.clone(),
                detail: "they are neither in the journals nor in the sorted files".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Undoes the cuts.
    pub(crate) fn put_back(&self) -> Result<(), Error> {
        for (journal, copy) in &self.copies {
            std::fs::copy(copy, journal).map_err(Error::io("write", journal))?;
        }
        self.forget();
        Ok(())
    }

    /// Removes the copies that nobody needs.
    pub(crate) fn forget(&self) {
        for (_, copy) in &self.copies {
            if let Err(error) = std::fs::remove_file(copy) {
                warn!(path = %copy.display(), %error, "could not remove a copy of a journal");
            }
        }
    }
}

/// The first acknowledged writes that are missing, as an error.
fn find_loss(engine: &Path, mark: Option<u64>, last: Option<u64>, notes: &Notes, journals: &Journals) -> Option<Error> {
    let known = |first, last| notes.given_up.iter().any(|given| given.0 <= first && last <= given.1);
    if let Some(hole) = journals.holes.iter().find(|hole| !known(hole.first, hole.last)) {
        return Some(Error::Lost {
            acknowledged: hole.last,
            found: hole.first - 1,
            place: describe(&hole.path, hole.at),
            detail: hole.detail.to_owned(),
        });
    }
    let (acknowledged, found) = (mark?, last?);
    let end = journals.end();
    let place = end.map_or_else(|| engine.display().to_string(), |(path, at, _)| describe(path, at));
    let detail = end.map_or("there is no journal", |(_, _, detail)| detail).to_owned();
    (acknowledged > found).then_some(Error::Lost { acknowledged, found, place, detail })
}

fn describe(path: &Path, at: u64) -> String {
    format!("{} at byte {at}", path.display())
}

/// Whether no start has ever come as far as making the mark: nothing was ever written.
fn is_unfinished(engine: &Path) -> Result<bool, Error> {
    if !engine.exists() {
        return Ok(true);
    }
    let journals = Journals::survey(engine, None)?;
    Ok(journals.last().is_none() && journals.troubles().next().is_none() && !layout::has_sorted_files(engine))
}

/// Removes what the engine could neither use nor make again.
fn discard_unfinished(engine: &Path) -> Result<(), Error> {
    if engine.exists() && !layout::version(engine).exists() {
        std::fs::remove_dir_all(engine).map_err(Error::io("remove the unfinished", engine))?;
    }
    Ok(())
}

fn without_engine(engine: &Path, acknowledged: u64, repair: bool) -> Result<Prepared, Error> {
    let place = engine.display().to_string();
    if repair {
        warn!(place, acknowledged, "repair: the folder is missing; starting empty");
        return Ok(Prepared { repaired: true, ..Prepared::default() });
    }
    let detail = "the folder is missing".to_owned();
    Err(match acknowledged {
        0 => Error::Damaged { place, detail },
        _ => Error::Lost { acknowledged, found: 0, place, detail },
    })
}

fn check_version(engine: &Path, repair: bool) -> Result<(), Error> {
    let path = layout::version(engine);
    if std::fs::read(&path).is_ok_and(|bytes| bytes == layout::VERSION) {
        return Ok(());
    }
    // Only whole groups prove that this is the version we know, and not a later one.
    if repair && Journals::survey(engine, None)?.last().is_some() {
        warn!(path = %path.display(), "repair: the version marker is made anew");
        return std::fs::write(&path, layout::VERSION).map_err(Error::io("write", &path));
    }
    let detail = if path.exists() { "not the version of the engine" } else { "the file is missing" };
    Err(Error::Damaged { place: path.display().to_string(), detail: detail.to_owned() })
}

/// Cuts each journal in trouble after its last whole group. What may yet be needed is copied to `aside` first.
fn cut_all(folder: &Folder, journals: &Journals, repair: bool, prepared: &mut Prepared) -> Result<(), Error> {
    for trouble in journals.troubles() {
        let place = describe(&trouble.path, trouble.valid_end);
        if repair || prepared.unproven.is_some() {
            let copy = set_aside(&folder.aside(), trouble)?;
            if repair {
                warn!(place, what = trouble.trouble, copy = %copy.display(), "repair: set aside the journal and cut it");
                prepared.repaired = true;
            } else {
                prepared.copies.push((trouble.path.clone(), copy));
            }
        } else {
            info!(place, what = trouble.trouble, "cut an unfinished write; nothing acknowledged was in it");
        }
        let file = OpenOptions::new().write(true).open(&trouble.path);
        let cut = file.and_then(|file| file.set_len(trouble.valid_end).and_then(|()| file.sync_all()));
        cut.map_err(Error::io("cut", &trouble.path))?;
    }
    Ok(())
}

/// Copies a journal under its name and the place of the trouble; no earlier copy is overwritten.
fn set_aside(aside: &Path, trouble: &Survey) -> Result<PathBuf, Error> {
    std::fs::create_dir_all(aside).map_err(Error::io("create", aside))?;
    let name = trouble.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut to = aside.join(format!("{name}.from-{}", trouble.valid_end));
    let mut again = 1;
    while to.exists() {
        again += 1;
        to = aside.join(format!("{name}.from-{}.{again}", trouble.valid_end));
    }
    let copy = std::fs::copy(&trouble.path, &to).and_then(|_| File::open(&to)?.sync_all());
    copy.map_err(Error::io("write", &to))?;
    Ok(to)
}

/// Writes each journal into a new file. After a failed sync the system may take pages for written that are not: they
/// can be read, and vanish with the next power cut, unless they are written again. Answers whether there was room: on
/// a full disk a start must be possible, or nobody could delete anything.
fn write_anew(engine: &Path, journals: &Journals) -> Result<bool, Error> {
    for survey in &journals.surveys {
        let new = survey.path.with_extension("jnl.new");
        let write = || {
            let mut from = File::open(&survey.path)?.take(survey.valid_end);
            let mut to = File::create(&new)?;
            std::io::copy(&mut from, &mut to)?;
            to.sync_all()?;
            std::fs::rename(&new, &survey.path)
        };
        match write() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                warn!(path = %survey.path.display(), "a sync had failed, and there is no room to write the journal anew");
                std::fs::remove_file(&new).map_err(Error::io("remove", &new))?;
                return Ok(false);
            }
            Err(error) => return Err(Error::io("write anew", &survey.path)(error)),
        }
    }
    info!(journals = journals.surveys.len(), "a write had failed: wrote the journals anew");
    File::open(engine).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", engine))?;
    Ok(true)
}
