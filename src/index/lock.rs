//! One writer at a time, for an index that is a file: a lock that the system frees when its holder
//! dies, and the holder's name beside it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{IndexError, Result};
use crate::cancel::Cancel;

/// How often a taken lock is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// A holder that did not say who it is.
const UNNAMED: &str = "another process";

/// What to do when another process writes to the index.
#[derive(Clone)]
pub enum OnBusy {
    /// Say who it is and give up.
    Fail,
    /// Wait for it to end, after telling once who it is.
    Wait {
        /// Ends the wait.
        cancel: Cancel,
        /// Is told who holds the index.
        tell: Arc<dyn Fn(&str) + Send + Sync>,
    },
}

impl OnBusy {
    /// Somebody is in the way: waits a moment before the next attempt, or says why there is none.
    pub(super) async fn wait_for(&self, holder: String, was_told: &mut bool) -> Result<()> {
        match self {
            Self::Fail => return Err(IndexError::Busy { holder }),
            Self::Wait { cancel, .. } if cancel.is_requested() => {
                return Err(IndexError::WaitCancelled { holder });
            }
            Self::Wait { tell, .. } if !*was_told => {
                tell(&holder);
                *was_told = true;
            }
            Self::Wait { .. } => {}
        }
        tokio::time::sleep(RETRY).await;
        Ok(())
    }
}

impl std::fmt::Debug for OnBusy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fail => "Fail",
            Self::Wait { .. } => "Wait",
        })
    }
}

/// The right to write; given back when dropped, also by a crash.
#[derive(Debug)]
pub struct WriteLock {
    file: File,
}

impl WriteLock {
    /// Takes the lock beside an index.
    pub async fn acquire(index: &Path, on_busy: &OnBusy) -> Result<Self> {
        let path = lock_path(index);
        let failed = |source| IndexError::Lock { path: path.clone(), source };
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let file = options.open(&path).map_err(failed)?;
        let mut told = false;
        let mut glances = 0;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) => {}
            }
            let holder = read_holder(&file);
            // Somebody without a name only looks whether it is held, see `is_held`.
            if matches!(on_busy, OnBusy::Fail) && holder == UNNAMED && glances < 3 {
                glances += 1;
                tokio::time::sleep(RETRY).await;
                continue;
            }
            on_busy.wait_for(holder, &mut told).await?;
        }
        let mut lock = Self { file };
        // A disk too full for the name is no reason not to go on: the lock itself is held.
        let _ = lock.write_holder(&format!("process {}", std::process::id()));
        Ok(lock)
    }

    /// True if some process, also this one, holds the lock beside an index.
    pub fn is_held(index: &Path) -> bool {
        let Ok(file) = File::open(lock_path(index)) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    fn write_holder(&mut self, holder: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(holder.as_bytes())
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // Closing the file frees the lock; the name must not outlive it.
        let _ = self.file.set_len(0);
    }
}

/// The lock file of an index.
pub fn lock_path(index: &Path) -> PathBuf {
    let mut name = index.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn read_holder(mut file: &File) -> String {
    let mut holder = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut holder));
    if read.is_err() || holder.is_empty() { UNNAMED.to_owned() } else { holder }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_writer_at_a_time_and_the_other_is_told_who() {
        let directory = tempfile::tempdir().unwrap();
        let index = directory.path().join("index.db");
        let first = WriteLock::acquire(&index, &OnBusy::Fail).await.unwrap();
        let refused = WriteLock::acquire(&index, &OnBusy::Fail).await.unwrap_err();
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");

        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = Arc::clone(&told);
        let tell = Arc::new(move |holder: &str| seen.lock().unwrap().push(holder.to_owned()));
        let waiting = OnBusy::Wait { cancel: Cancel::default(), tell };
        let (second, ()) = tokio::join!(WriteLock::acquire(&index, &waiting), async {
            tokio::time::sleep(RETRY * 3).await;
            drop(first);
        });
        second.unwrap();
        assert_eq!(told.lock().unwrap().len(), 1, "told once");
    }
}
