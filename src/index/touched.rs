//! What a watcher was told of, in the terms of an index: the same for both databases.

use std::collections::HashMap;

use super::{IndexError, Result};
use crate::model::listing::{Absent, DirectoryId, Listing, Move};
use crate::model::path::VolumePath;
use crate::model::scan::ScanId;
use crate::model::stamp::Stamp;
use crate::model::volume::{Extent, MountedVolume, VolumeId, VolumeIdentity};

/// What is being done, for errors.
pub(super) const OPERATION: &str = "write what was touched";

/// Later than any: nothing in a directory that is gone was listed.
pub(super) const NEVER: ScanId = ScanId(i64::MAX);

/// A directory some names of which are gone.
pub(super) struct Thinned<'a> {
    pub(super) id: DirectoryId,
    pub(super) place: Extent,
    pub(super) absent: &'a Absent,
}

impl<'a> Thinned<'a> {
    /// Of a listing, if only some names were looked at.
    pub(super) fn of(listing: &'a Listing, id: DirectoryId, volume: VolumeId) -> Option<Self> {
        let place = Extent { volume, path: listing.directory.clone() };
        listing.absent().map(|absent| Self { id, place, absent })
    }
}

/// Something that was renamed on a volume that has a row.
pub(super) struct KnownMove<'a> {
    pub(super) volume: VolumeId,
    pub(super) from: &'a VolumePath,
    pub(super) to: &'a VolumePath,
    pub(super) stamp: Option<Stamp>,
}

impl<'a> KnownMove<'a> {
    pub(super) fn of(moved: &'a Move, volumes: &HashMap<VolumeIdentity, VolumeId>) -> Result<Self> {
        let Move { volume, from, to, stamp } = moved;
        Ok(Self { volume: known_volume(volumes, volume)?, from, to, stamp: *stamp })
    }
}

/// The row of a volume that was registered.
pub(super) fn known_volume(
    volumes: &HashMap<VolumeIdentity, VolumeId>,
    volume: &MountedVolume,
) -> Result<VolumeId> {
    let known = volumes.get(&volume.identity).copied();
    known.ok_or_else(|| IndexError::Damaged("a volume was not registered".to_owned()))
}
