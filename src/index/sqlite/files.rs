//! What is known of single files, window by window.
//!
//! Each window is of one moment, and nothing is held from one to the next, so that a reader who pages through millions
//! of lines for an hour is in nobody's way: no log grows meanwhile, and the first lines are there at once.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{catalog, summary};
use crate::index::convert::{self, below, stamp, to_integer, to_json};
use crate::index::rows::Columns as _;
use crate::index::{FilesReader, IndexError, Result};
use crate::model::digest::Digest;
use crate::model::file::{FileItem, FilesFilter, KnownFile, WantedFiles};
use crate::model::group::Member;
use crate::model::path::VolumePath;
use crate::model::rules::HashRules;
use crate::model::settings::HashPolicy;
use crate::model::stamp::Stamp;
use crate::model::volume::{Extent, Places, VolumeId};

/// Rows fetched at once.
const WINDOW: u64 = 1024;

/// Groups of so many names are counted once, and remembered: a file with a million copies would be counted a million
/// times. Smaller ones are counted again in each window.
const LARGE_GROUP: u64 = 64;

/// Groups that are remembered, so that memory stays flat.
const MOST_REMEMBERED: usize = 32 * 1024;

macro_rules! select_files {
    ($which:literal) => {
        concat!(
            "select f.id, d.volume_id, d.path, f.name, f.size, f.mtime_ns, f.ctime_ns, f.inode, c.hash, c.sample,
                    p.problem
             from directories d
             cross join files f on f.directory_id = d.id
             left join contents c on c.file_id = f.id
             left join problems p on p.file_id = f.id
             where d.volume_id = ?1 and ",
            $which
        )
    };
}

const NAMED: &str = select_files!("d.path = ?2 and f.name = ?3 limit ?4");
const IN_DIRECTORY: &str = select_files!("d.path = ?2 and f.name > ?3 order by f.name limit ?4");
const BELOW: &str = select_files!("d.path > ?2 and d.path < ?3 order by d.path, f.name limit ?4");

/// Whether a file without sample, and one with, shares it with another physical file.
const SHARES_SIZE: &str =
    "select exists (select 1 from files where size = ?1 and (inode <> ?2 or volume_id <> ?3))";
const SHARES_SAMPLE: &str = "
    select exists (
        select 1 from contents where size = ?1 and sample = ?4 and (inode <> ?2 or volume_id <> ?3))";

/// The sizes, and the samples, that wait for another of their kind and are shared: in one pass for all windows.
const FIND_SHARED: [&str; 2] = [
    "create temp table shared_sizes as
        select size from files where size in (
            select f.size from files f left join contents c on c.file_id = f.id where c.file_id is null)
        group by size having min(inode) <> max(inode) or min(volume_id) <> max(volume_id)",
    "create temp table shared_samples as
        select size, sample from contents where sample is not null
        group by size, sample
        having (min(inode) <> max(inode) or min(volume_id) <> max(volume_id)) and max(hash is null)",
];
const INDEX_SHARED: [&str; 2] = [
    "create index temp.shared_by_size on shared_sizes (size)",
    "create index temp.shared_by_sample on shared_samples (size, sample)",
];

/// Of pairs of size and sample (in hexadecimal digits, or null), whether each is shared, in their order.
const ARE_SHARED: &str = "
    select case when w.value ->> 1 is null
           then exists (select 1 from temp.shared_sizes where size = w.value ->> 0)
           else exists (
               select 1 from temp.shared_samples where size = w.value ->> 0 and sample = unhex(w.value ->> 1)) end
    from json_each(?) w order by w.key";

/// While a run writes many hashes, there is no index over them.
const HAS_INDEX: &str = "select exists (select 1 from sqlite_schema where name = 'contents_by_hash')";

/// What stands in for it: one pass instead of one for each file.
const COPY_HASHES: [&str; 2] = [
    "create temp table hashed (
        hash blob, size integer, inode integer, volume_id integer, file_id integer,
        primary key (hash, size, inode, volume_id, file_id)) without rowid",
    "insert into temp.hashed
        select hash, size, inode, volume_id, file_id from main.contents where hash is not null
        order by hash, size, inode, volume_id, file_id",
];

/// Of pairs of hash (in hexadecimal digits) and size: how many files and names there are of each that is known.
fn group_sizes_text(hashes: &str, physical: &str) -> String {
    format!(
        "select w.key, count(distinct {physical}), count(*)
         from json_each(?) w
         cross join {hashes} c on c.hash = unhex(w.value ->> 0) and c.size = w.value ->> 1
         group by w.key"
    )
}

/// Names of a content: hash ?1, size ?2. They come in the order of the index over hashes: by physical file.
fn copies_text(hashes: &str, which: &str) -> String {
    format!(
        "select c.volume_id, c.inode, c.file_id, d.volume_id, d.path, f.name, f.mtime_ns, f.ctime_ns
         from {hashes} c
         cross join files f on f.id = c.file_id
         cross join directories d on d.id = f.directory_id
         where c.hash = ?1 and c.size = ?2 and {which}
         order by c.inode, c.volume_id, c.file_id limit ?6"
    )
}

/// Other names of the file ?5 itself, and names of others; behind the row that came last.
const OF_ITSELF: &str = "c.inode = ?3 and c.volume_id = ?4 and c.file_id <> ?5 and c.file_id > ?7";
const OF_OTHERS: &str = "
    not (c.inode = ?3 and c.volume_id = ?4) and c.file_id <> ?5
    and (c.inode, c.volume_id, c.file_id) > (?9, ?8, ?7)";

/// A row of a window.
#[derive(Debug)]
struct Listed {
    id: i64,
    volume: i64,
    directory: VolumePath,
    name: Vec<u8>,
    stamp: Stamp,
    digest: Option<Digest>,
    sample: Option<Vec<u8>>,
    problem: Option<String>,
}

impl Listed {
    fn is_unread(&self) -> bool {
        self.digest.is_none() && self.problem.is_none()
    }
}

/// What is being done, for errors.
const OPERATION: &str = "read what is known of files";

/// How often a content is there.
#[derive(Debug, Clone, Copy)]
struct GroupSize {
    files: u64,
    names: u64,
}

/// A row with all that is told of it.
#[derive(Debug)]
struct Told {
    row: Listed,
    file: KnownFile,
    names: u64,
}

/// Where the next window begins.
enum Position {
    Named { directory: Extent, name: Box<[u8]> },
    Below { extents: VecDeque<Extent>, last: Option<(VolumePath, Vec<u8>)> },
    End,
}

/// The copies of a file, as far as they were read.
struct Copying {
    file: Listed,
    is_at_itself: bool,
    last: (i64, i64, i64),
    /// The physical file whose names came last.
    physical: Option<(i64, i64)>,
}

/// How it is told whether a file without hash waits for it: what it has must be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shared {
    /// Nothing at all is pending.
    Nothing,
    /// By looking for others of its kind, as it is the only one that is asked for.
    LookedUp,
    /// By all that is shared, once that was found.
    ToBeFound,
    /// By that.
    Found,
}

/// Where names are found by their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hashes {
    /// In the table, even if that is read to its end: only one file is asked for.
    InTable,
    /// In the table by its index, if that is there.
    ByIndex,
    /// In what stands in for the index.
    Copied,
}

/// Reads files.
pub(super) struct SqliteFiles {
    connection: SqliteConnection,
    places: Places,
    position: Position,
    /// How many more may be read.
    left: u64,
    with_copies: bool,
    /// Which files are hashed.
    rules: HashRules,
    shared: Shared,
    hashes: Hashes,
    /// What tells physical files apart: the inode, if there is but one volume.
    physical: &'static str,
    large_groups: HashMap<(Digest, u64), GroupSize>,
    window: VecDeque<Told>,
    copying: Option<Copying>,
}

impl SqliteFiles {
    pub(super) async fn select(
        mut connection: SqliteConnection,
        filter: &FilesFilter,
        places: &Places,
    ) -> Result<Self> {
        let failed = || IndexError::during(OPERATION);
        let rules = HashRules::of(&catalog::roots(&mut connection).await?);
        let volumes: i64 = sqlx::query_scalar("select count(*) from volumes")
            .fetch_one(&mut connection)
            .await
            .map_err(failed())?;
        let is_settled = summary::kept(&mut connection).await?.is_some();
        let (position, shared, hashes) = match &filter.wanted {
            WantedFiles::Named { directory, name } => {
                let position = Position::Named { directory: directory.clone(), name: name.clone() };
                (position, Shared::LookedUp, Hashes::InTable)
            }
            WantedFiles::Below(extents) => {
                let position = Position::Below { extents: without_covered(extents), last: None };
                (position, Shared::ToBeFound, Hashes::ByIndex)
            }
        };
        Ok(Self {
            places: places.clone(),
            position,
            left: filter.limit.unwrap_or(u64::MAX),
            with_copies: filter.with_copies,
            rules,
            shared: if is_settled { Shared::Nothing } else { shared },
            hashes,
            physical: if volumes == 1 { "c.inode" } else { "c.volume_id || ' ' || c.inode" },
            large_groups: HashMap::new(),
            window: VecDeque::new(),
            copying: None,
            connection,
        })
    }

    /// The next rows; none at the end.
    async fn read_window(&mut self) -> Result<VecDeque<Listed>> {
        while self.left > 0 {
            let room = self.left.min(WINDOW);
            let rows = match std::mem::replace(&mut self.position, Position::End) {
                Position::End => break,
                Position::Named { directory, name } => {
                    self.rows(NAMED, &directory, directory.path.as_bytes(), &name, room).await?
                }
                Position::Below { mut extents, last } => {
                    let Some(extent) = extents.front().cloned() else { break };
                    let (directory, name) = last.unwrap_or_else(|| (extent.path.clone(), Vec::new()));
                    let path = directory.as_bytes();
                    // The rest of a directory, then those behind it.
                    let mut rows = self.rows(IN_DIRECTORY, &extent, path, &name, room).await?;
                    if rows.is_empty() {
                        let (low, high) = below(&extent.path);
                        let behind = if directory == extent.path { &low } else { path };
                        rows = self.rows(BELOW, &extent, behind, &high, room).await?;
                    }
                    let last = rows.back().map(|row| (row.directory.clone(), row.name.clone()));
                    if last.is_none() {
                        extents.pop_front();
                    }
                    self.position = Position::Below { extents, last };
                    rows
                }
            };
            if !rows.is_empty() {
                self.left -= rows.len() as u64;
                return Ok(rows);
            }
        }
        Ok(VecDeque::new())
    }

    async fn rows(
        &mut self,
        text: &'static str,
        extent: &Extent,
        second: &[u8],
        third: &[u8],
        room: u64,
    ) -> Result<VecDeque<Listed>> {
        let rows = sqlx::query(text).bind(extent.volume.0).bind(second).bind(third).bind(to_integer(room));
        let rows = rows.fetch_all(&mut self.connection).await.map_err(IndexError::during(OPERATION))?;
        rows.iter().map(read_listed).collect()
    }

    /// Adds to the rows of a window what is known elsewhere.
    async fn tell(&mut self, rows: VecDeque<Listed>) -> Result<VecDeque<Told>> {
        let groups = self.group_sizes(&rows).await?;
        let mut are_shared = self.are_shared(&rows).await?.into_iter();
        let mut told = VecDeque::with_capacity(rows.len());
        for (row, group) in rows.into_iter().zip(groups) {
            let directory = Extent { volume: VolumeId(row.volume), path: row.directory.clone() };
            let is_shared = row.is_unread() && are_shared.next().unwrap_or_default();
            let is_wanted = match self.rules.around(&directory) {
                _ if self.shared == Shared::Nothing => false,
                Some(HashPolicy::All) => row.is_unread(),
                Some(HashPolicy::Candidates) | None => is_shared,
                Some(HashPolicy::None) => false,
            };
            let (host, mut path) = self.places.show(directory.volume, &directory.path);
            path.push(OsStr::from_bytes(&row.name));
            let file = KnownFile {
                host,
                path,
                stamp: row.stamp,
                digest: row.digest,
                is_sampled: row.sample.is_some(),
                is_pending: is_wanted,
                problem: row.problem.clone(),
                copies: group.files.saturating_sub(1),
            };
            told.push_back(Told { row, file, names: group.names });
        }
        Ok(told)
    }

    /// Of the files that were not read, whether each shares what it has with others, so that it will be.
    async fn are_shared(&mut self, rows: &VecDeque<Listed>) -> Result<Vec<bool>> {
        let unread: Vec<&Listed> = rows.iter().filter(|row| row.is_unread()).collect();
        if unread.is_empty() || self.shared == Shared::Nothing {
            return Ok(Vec::new());
        }
        let failed = || IndexError::during(OPERATION);
        if self.shared == Shared::LookedUp {
            let mut are_shared = Vec::new();
            for row in unread {
                let inode = convert::inode_to_integer(row.stamp.inode);
                let text = if row.sample.is_some() { SHARES_SAMPLE } else { SHARES_SIZE };
                let mut query = sqlx::query_scalar(text).bind(to_integer(row.stamp.size)).bind(inode);
                query = query.bind(row.volume);
                if let Some(sample) = &row.sample {
                    query = query.bind(sample);
                }
                are_shared.push(query.fetch_one(&mut self.connection).await.map_err(failed())?);
            }
            return Ok(are_shared);
        }
        self.find_shared().await?;
        let pairs: Vec<(u64, Option<String>)> =
            unread.iter().map(|row| (row.stamp.size, row.sample.as_deref().map(hex))).collect();
        let are_shared = sqlx::query_scalar(ARE_SHARED).bind(to_json(&pairs)?);
        are_shared.fetch_all(&mut self.connection).await.map_err(failed())
    }

    async fn find_shared(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.shared, Shared::Found) == Shared::ToBeFound {
            for statement in FIND_SHARED.into_iter().chain(INDEX_SHARED) {
                let found = sqlx::query(statement).execute(&mut self.connection).await;
                found.map_err(IndexError::during(OPERATION))?;
            }
        }
        Ok(())
    }

    /// The table in which names are found by their hash.
    async fn hashes(&mut self) -> Result<&'static str> {
        let failed = || IndexError::during(OPERATION);
        if self.hashes == Hashes::ByIndex {
            let has_index = sqlx::query_scalar(HAS_INDEX).fetch_one(&mut self.connection).await;
            if !has_index.map_err(failed())? {
                for statement in COPY_HASHES {
                    sqlx::query(statement).execute(&mut self.connection).await.map_err(failed())?;
                }
                self.hashes = Hashes::Copied;
            }
        }
        Ok(if self.hashes == Hashes::Copied { "temp.hashed" } else { "main.contents" })
    }

    /// How often the content of each row is there.
    async fn group_sizes(&mut self, rows: &VecDeque<Listed>) -> Result<Vec<GroupSize>> {
        let mut keys: Vec<(Digest, u64)> =
            rows.iter().filter_map(|row| Some((row.digest?, row.stamp.size))).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut sizes: HashMap<(Digest, u64), GroupSize> = HashMap::with_capacity(keys.len());
        keys.retain(|key| {
            let remembered = self.large_groups.get(key);
            sizes.extend(remembered.map(|size| (*key, *size)));
            remembered.is_none()
        });
        if !keys.is_empty() {
            let pairs: Vec<(String, u64)> =
                keys.iter().map(|(digest, size)| (digest.to_string(), *size)).collect();
            let text = group_sizes_text(self.hashes().await?, self.physical);
            let counted = sqlx::query(AssertSqlSafe(text)).bind(to_json(&pairs)?);
            let counted = counted.fetch_all(&mut self.connection).await;
            for row in &counted.map_err(IndexError::during(OPERATION))? {
                let Some(key) = keys.get(usize::try_from(row.count(0)?).unwrap_or(usize::MAX)) else {
                    continue;
                };
                let size = GroupSize { files: row.count(1)?, names: row.count(2)? };
                sizes.insert(*key, size);
                if size.names >= LARGE_GROUP {
                    self.remember(*key, size);
                }
            }
        }
        let alone = GroupSize { files: 1, names: 1 };
        let size = |row: &Listed| {
            row.digest.and_then(|digest| sizes.get(&(digest, row.stamp.size))).copied().unwrap_or(alone)
        };
        Ok(rows.iter().map(size).collect())
    }

    fn remember(&mut self, key: (Digest, u64), size: GroupSize) {
        if self.large_groups.len() == MOST_REMEMBERED {
            self.large_groups.clear();
        }
        self.large_groups.insert(key, size);
    }

    /// The next names of a file's content; none at the end.
    async fn read_copies(&mut self, copying: &mut Copying) -> Result<Vec<FileItem>> {
        let Copying { file, .. } = copying;
        let Some(digest) = file.digest else { return Ok(Vec::new()) };
        let hashes = self.hashes().await?;
        loop {
            let which = if copying.is_at_itself { OF_ITSELF } else { OF_OTHERS };
            let text = AssertSqlSafe(copies_text(hashes, which));
            let (inode, volume, id) = copying.last;
            let mut query = sqlx::query(text)
                .bind(&digest.0[..])
                .bind(to_integer(copying.file.stamp.size))
                .bind(convert::inode_to_integer(copying.file.stamp.inode))
                .bind(copying.file.volume)
                .bind(copying.file.id)
                .bind(to_integer(WINDOW))
                .bind(id);
            if !copying.is_at_itself {
                query = query.bind(volume).bind(inode);
            }
            let rows = query.fetch_all(&mut self.connection).await.map_err(IndexError::during(OPERATION))?;
            if rows.is_empty() && copying.is_at_itself {
                copying.is_at_itself = false;
                copying.last = FROM_THE_FIRST;
                continue;
            }
            return self.read_copy_rows(copying, &rows);
        }
    }

    /// If these are all, they are put in the order of their paths, hard links together.
    fn read_copy_rows(&self, copying: &mut Copying, rows: &[SqliteRow]) -> Result<Vec<FileItem>> {
        let mut names: Vec<((i64, i64), Member)> = Vec::new();
        for row in rows {
            let (volume, inode): (i64, i64) = (row.value(0)?, row.value(1)?);
            let (host, mut path) = self.places.show(VolumeId(row.value(3)?), &VolumePath::new(row.value(4)?));
            path.push(OsStr::from_bytes(row.value(5)?));
            let stamp = stamp(to_integer(copying.file.stamp.size), row.value(6)?, row.value(7)?, inode);
            names.push(((volume, inode), Member { first_name: false, host, path, stamp }));
            copying.last = (inode, volume, row.value(2)?);
        }
        let is_first_window = copying.physical.is_none();
        if is_first_window && (rows.len() as u64) < WINDOW {
            sort_by_first_name(&mut names);
        }
        let mut items = Vec::with_capacity(names.len());
        for (physical, mut member) in names {
            member.first_name = !copying.is_at_itself && copying.physical != Some(physical);
            if !copying.is_at_itself {
                copying.physical = Some(physical);
            }
            items.push(FileItem::Copy(member));
        }
        Ok(items)
    }
}

/// Before any physical file and any row.
const FROM_THE_FIRST: (i64, i64, i64) = (i64::MIN, i64::MIN, i64::MIN);

fn sort_by_first_name(names: &mut [((i64, i64), Member)]) {
    let mut firsts: HashMap<(i64, i64), std::path::PathBuf> = HashMap::new();
    for (physical, member) in &*names {
        let first = firsts.entry(*physical).or_insert_with(|| member.path.clone());
        if member.path < *first {
            first.clone_from(&member.path);
        }
    }
    names.sort_by(|(a, a_member), (b, b_member)| {
        (&firsts[a], a, &a_member.path).cmp(&(&firsts[b], b, &b_member.path))
    });
}

/// Subtrees that lie in no other of them: nothing is read twice.
pub(super) fn without_covered(extents: &[Extent]) -> VecDeque<Extent> {
    let is_outermost = |(index, extent): &(usize, &Extent)| {
        let covers = |(other, by): (usize, &Extent)| by.covers(extent) && (by != *extent || other < *index);
        !extents.iter().enumerate().any(covers)
    };
    extents.iter().enumerate().filter(is_outermost).map(|(_, extent)| extent.clone()).collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

fn read_listed(row: &SqliteRow) -> Result<Listed> {
    Ok(Listed {
        id: row.value(0)?,
        volume: row.value(1)?,
        directory: VolumePath::new(row.value(2)?),
        name: row.value(3)?,
        stamp: stamp(row.value(4)?, row.value(5)?, row.value(6)?, row.value(7)?),
        digest: row.value::<Option<&[u8]>>(8)?.map(convert::digest).transpose()?,
        sample: row.value(9)?,
        problem: row.value(10)?,
    })
}

#[async_trait(?Send)]
impl FilesReader for SqliteFiles {
    async fn next(&mut self) -> Result<Vec<FileItem>> {
        if let Some(mut copying) = self.copying.take() {
            let copies = self.read_copies(&mut copying).await?;
            if !copies.is_empty() {
                self.copying = Some(copying);
                return Ok(copies);
            }
        }
        if self.window.is_empty() {
            let rows = self.read_window().await?;
            self.window = self.tell(rows).await?;
        }
        let mut items = Vec::new();
        while let Some(Told { row, file, names }) = self.window.pop_front() {
            items.push(FileItem::File(file));
            if self.with_copies && names > 1 {
                let (last, physical) = (FROM_THE_FIRST, None);
                self.copying = Some(Copying { file: row, is_at_itself: true, last, physical });
                break;
            }
        }
        Ok(items)
    }
}
