//! Which files there are. Their names tell all that must be known before one is opened, so that a start
//! with ten thousand of them reads directories only.
//!
//! ```text
//! DIR/log/17.log                                                           not sealed yet
//! DIR/date=2026-12-01/hour=13/1764594000123-1764594060007-17.parquet       first and last `end`, number
//! ```
//! A number is a log's, and then that of the file made of it: of both only the file counts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};

/// What the archive may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Files whose newest record is older go, milliseconds.
    pub age_ms: u64,
    /// Beyond so many octets the oldest files go.
    pub octets: u64,
    /// With less room left on the file system the oldest files go, octets.
    pub free: u64,
}

/// A file.
#[derive(Debug)]
pub struct Entry {
    /// Where.
    pub path: PathBuf,
    /// Its number.
    pub number: u64,
    /// First and last `end` in it; none of a log, which may hold anything.
    pub ends: Option<(u64, u64)>,
    /// Its size.
    pub octets: AtomicU64,
    /// Whether it goes when nobody reads it any more.
    doomed: AtomicBool,
    /// Whether it was said that it cannot be read.
    unreadable: AtomicBool,
}

impl Entry {
    /// A file of `octets`.
    pub const fn new(path: PathBuf, number: u64, ends: Option<(u64, u64)>, octets: u64) -> Self {
        let (doomed, unreadable) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { path, number, ends, octets: AtomicU64::new(octets), doomed, unreadable }
    }

    /// Takes note that it cannot be read, and says so once.
    pub fn unreadable(&self, error: &io::Error) {
        if !self.unreadable.swap(true, Ordering::Relaxed) {
            warn!(%error, path = %self.path.display(), "a file of the archive cannot be read: answers leave it out");
        }
    }

    /// Whether it is a log.
    pub const fn is_log(&self) -> bool {
        self.ends.is_none()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Relaxed) {
            // What stays is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// All files, oldest first.
#[derive(Debug)]
pub struct Catalog {
    dir: PathBuf,
    entries: Mutex<Vec<Arc<Entry>>>,
}

impl Catalog {
    /// Finds what an earlier run left, and clears away what it did not finish.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir.join("log"))?;
        let mut entries = Vec::new();
        for date in fs::read_dir(dir)?.flatten() {
            if !date.file_name().to_string_lossy().starts_with("date=") {
                continue;
            }
            // What somebody else put there is no folder, or holds nothing of the archive's.
            for hour in fs::read_dir(date.path()).into_iter().flatten().flatten() {
                for file in fs::read_dir(hour.path()).into_iter().flatten().flatten() {
                    match sealed(&file.path()) {
                        Some((ends, number)) => {
                            let octets = file.metadata()?.len();
                            entries.push(Entry::new(file.path(), number, Some(ends), octets));
                        }
                        None if file.path().extension().is_some_and(|e| e == "tmp") => {
                            fs::remove_file(file.path())?;
                        }
                        None => {}
                    }
                }
            }
        }
        for file in fs::read_dir(dir.join("log"))?.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let Some(number) = name.strip_suffix(".log").and_then(|n| n.parse().ok()) else {
                continue;
            };
            if entries.iter().any(|entry| entry.number == number) {
                fs::remove_file(file.path())?;
                continue;
            }
            entries.push(Entry::new(file.path(), number, None, file.metadata()?.len()));
        }
        entries.sort_by_key(|entry| entry.number);
        let entries = entries.into_iter().map(Arc::new).collect();
        Ok(Self { dir: dir.to_owned(), entries: Mutex::new(entries) })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files as they are now. A log that is sealed meanwhile stays until this is dropped.
    pub fn now(&self) -> Vec<Arc<Entry>> {
        self.lock().clone()
    }

    /// Octets of all files.
    pub fn octets(&self) -> u64 {
        self.lock().iter().map(|entry| entry.octets.load(Ordering::Relaxed)).sum()
    }

    /// The next number, and the log's path.
    pub fn next_log(&self) -> (u64, PathBuf) {
        let number = self.lock().last().map_or(1, |entry| entry.number + 1);
        (number, self.dir.join("log").join(format!("{number}.log")))
    }

    /// Takes in a new log.
    pub fn add(&self, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        self.lock().push(Arc::clone(&entry));
        entry
    }

    /// Where the file of a log goes, its directory made.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn place(&self, number: u64, (first, last): (u64, u64)) -> io::Result<PathBuf> {
        let (date, hour) = date_and_hour(last);
        let folder = self.dir.join(format!("date={date}")).join(format!("hour={hour:02}"));
        fs::create_dir_all(&folder)?;
        Ok(folder.join(format!("{first}-{last}-{number}.parquet")))
    }

    /// Puts a file in the place of the log that it was made of, or nothing where the log had nothing. Says
    /// whether the log was still there: it may have been too old.
    pub fn sealed(&self, log: &Arc<Entry>, file: Option<Entry>) -> bool {
        let mut entries = self.lock();
        let Some(at) = entries.iter().position(|entry| Arc::ptr_eq(entry, log)) else {
            return false;
        };
        match file {
            Some(file) => entries[at] = Arc::new(file),
            None => drop(entries.remove(at)),
        }
        log.doomed.store(true, Ordering::Relaxed);
        true
    }

    /// Removes what must go, oldest first; never the newest, which is being written.
    pub fn bound(&self, keep: &Keep, now_ms: u64) {
        let too_old = now_ms.saturating_sub(keep.age_ms);
        let is_too_old = |e: &Arc<Entry>| e.ends.is_some_and(|(_, last)| last < too_old);
        // Looked at once: a file that a query has open frees its room later, and what others write
        // meanwhile is no reason to give all of it up at once.
        let mut missing = self.room().map_or(0, |room| keep.free.saturating_sub(room));
        loop {
            let (at, why) = {
                let entries = self.lock();
                let sum = |e: &Arc<Entry>| e.octets.load(Ordering::Relaxed);
                // Not only the first: one record from the future must not hold back what came after it.
                match entries.iter().position(is_too_old) {
                    Some(at) => (at, "age"),
                    None if entries.iter().map(sum).sum::<u64>() > keep.octets => (0, "octets"),
                    None if missing > 0 => (0, "room"),
                    None => return,
                }
            };
            let Some(freed) = self.evict(at, why) else { return };
            missing = missing.saturating_sub(freed.max(1));
        }
    }

    /// Removes the oldest file because the disk is full; says whether there was one to remove.
    pub fn give_up_oldest(&self) -> bool {
        self.evict(0, "full disk").is_some()
    }

    /// Removes a file, unless it is the only one; its octets.
    fn evict(&self, at: usize, why: &'static str) -> Option<u64> {
        let mut entries = self.lock();
        if entries.len() < 2 || at >= entries.len() {
            return None;
        }
        let oldest = entries.remove(at);
        drop(entries);
        if let Err(error) = fs::remove_file(&oldest.path) {
            warn!(%error, path = %oldest.path.display(), "a file of the archive cannot be removed");
        }
        // Its hour and its day go with their last file.
        let folders = oldest.path.ancestors().skip(1).take(2).filter(|_| !oldest.is_log());
        for folder in folders {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        info!(why, path = %oldest.path.display(), "a file of the archive was removed");
        Some(oldest.octets.load(Ordering::Relaxed))
    }

    fn room(&self) -> Option<u64> {
        let system = rustix::fs::statvfs(&self.dir).ok()?;
        Some(system.f_bavail.saturating_mul(system.f_frsize))
    }
}

fn sealed(path: &Path) -> Option<((u64, u64), u64)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".parquet")?;
    let mut numbers = name.split('-').map(str::parse::<u64>);
    let (first, last, number) =
        (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(((first, last), number))
}

/// Day and hour of an instant, UTC: days to a date after Howard Hinnant's `civil_from_days`.
fn date_and_hour(ms: u64) -> (String, u64) {
    let (days, hour) = (ms / 86_400_000, ms / 3_600_000 % 24);
    let shifted = days.min(10_000_000) + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (format!("{year:04}-{month:02}-{day:02}"), hour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (secs, expected) in [
            (0, ("1970-01-01", 0)),
            (951_782_400, ("2000-02-29", 0)),
            (1_764_594_000, ("2025-12-01", 13)),
            (4_102_444_799, ("2099-12-31", 23)),
        ] {
            let (date, hour) = date_and_hour(secs * 1000);
            assert_eq!((date.as_str(), hour), expected);
        }
    }

    #[test]
    fn the_oldest_go_first_by_age_and_by_octets() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path()).unwrap();
        for number in 1..=4_u64 {
            let ends = (number * 1000, number * 1000 + 999);
            let path = catalog.place(number, ends).unwrap();
            fs::write(&path, [0; 100]).unwrap();
            catalog.add(Entry::new(path, number, Some(ends), 100));
        }
        let numbers = || catalog.now().iter().map(|entry| entry.number).collect::<Vec<_>>();
        let all = Keep { age_ms: 10_000, octets: 1000, free: 0 };
        catalog.bound(&all, 10_000);
        assert_eq!(numbers(), [1, 2, 3, 4]);
        catalog.bound(&all, 12_000);
        assert_eq!(numbers(), [2, 3, 4]);
        catalog.bound(&Keep { octets: 250, ..all }, 12_000);
        assert_eq!(numbers(), [3, 4]);
        catalog.bound(&Keep { octets: 0, ..all }, 12_000);
        assert_eq!(numbers(), [4]);
        drop(catalog);
        let again = Catalog::open(dir.path()).unwrap();
        assert_eq!(again.now().len(), 1);
        assert_eq!(again.now()[0].ends, Some((4000, 4999)));
    }

    fn filled(dir: &Path, ends: &[(u64, u64)]) -> Catalog {
        let catalog = Catalog::open(dir).unwrap();
        for (number, ends) in (1_u64..).zip(ends) {
            let path = catalog.place(number, *ends).unwrap();
            fs::write(&path, [0; 100]).unwrap();
            catalog.add(Entry::new(path, number, Some(*ends), 100));
        }
        catalog
    }

    #[test]
    fn a_record_from_the_future_holds_nothing_back() {
        let dir = tempfile::tempdir().unwrap();
        let catalog =
            filled(dir.path(), &[(1000, u64::MAX), (2000, 2999), (3000, 3999), (9000, 9999)]);
        catalog.bound(&Keep { age_ms: 5000, octets: 1000, free: 0 }, 10_000);
        let numbers: Vec<_> = catalog.now().iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, [1, 4]);
    }

    #[test]
    fn a_disk_that_others_fill_costs_no_more_than_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = filled(dir.path(), &[(1, 2), (3, 4), (5, 6), (7, 8), (9, 10)]);
        let room = catalog.room().unwrap();
        // Files of 100 octets by the catalog's account: two of them make up for what is missing, and what
        // they really free, a page each or nothing yet, is looked at the next time.
        let keep = Keep { age_ms: 1000, octets: 1000, free: room + (1 << 30) };
        catalog.now().iter().for_each(|e| e.octets.store(1 << 29, Ordering::Relaxed));
        catalog.bound(&Keep { octets: u64::MAX, ..keep }, 10);
        assert!((1..=3).contains(&catalog.now().len()), "{}", catalog.now().len());
    }

    #[test]
    fn a_log_stays_while_it_is_read_and_a_sealed_one_goes_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path()).unwrap();
        let (number, path) = catalog.next_log();
        fs::write(&path, "x").unwrap();
        let log = catalog.add(Entry::new(path.clone(), number, None, 1));
        let reader = catalog.now();
        let file = catalog.place(number, (1, 2)).unwrap();
        fs::write(&file, "y").unwrap();
        assert!(catalog.sealed(&log, Some(Entry::new(file, number, Some((1, 2)), 1))));
        assert!(!catalog.sealed(&log, None), "it is gone from the list");
        drop(log);
        assert!(path.exists());
        drop(reader);
        assert!(!path.exists());
        // Killed between the two.
        fs::write(&path, "x").unwrap();
        assert_eq!(Catalog::open(dir.path()).unwrap().now().len(), 1);
        assert!(!path.exists());
    }
}
