//! Which files are hashed: each directory goes by the nearest root around it.

use std::collections::{HashMap, HashSet};

use super::scan::Root;
use super::settings::HashPolicy;
use super::volume::Extent;

/// What all roots together say about hashing. What no root covers (files that were named one by one) is as usual.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HashRules {
    /// Outer ones first.
    rules: Vec<HashRule>,
}

/// What holds in a subtree, but for those in it that have a rule of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashRule {
    /// The subtree.
    pub extent: Extent,
    /// What is hashed there.
    pub policy: HashPolicy,
    claim: Claim,
}

/// What a subtree is to a root, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// Only links lead there.
    Linked,
    /// A filesystem, or a part of one, that is mounted in it.
    Mounted,
    /// Itself.
    Own,
}

/// What decides between roots that cover the same subtree: the stronger claim, then how near the root is, by the length
/// of its path. Where that says nothing, what one of them wants to be read is read.
type Weight = (Claim, usize, u8);

fn weight(root: &Root, claim: Claim) -> Weight {
    let nearness = if claim == Claim::Linked { 0 } else { root.path.as_os_str().len() };
    let policy = match root.settings.hash {
        HashPolicy::None => 0,
        HashPolicy::Candidates => 1,
        HashPolicy::All => 2,
    };
    (claim, nearness, policy)
}

impl HashRules {
    /// Of all roots of an index.
    pub fn of(roots: &[Root]) -> Self {
        let mut by_extent: HashMap<&Extent, (Weight, HashPolicy)> = HashMap::new();
        for root in roots {
            let linked: HashSet<&Extent> = root.linked.iter().collect();
            for extent in &root.extents {
                let claim = match (*extent == root.extent, linked.contains(extent)) {
                    (true, _) => Claim::Own,
                    (false, false) => Claim::Mounted,
                    (false, true) => Claim::Linked,
                };
                let weighed = (weight(root, claim), root.settings.hash);
                let heaviest = by_extent.entry(extent).or_insert(weighed);
                if weighed.0 > heaviest.0 {
                    *heaviest = weighed;
                }
            }
        }
        let mut rules: Vec<HashRule> = by_extent
            .into_iter()
            .map(|(extent, ((claim, ..), policy))| HashRule { extent: extent.clone(), policy, claim })
            .collect();
        // What lies in a root goes by it, wherever else it is mounted, and whatever links there are to it.
        for claim in [Claim::Own, Claim::Mounted] {
            let claimed: Vec<Extent> =
                rules.iter().filter(|rule| rule.claim == claim).map(|rule| rule.extent.clone()).collect();
            rules.retain(|rule| {
                rule.claim >= claim || !claimed.iter().any(|other| other.covers(&rule.extent))
            });
        }
        rules.sort_by_cached_key(|rule| (rule.extent.path.as_bytes().len(), rule.extent.clone()));
        Self { rules }
    }

    /// True if some subtree has this policy.
    pub fn have(&self, policy: HashPolicy) -> bool {
        self.rules.iter().any(|rule| rule.policy == policy)
    }

    /// True if some subtree has another policy than this.
    pub fn have_others_than(&self, policy: HashPolicy) -> bool {
        self.rules.iter().any(|rule| rule.policy != policy)
    }

    /// The parts of these subtrees in which some directories go by this policy.
    pub fn within(&self, policy: HashPolicy, extents: &[Extent]) -> Vec<Extent> {
        let of_policy = self.rules.iter().filter(|rule| rule.policy == policy);
        of_policy
            .flat_map(|rule| extents.iter().filter_map(|other| other.intersection(&rule.extent)))
            .cloned()
            .collect()
    }

    /// What a root around a directory says of it; `None` if there is none, but for roots with links to it.
    pub fn around(&self, directory: &Extent) -> Option<HashPolicy> {
        let mut inner_first = self.rules.iter().rev();
        let nearest = inner_first.find(|rule| rule.claim > Claim::Linked && rule.extent.covers(directory));
        nearest.map(|rule| rule.policy)
    }

    /// The rules by which one finds the directories with this policy: outer ones first, so that each takes back what
    /// those before it said of its subtree.
    pub fn of_policy(&self, policy: HashPolicy) -> Vec<&HashRule> {
        let own: Vec<&HashRule> = self.rules.iter().filter(|rule| rule.policy == policy).collect();
        let matters =
            |rule: &&HashRule| rule.policy == policy || own.iter().any(|own| own.extent.covers(&rule.extent));
        self.rules.iter().filter(matters).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::path::VolumePath;
    use crate::model::scan::RootId;
    use crate::model::settings::ScanSettings;
    use crate::model::upkeep::Upkeep;
    use crate::model::volume::{VolumeId, VolumeIdentity};

    fn extent(volume: i64, path: &str) -> Extent {
        Extent { volume: VolumeId(volume), path: VolumePath::new(path.as_bytes()) }
    }

    fn root(path: &str, hash: HashPolicy, entered: &[Extent], linked: &[Extent]) -> Root {
        let own = extent(1, path);
        Root {
            id: RootId(0),
            extents: [std::slice::from_ref(&own), entered, linked].concat(),
            extent: own,
            identity: VolumeIdentity("uuid:main".into()),
            path: Path::new(path).into(),
            settings: ScanSettings { hash, ..ScanSettings::default() },
            upkeep: Upkeep::default(),
            linked: linked.to_vec(),
            last_scan: None,
        }
    }

    fn around(rules: &HashRules, path: &str) -> Option<HashPolicy> {
        rules.around(&extent(1, path))
    }

    #[test]
    fn the_nearest_root_says_what_is_hashed() {
        use HashPolicy::{All, Candidates, None as Nothing};
        let rules = HashRules::of(&[
            root("/a", All, &[], &[]),
            root("/a/b", Nothing, &[], &[]),
            root("/a/b/c", All, &[], &[]),
            root("/x", Candidates, &[], &[]),
        ]);
        assert_eq!(around(&rules, "/a/z"), Some(All));
        assert_eq!(around(&rules, "/a/b"), Some(Nothing));
        assert_eq!(around(&rules, "/a/bb"), Some(All));
        assert_eq!(around(&rules, "/a/b/d"), Some(Nothing));
        assert_eq!(around(&rules, "/a/b/c/d"), Some(All));
        assert_eq!(around(&rules, "/x/y"), Some(Candidates));
        assert_eq!(around(&rules, "/y"), None);
        let of_nothing: Vec<(&Extent, HashPolicy)> =
            rules.of_policy(Nothing).into_iter().map(|rule| (&rule.extent, rule.policy)).collect();
        assert_eq!(of_nothing, [(&extent(1, "/a/b"), Nothing), (&extent(1, "/a/b/c"), All)]);
        assert!(rules.have(Nothing) && !HashRules::of(&[root("/a", All, &[], &[])]).have(Nothing));
        assert_eq!(rules.within(Candidates, &[extent(1, "/x/y")]), [extent(1, "/x/y")]);
        assert_eq!(rules.within(Nothing, &[extent(1, "")]), [extent(1, "/a/b")]);
        assert_eq!(rules.within(Nothing, &[extent(1, "/x"), extent(2, "/a/b")]), []);
    }

    #[test]
    fn a_mounted_filesystem_goes_by_the_root_it_is_mounted_in() {
        use HashPolicy::{All, None as Nothing};
        let disk = [extent(2, "")];
        let (outer, inner) = (root("/a", All, &disk, &[]), root("/a/b", Nothing, &disk, &[]));
        let mut at_its_top = root("/a/b/disk", All, &[], &[]);
        (at_its_top.extent, at_its_top.extents) = (disk[0].clone(), disk.to_vec());
        for both in [[outer.clone(), inner.clone()], [inner.clone(), outer]] {
            assert_eq!(HashRules::of(&both).around(&extent(2, "/d")), Some(Nothing));
        }
        assert_eq!(HashRules::of(&[at_its_top, inner]).around(&extent(2, "/d")), Some(All));
    }

    #[test]
    fn what_is_mounted_a_second_time_goes_by_the_root_it_lies_in() {
        use HashPolicy::{All, Candidates, None as Nothing};
        let again = [extent(1, "/archive/sub"), extent(1, "/srv")];
        let rules = HashRules::of(&[
            root("/archive", Nothing, &[], &[]),
            root("/elsewhere/with/a/long/name", All, &again, &[]),
            root("/else", Candidates, &again, &[]),
        ]);
        assert_eq!(around(&rules, "/archive/sub/d"), Some(Nothing));
        assert_eq!(around(&rules, "/srv/d"), Some(All));
    }

    #[test]
    fn a_link_says_nothing_about_what_lies_in_a_root() {
        use HashPolicy::{All, Candidates, None as Nothing};
        let linked = [extent(1, "/archive/2020"), extent(1, "/outside")];
        let rules = HashRules::of(&[
            root("/archive", Nothing, &[], &[]),
            root("/all", All, &[], &linked),
            root("/some", Candidates, &[], &linked),
        ]);
        assert_eq!(around(&rules, "/archive/2020/d"), Some(Nothing));
        assert_eq!(around(&rules, "/outside"), None);
        let outside = [extent(1, "/outside/d")];
        assert_eq!(rules.within(All, &outside), outside, "one of them wants it read");
        assert_eq!(rules.within(All, &[extent(1, "/archive")]), []);
    }
}
