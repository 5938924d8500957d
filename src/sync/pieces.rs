//! What the index refuses as a whole is tried in smaller pieces, until it is known what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::model::scan::RootId;
use crate::scan::{Seen, Touched};

/// Two halves of what was seen; only its directory if it is a single name. Moves belong to the whole: without them, names
/// that were moved are read again. What was rewritten or linked is asked for with the first half.
pub(super) fn halves(seen: Seen) -> Result<(Seen, Seen), PathBuf> {
    let (rewritten, linked) = (seen.rewritten, seen.linked);
    let names: Vec<(RootId, PathBuf, Box<[u8]>)> = seen
        .roots
        .into_iter()
        .flat_map(|(root, touched)| {
            touched.names.into_iter().flat_map(move |(directory, names)| {
                names.into_iter().map(move |name| (root, directory.clone(), name))
            })
        })
        .collect();
    if names.len() < 2 {
        return Err(names.into_iter().next().map(|(_, directory, _)| directory).unwrap_or_default());
    }
    let (first, second) = names.split_at(names.len() / 2);
    Ok((Seen { rewritten, linked, ..collect(first) }, collect(second)))
}

fn collect(names: &[(RootId, PathBuf, Box<[u8]>)]) -> Seen {
    let mut roots: BTreeMap<RootId, Touched> = BTreeMap::new();
    for (root, directory, name) in names {
        let touched = roots.entry(*root).or_default();
        let names: &mut BTreeSet<Box<[u8]>> = touched.names.entry(directory.clone()).or_default();
        names.insert(name.clone());
        touched.events += 1;
    }
    Seen { roots, ..Seen::default() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn halves_hold_everything_and_end_with_single_names() {
        let names: Vec<_> = (0..5_u8)
            .map(|number| {
                (RootId(i64::from(number % 2)), PathBuf::from("/r"), Box::from([number].as_slice()))
            })
            .collect();
        let mut whole = vec![collect(&names)];
        let mut single = Vec::new();
        while let Some(seen) = whole.pop() {
            match halves(seen.clone()) {
                Ok((first, second)) => whole.extend([first, second]),
                Err(directory) => {
                    assert_eq!(directory, Path::new("/r"));
                    single.push(seen);
                }
            }
        }
        assert_eq!(single.len(), 5);
    }
}
