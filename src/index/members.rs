//! Makes groups and their members of a report's rows.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::Result;
use super::convert::digest;
use crate::model::group::{Group, Member, ReportItem};
use crate::model::path::VolumePath;
use crate::model::stamp::Stamp;
use crate::model::volume::{Places, VolumeId};

/// A name in a group, with what is known of the group.
pub(super) struct MemberRow<'a> {
    pub(super) group: i64,
    pub(super) volume: i64,
    pub(super) directory: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) stamp: Stamp,
    pub(super) hash: &'a [u8],
    pub(super) files: u64,
}

/// Takes rows in order: by group, and the names of each physical file together.
#[derive(Debug)]
pub(super) struct Members {
    places: Places,
    /// Group, volume and inode of the last row.
    previous: Option<(i64, i64, u64)>,
}

impl Members {
    pub(super) fn new(places: &Places) -> Self {
        Self { places: places.clone(), previous: None }
    }

    pub(super) fn take(&mut self, row: &MemberRow<'_>, items: &mut Vec<ReportItem>) -> Result<()> {
        let &MemberRow { group, volume, stamp, files, .. } = row;
        if self.previous.is_none_or(|(previous, ..)| previous != group) {
            items.push(ReportItem::Group(Group { size: stamp.size, digest: digest(row.hash)?, files }));
        }
        let physical = (group, volume, stamp.inode);
        let first_name = self.previous != Some(physical);
        self.previous = Some(physical);
        let (host, mut path) = self.places.show(VolumeId(volume), &VolumePath::new(row.directory));
        path.push(OsStr::from_bytes(row.name));
        items.push(ReportItem::Member(Member { first_name, host, path, stamp }));
        Ok(())
    }
}
