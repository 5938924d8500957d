//! Which filesystem a path lies on, where in it, and what that filesystem is called for good.
//!
//! Device numbers differ between boots and hosts, and a bind mount shows one directory at two
//! paths. So a directory is known by its volume's identity and its path inside the volume, both
//! read from the mount table. The identity is, in this order:
//!
//! 0. the name that the user gave to a directory: `name:photos`. It goes for what lies below, whatever is
//!    mounted there: an export that its server scans, too, or the disk of a cloned machine;
//! 1. a network filesystem's export, as mounted: `nfs4:server:/export`;
//! 2. ext2/3/4 and btrfs: the filesystem number, which those derive from the UUID (and btrfs from
//!    the subvolume): `ext4:1f2e...`; it needs no udev and is the same in a container;
//! 3. the UUID of the block device, where `/dev/disk/by-uuid` knows it: `uuid:1234-ABCD`;
//! 4. host name and mount path: `host:nas:/mnt/tank`. A disk known only so keeps its hashes as long
//!    as it is mounted at the same place.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::path::{VolumePath, absolute_bytes, escape, to_path};
use crate::model::volume::{Host, Location, Mount, MountedVolume, VolumeIdentity};
use crate::os::{self, MountPoint};

/// A directory's place: a volume and a path inside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The volume.
    pub volume: Arc<MountedVolume>,
    /// The path inside it.
    pub path: VolumePath,
}

impl Place {
    /// The same without the mount.
    pub fn location(&self) -> Location {
        Location { identity: self.volume.identity.clone(), path: self.path.clone() }
    }
}

/// The filesystems mounted on this host, as they were when this was read.
#[derive(Debug)]
pub struct Volumes {
    host: Arc<str>,
    table: Vec<MountPoint>,
    uuids: HashMap<u64, String>,
    known: Mutex<Known>,
}

/// Volumes met so far, by device number and mount path.
#[derive(Debug, Default)]
struct Known {
    met: HashMap<(u64, Vec<u8>), Arc<MountedVolume>>,
    devices: HashMap<VolumeIdentity, u64>,
}

impl Volumes {
    /// Reads the mount table of this host.
    pub fn read(host: &Host) -> io::Result<Self> {
        let mut table = os::mount_points()?;
        table.extend(host.named_volumes.iter().filter_map(|(path, name)| named(path, name)));
        Ok(Self { host: Arc::clone(&host.name), table, uuids: uuids_by_device(), known: Mutex::default() })
    }

    /// True if something is mounted at exactly this path.
    pub fn is_mount_point(&self, absolute: &Path) -> bool {
        let bytes = absolute.as_os_str().as_bytes();
        self.table.iter().any(|mount| mount.at == bytes)
    }

    /// The place of a directory whose device number is known. The path must be absolute and free
    /// of symbolic links.
    pub fn locate(&self, absolute: &Path, device: u64) -> Place {
        let line = self.mount_above(absolute, device);
        let mount = mount_of(&line);
        let path = mount.locate(absolute).unwrap_or_else(|| VolumePath::new(absolute_bytes(absolute)));
        let volume = self.volume(device, &line, mount, absolute);
        Place { volume, path }
    }

    /// Everything that is mounted and may be a volume of the index, by its identity. Files are not looked
    /// at: a server that does not answer keeps nobody waiting.
    pub fn mounted(&self) -> Vec<Arc<MountedVolume>> {
        let is_hidden =
            |index: usize, line: &MountPoint| self.table[index + 1..].iter().any(|later| later.at == line.at);
        let mut mounted = Vec::new();
        for (index, line) in self.table.iter().enumerate() {
            if is_hidden(index, line) {
                continue;
            }
            let at = to_path(&line.at);
            // Of a btrfs subvolume, only `stat` knows the device number.
            let device = match line.kind.as_str() {
                "btrfs" => std::fs::metadata(&at).map_or(line.device, |metadata| metadata.dev()),
                _ => line.device,
            };
            mounted.push(self.volume(device, line, mount_of(line), &at));
        }
        mounted
    }

    /// True if the volume is mounted there at this moment.
    pub fn is_reachable(&self, identity: &VolumeIdentity, mount: &Mount) -> bool {
        let at = to_path(&mount.at);
        let Ok(metadata) = std::fs::metadata(&at) else { return false };
        self.locate(&at, metadata.dev()).volume.identity == *identity
    }

    /// The type of the file system on a device, such as `ext4` or `nfs4`, if the system tells.
    pub fn kind_of_device(&self, device: u64) -> Option<&str> {
        let is_meant = |line: &&MountPoint| line.device == device && line.kind != NAMED;
        self.table.iter().find(is_meant).map(|line| line.kind.as_str())
    }

    fn volume(&self, device: u64, line: &MountPoint, mount: Mount, inside: &Path) -> Arc<MountedVolume> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (device, line.at.clone());
        if let Some(volume) = known.met.get(&key) {
            return Arc::clone(volume);
        }
        // Whichever mount leads there, a device is named after its first: it must not have two names.
        let is_first = |other: &&MountPoint| other.device == line.device && other.kind == line.kind;
        let first = if line.kind == NAMED { None } else { self.table.iter().find(is_first) };
        let primary = first.unwrap_or(line);
        let mut identity = self.identity(primary, inside);
        // Two devices with one identity are mounted side by side: a snapshot or a clone. The one that
        // was mounted first bears the name, whichever is met first.
        let is_met = known.devices.get(&identity).is_some_and(|other| *other != device);
        if is_met || self.has_original(primary, &identity) {
            identity = VolumeIdentity(format!("{}@{}", identity.0, escape(&primary.at)).into());
        }
        known.devices.insert(identity.clone(), device);
        let volume = Arc::new(MountedVolume { identity, mount });
        known.met.insert(key, Arc::clone(&volume));
        drop(known);
        volume
    }

    /// True if an earlier mount of another device goes by this identity.
    fn has_original(&self, line: &MountPoint, identity: &VolumeIdentity) -> bool {
        let earlier = self.table.iter().take_while(|other| *other != line);
        let mut alike = earlier.filter(|other| other.kind == line.kind && other.device != line.device);
        derives_from_uuid(&line.kind)
            && alike.any(|other| self.identity(other, &to_path(&other.at)) == *identity)
    }

    fn identity(&self, line: &MountPoint, inside: &Path) -> VolumeIdentity {
        let kind = line.kind.as_str();
        if kind == NAMED {
            return VolumeIdentity::named(&String::from_utf8_lossy(&line.source));
        }
        let source = escape(&line.source);
        let network = ["nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "fuse.sshfs"];
        if network.iter().any(|name| kind.starts_with(name)) {
            return VolumeIdentity(format!("{kind}:{source}").into());
        }
        if let (true, Ok(number)) = (derives_from_uuid(kind), os::filesystem_number(inside)) {
            return VolumeIdentity(format!("{kind}:{number:016x}").into());
        }
        let block_device = std::fs::metadata(to_path(&line.source)).map(|metadata| metadata.rdev());
        if let Some(uuid) = block_device.ok().and_then(|device| self.uuids.get(&device)) {
            return VolumeIdentity(format!("uuid:{uuid}").into());
        }
        VolumeIdentity(format!("host:{}:{}", self.host, escape(&line.at)).into())
    }

    /// The mount that shows a path: the longest mount path above it, the latest of equals. Without
    /// a table, the highest directory above it that is still on the same device.
    fn mount_above(&self, absolute: &Path, device: u64) -> MountPoint {
        let bytes = absolute_bytes(absolute);
        let mut best: Option<&MountPoint> = None;
        for mount in &self.table {
            let at = mount.at.strip_suffix(b"/").unwrap_or(&mount.at);
            let above = crate::model::path::strip_prefix(bytes, at).is_some();
            if above && best.is_none_or(|best| mount.at.len() >= best.at.len()) {
                best = Some(mount);
            }
        }
        best.cloned().unwrap_or_else(|| climb(absolute, device))
    }
}

/// The kind of a line that stands for a name the user gave.
const NAMED: &str = "named";

/// A line of the mount table for a directory with a name; none if it is not there.
fn named(path: &Path, name: &str) -> Option<MountPoint> {
    let real = std::fs::canonicalize(path).ok()?;
    let device = std::fs::metadata(&real).ok()?.dev();
    Some(MountPoint {
        device,
        root: b"/".to_vec(),
        at: real.as_os_str().as_bytes().to_vec(),
        kind: NAMED.to_owned(),
        source: name.as_bytes().to_vec(),
    })
}

fn mount_of(line: &MountPoint) -> Mount {
    Mount { root: VolumePath::new(&line.root), at: line.at.strip_suffix(b"/").unwrap_or(&line.at).into() }
}

/// Filesystems whose number comes from their UUID.
fn derives_from_uuid(kind: &str) -> bool {
    kind.starts_with("ext") || kind == "btrfs"
}

fn climb(absolute: &Path, device: u64) -> MountPoint {
    let same_device = |path: &&Path| std::fs::metadata(path).is_ok_and(|metadata| metadata.dev() == device);
    let at = absolute.ancestors().take_while(same_device).last().unwrap_or(absolute);
    MountPoint {
        device,
        root: b"/".to_vec(),
        at: at.as_os_str().as_bytes().to_vec(),
        kind: "unknown".to_owned(),
        source: Vec::new(),
    }
}

/// udev's links from a filesystem UUID to its block device; empty where there is no udev.
fn uuids_by_device() -> HashMap<u64, String> {
    let Ok(links) = std::fs::read_dir("/dev/disk/by-uuid") else { return HashMap::new() };
    links
        .filter_map(|link| {
            let path: PathBuf = link.ok()?.path();
            let device = std::fs::metadata(&path).ok()?.rdev();
            Some((device, path.file_name()?.to_string_lossy().into_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, at: &str, kind: &str, source: &str) -> MountPoint {
        // Each source is a device of its own.
        let device = source.bytes().map(u64::from).sum();
        MountPoint { device, root: root.into(), at: at.into(), kind: kind.into(), source: source.into() }
    }

    fn volumes(table: Vec<MountPoint>) -> Volumes {
        Volumes { host: "nas".into(), table, uuids: HashMap::new(), known: Mutex::default() }
    }

    #[test]
    fn a_bind_mount_is_the_same_place() {
        let volumes = volumes(vec![
            mount("/", "/", "nfs4", "server:/export"),
            mount("/srv/photos", "/mnt/photos", "nfs4", "server:/export"),
        ]);
        let direct = volumes.locate(Path::new("/srv/photos/2019"), 7);
        let bound = volumes.locate(Path::new("/mnt/photos/2019"), 7);
        assert_eq!(direct.path, bound.path);
        assert_eq!(direct.volume.identity, bound.volume.identity);
        assert_eq!(&*direct.volume.identity.0, "nfs4:server:/export");
    }

    #[test]
    fn a_filesystem_without_a_name_is_one_volume_wherever_it_is_mounted() {
        let volumes = volumes(vec![mount("/", "/a", "tmpfs", "t"), mount("/", "/b", "tmpfs", "t")]);
        let first = volumes.locate(Path::new("/a/x"), 7);
        let second = volumes.locate(Path::new("/b/x"), 7);
        assert_eq!(
            (first.volume.identity.clone(), first.path),
            (second.volume.identity.clone(), second.path)
        );
    }

    #[test]
    fn a_name_is_the_same_volume_on_the_server_and_on_its_clients() {
        let server =
            volumes(vec![mount("/", "/", "ext4", "/dev/sda"), mount("/", "/srv/photos", NAMED, "photos")]);
        let client = volumes(vec![
            mount("/", "/mnt/photos", "nfs4", "nas:/srv/photos"),
            mount("/", "/mnt/photos", NAMED, "photos"),
        ]);
        let (there, here) = (
            server.locate(Path::new("/srv/photos/2019"), 7),
            client.locate(Path::new("/mnt/photos/2019"), client.table[1].device),
        );
        assert_eq!((there.location(), there.path.as_bytes()), (here.location(), &b"/2019"[..]));
        assert_eq!(&*here.volume.identity.0, "name:photos");
        assert!(client.mounted().iter().any(|volume| volume.identity == here.volume.identity));
        assert_ne!(server.locate(Path::new("/srv/photographs"), 7).volume.identity, here.volume.identity);
    }

    #[test]
    fn a_clone_mounted_beside_its_original_is_another_volume() {
        let volumes = volumes(vec![
            mount("/", "/a", "nfs4", "server:/export"),
            mount("/", "/b", "nfs4", "server:/export"),
        ]);
        let original = volumes.locate(Path::new("/a/x"), 7).volume;
        let clone = volumes.locate(Path::new("/b/x"), 8).volume;
        assert_ne!(original.identity, clone.identity);
    }

    #[test]
    fn the_latest_of_mounts_at_one_path_counts() {
        let volumes = volumes(vec![mount("/", "/a", "tmpfs", "one"), mount("/", "/a", "nfs", "s:/two")]);
        assert_eq!(&*volumes.locate(Path::new("/a"), 1).volume.identity.0, "nfs:s:/two");
    }

    #[test]
    fn without_a_table_the_device_number_marks_the_mount() {
        let place = volumes(Vec::new()).locate(Path::new("/proc/self"), u64::MAX);
        assert_eq!(&*place.volume.mount.at, b"/proc/self");
    }
}
