//! Filesystems, and where they are mounted on a host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::path::{VolumePath, absolute_bytes, escape, strip_prefix, to_path};

/// A volume's row in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub i64);

/// What a filesystem is called wherever and whenever it is mounted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeIdentity(pub Arc<str>);

/// This host, as the index knows it.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Its name.
    pub name: Arc<str>,
    /// Directories that the user gave names to, so that they are one volume wherever they are mounted.
    pub named_volumes: Arc<BTreeMap<PathBuf, String>>,
}

impl VolumeIdentity {
    /// Of a directory that the user gave a name.
    pub fn named(name: &str) -> Self {
        Self(format!("name:{}", escape(name.as_bytes())).into())
    }

    /// True if the user made it up.
    pub fn is_users_name(&self) -> bool {
        self.0.starts_with("name:")
    }
}

impl Host {
    /// The volumes that have names of this host's own.
    pub fn identities(&self) -> Vec<VolumeIdentity> {
        self.named_volumes.values().map(|name| VolumeIdentity::named(name)).collect()
    }
}

/// A mount through which a volume can be reached on this host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mount {
    /// The part of the filesystem that is mounted: empty for the whole of it, else the directory
    /// that a bind mount or a subvolume mount shows.
    pub root: VolumePath,
    /// Where it is mounted, as bytes without a trailing slash: `/` is empty.
    pub at: Arc<[u8]>,
}

impl Mount {
    /// The absolute path of a directory of the volume, if this mount shows it.
    pub fn absolute(&self, directory: &VolumePath) -> Option<PathBuf> {
        let below = strip_prefix(directory.as_bytes(), self.root.as_bytes())?;
        Some(to_path(&[&self.at, below].concat()))
    }

    /// Where an absolute path lies within the volume, if it lies below this mount.
    pub fn locate(&self, absolute: &Path) -> Option<VolumePath> {
        let below = strip_prefix(absolute_bytes(absolute), &self.at)?;
        Some(VolumePath::new(&[self.root.as_bytes(), below].concat()))
    }
}

/// A mounted volume as the walk meets it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MountedVolume {
    /// Stable identity.
    pub identity: VolumeIdentity,
    /// The mount it was met through.
    pub mount: Mount,
}

/// A directory by its volume's identity: what it is called before the index gave the volume a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The volume.
    pub identity: VolumeIdentity,
    /// The path inside it.
    pub path: VolumePath,
}

/// A subtree of a volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// The volume.
    pub volume: VolumeId,
    /// The directory at its top.
    pub path: VolumePath,
}

impl Extent {
    /// True if `other` is this subtree or part of it.
    pub fn covers(&self, other: &Self) -> bool {
        self.volume == other.volume && other.path.is_within(&self.path)
    }

    /// What lies in both: the inner one, if one lies in the other.
    pub fn intersection<'a>(&'a self, other: &'a Self) -> Option<&'a Self> {
        if self.covers(other) {
            return Some(other);
        }
        other.covers(self).then_some(self)
    }
}

/// The mounts that the index has seen on this host: the way from a row to a path and back.
#[derive(Debug, Clone, Default)]
pub struct MountMap {
    mounts: Vec<(VolumeId, Mount)>,
}

impl MountMap {
    /// A map of mounts; where several show a directory, the one that shows most of the volume wins.
    pub fn new(mut mounts: Vec<(VolumeId, Mount)>) -> Self {
        mounts.sort_by_key(|(volume, mount)| (*volume, mount.root.as_bytes().len()));
        Self { mounts }
    }

    /// The mounts, by volume.
    pub fn iter(&self) -> impl Iterator<Item = (VolumeId, &Mount)> {
        self.mounts.iter().map(|(volume, mount)| (*volume, mount))
    }

    /// The volumes that can be reached through these mounts.
    pub fn volumes(&self) -> Vec<VolumeId> {
        let mut volumes: Vec<VolumeId> = self.mounts.iter().map(|(volume, _)| *volume).collect();
        volumes.dedup();
        volumes
    }

    /// The absolute path of a directory; `None` if no mount of this host shows it.
    pub fn absolute(&self, volume: VolumeId, directory: &VolumePath) -> Option<PathBuf> {
        let of_volume = self.mounts.iter().filter(|(id, _)| *id == volume);
        of_volume.map(|(_, mount)| mount).find_map(|mount| mount.absolute(directory))
    }

    /// Where an absolute path lies: in the volume whose mount is nearest above it.
    pub fn locate(&self, absolute: &Path) -> Option<Extent> {
        let above = self.mounts.iter().filter_map(|(volume, mount)| {
            Some((mount.at.len(), Extent { volume: *volume, path: mount.locate(absolute)? }))
        });
        above.max_by_key(|(length, _)| *length).map(|(_, extent)| extent)
    }

    /// Everything of the index that lies below an absolute path: its place in the volume whose
    /// mount is nearest above it, and each volume mounted below it.
    pub fn extents_below(&self, absolute: &Path) -> Vec<Extent> {
        let mut extents: Vec<Extent> = self.locate(absolute).into_iter().collect();
        for (volume, mount) in &self.mounts {
            let mounted_below = strip_prefix(&mount.at, absolute_bytes(absolute));
            if mounted_below.is_some_and(|below| !below.is_empty()) {
                extents.push(Extent { volume: *volume, path: mount.root.clone() });
            }
        }
        extents
    }
}

/// The mounts of every host: the way from a row to a path that people can follow.
#[derive(Debug, Clone, Default)]
pub struct Places {
    here: Arc<str>,
    /// By host, this one first.
    hosts: Vec<(Arc<str>, MountMap)>,
    identities: BTreeMap<VolumeId, VolumeIdentity>,
}

impl Places {
    /// All mounts, as seen from the host `here`.
    pub fn new(
        here: &str,
        mounts: Vec<(String, VolumeId, Mount)>,
        identities: Vec<(VolumeId, VolumeIdentity)>,
    ) -> Self {
        let mut by_host: BTreeMap<String, Vec<(VolumeId, Mount)>> = BTreeMap::new();
        for (host, volume, mount) in mounts {
            by_host.entry(host).or_default().push((volume, mount));
        }
        let mut hosts: Vec<(Arc<str>, MountMap)> =
            by_host.into_iter().map(|(host, mounts)| (host.into(), MountMap::new(mounts))).collect();
        hosts.sort_by_key(|(host, _)| &**host != here);
        Self { here: here.into(), hosts, identities: identities.into_iter().collect() }
    }

    /// The hosts, this one first if the index knows it.
    pub fn hosts(&self) -> impl Iterator<Item = (&Arc<str>, &MountMap)> {
        self.hosts.iter().map(|(host, mounts)| (host, mounts))
    }

    /// The host and the path of a directory that cannot be reached from here.
    pub fn elsewhere(&self, volume: VolumeId, directory: &VolumePath) -> Option<(Arc<str>, PathBuf)> {
        let (host, path) = self.show(volume, directory);
        host.filter(|host| *host != self.here).map(|host| (host, path))
    }

    /// A directory's path on this host or, if it cannot be reached from here, on another; and that
    /// host, if there is more than one. What nobody has mounted is shown by its path in the volume, with the
    /// volume's identity in place of a host: it must not pass for a path of this machine.
    pub fn show(&self, volume: VolumeId, directory: &VolumePath) -> (Option<Arc<str>>, PathBuf) {
        let found =
            self.hosts.iter().find_map(|(host, mounts)| Some((host, mounts.absolute(volume, directory)?)));
        let is_alone = self.hosts.iter().all(|(host, _)| *host == self.here);
        match found {
            Some((_, path)) if is_alone => (None, path),
            Some((host, path)) => (Some(Arc::clone(host)), path),
            None => {
                let identity = self.identities.get(&volume).map(|identity| Arc::clone(&identity.0));
                (Some(identity.unwrap_or_default()), to_path(directory.as_bytes()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &[u8], at: &[u8]) -> Mount {
        Mount { root: VolumePath::new(root), at: at.into() }
    }

    #[test]
    fn a_bind_mount_leads_to_the_same_place_in_the_volume() {
        let whole = mount(b"", b"");
        let bind = mount(b"/srv/data", b"/mnt/b");
        let place = whole.locate(Path::new("/srv/data/x")).unwrap();
        assert_eq!(bind.locate(Path::new("/mnt/b/x")), Some(place.clone()));
        assert_eq!(bind.absolute(&place), Some(PathBuf::from("/mnt/b/x")));
        assert_eq!(bind.absolute(&VolumePath::new(b"/srv/database")), None);
    }

    #[test]
    fn a_path_names_its_host_if_there_are_several() {
        let (disk, share) = (VolumeId(1), VolumeId(2));
        let directory = VolumePath::new(b"/d");
        let alone = Places::new("here", vec![("here".to_owned(), disk, mount(b"", b"/mnt"))], Vec::new());
        assert_eq!(alone.show(disk, &directory), (None, "/mnt/d".into()));
        let several = Places::new(
            "here",
            vec![
                ("a".to_owned(), share, mount(b"", b"/a")),
                ("here".to_owned(), share, mount(b"", b"/mnt")),
                ("there".to_owned(), disk, mount(b"", b"")),
            ],
            vec![(VolumeId(3), VolumeIdentity("ext4:1".into()))],
        );
        assert_eq!(several.show(VolumeId(3), &directory), (Some("ext4:1".into()), "/d".into()));
        assert_eq!(several.show(share, &directory), (Some("here".into()), "/mnt/d".into()));
        assert_eq!(several.elsewhere(share, &directory), None);
        assert_eq!(several.elsewhere(disk, &directory), Some(("there".into(), "/d".into())));
        let elsewhere_only =
            Places::new("new", vec![("there".to_owned(), disk, mount(b"", b""))], Vec::new());
        assert_eq!(elsewhere_only.show(disk, &directory), (Some("there".into()), "/d".into()));
    }

    #[test]
    fn everything_below_a_path_includes_the_volumes_mounted_there() {
        let map = MountMap::new(vec![
            (VolumeId(1), mount(b"", b"")),
            (VolumeId(2), mount(b"", b"/home")),
            (VolumeId(3), mount(b"", b"/home/ann/usb")),
        ]);
        let below_home = map.extents_below(Path::new("/home"));
        assert_eq!(
            below_home,
            [
                Extent { volume: VolumeId(2), path: VolumePath::new(b"") },
                Extent { volume: VolumeId(3), path: VolumePath::new(b"") },
            ]
        );
        let etc = map.extents_below(Path::new("/etc"));
        assert_eq!(etc, [Extent { volume: VolumeId(1), path: VolumePath::new(b"/etc") }]);
        assert_eq!(map.absolute(VolumeId(2), &VolumePath::new(b"/bob")), Some("/home/bob".into()));
    }
}
