//! An ordered map that is mostly small.
//!
//! A host has very many peers, and of nearly all of them one or two claims and
//! no move. A `BTreeMap` takes room for eleven entries with the first one, and
//! keeps it when the last one goes; this takes what it needs.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::iter::FusedIterator;
use std::ops::RangeInclusive;
use std::slice;

/// So many entries are kept in a sorted vector, more in a tree.
const FEW: usize = 8;

/// A map like `BTreeMap`: same names, same order.
pub(crate) enum Few<K, V> {
    Sorted(Vec<(K, V)>),
    Tree(BTreeMap<K, V>),
}

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Few<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<K, V> Few<K, V> {
    pub(crate) const fn new() -> Self {
        Self::Sorted(Vec::new())
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Sorted(entries) => entries.len(),
            Self::Tree(tree) => tree.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        match self {
            Self::Sorted(entries) => Iter { sorted: entries.iter(), tree: btree_map::Iter::default() },
            Self::Tree(tree) => Iter { sorted: slice::Iter::default(), tree: tree.iter() },
        }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let (sorted, tree) = match self {
            Self::Sorted(entries) => (entries.as_mut_slice(), None),
            Self::Tree(tree) => (&mut [][..], Some(tree)),
        };
        let sorted = sorted.iter_mut().map(|(key, value)| (&*key, value));
        sorted.chain(tree.into_iter().flat_map(BTreeMap::iter_mut))
    }

    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.iter_mut().map(|(_, value)| value)
    }
}

impl<K: Ord, V> Few<K, V> {
    fn place(entries: &[(K, V)], key: &K) -> Result<usize, usize> {
        entries.binary_search_by(|(known, _)| known.cmp(key))
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        match self {
            Self::Sorted(entries) => entries.get(Self::place(entries, key).ok()?).map(|(_, value)| value),
            Self::Tree(tree) => tree.get(key),
        }
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match self {
            Self::Sorted(entries) => {
                let at = Self::place(entries, key).ok()?;
                entries.get_mut(at).map(|(_, value)| value)
            }
            Self::Tree(tree) => tree.get_mut(key),
        }
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Self::Sorted(entries) = self {
            match Self::place(entries, &key) {
                Ok(at) => return entries.get_mut(at).map(|(_, known)| std::mem::replace(known, value)),
                Err(at) if entries.len() < FEW => {
                    entries.reserve_exact(1);
                    entries.insert(at, (key, value));
                    return None;
                }
                Err(_) => *self = Self::Tree(std::mem::take(entries).into_iter().collect()),
            }
        }
        match self {
            Self::Sorted(_) => None,
            Self::Tree(tree) => tree.insert(key, value),
        }
    }

    /// The value of `key`, which is `make`'s if there was none.
    pub(crate) fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> Option<&mut V>
    where
        K: Copy,
    {
        if !self.contains_key(&key) {
            self.insert(key, make());
        }
        self.get_mut(&key)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let value = match self {
            Self::Sorted(entries) => Some(entries.remove(Self::place(entries, key).ok()?).1),
            Self::Tree(tree) => tree.remove(key),
        };
        self.shrink();
        value
    }

    #[cfg(test)]
    pub(crate) fn pop_first(&mut self) -> Option<(K, V)>
    where
        K: Copy,
    {
        let first = *self.keys().next()?;
        self.remove(&first).map(|value| (first, value))
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        match self {
            Self::Sorted(entries) => entries.retain_mut(|(key, value)| keep(key, value)),
            Self::Tree(tree) => tree.retain(keep),
        }
        self.shrink();
    }

    /// Gives memory back when there is nothing left.
    fn shrink(&mut self) {
        if self.is_empty() {
            self.clear();
        }
    }

    pub(crate) fn range(&self, keys: RangeInclusive<K>) -> impl Iterator<Item = (&K, &V)> {
        let (sorted, tree) = match self {
            Self::Sorted(entries) => {
                let first = entries.partition_point(|(key, _)| key < keys.start());
                let end = entries.partition_point(|(key, _)| key <= keys.end());
                (entries.get(first..end).unwrap_or_default(), None)
            }
            Self::Tree(tree) => (&[][..], (keys.start() <= keys.end()).then(|| tree.range(keys))),
        };
        sorted.iter().map(|(key, value)| (key, value)).chain(tree.into_iter().flatten())
    }
}

/// See [`Few::iter`].
pub(crate) struct Iter<'a, K, V> {
    sorted: slice::Iter<'a, (K, V)>,
    tree: btree_map::Iter<'a, K, V>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        self.sorted.next().map(|(key, value)| (key, value)).or_else(|| self.tree.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let length = self.sorted.len().saturating_add(self.tree.len());
        (length, Some(length))
    }
}

impl<K, V> DoubleEndedIterator for Iter<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.tree.next_back().or_else(|| self.sorted.next_back().map(|(key, value)| (key, value)))
    }
}

impl<K, V> ExactSizeIterator for Iter<'_, K, V> {}
impl<K, V> FusedIterator for Iter<'_, K, V> {}

impl<'a, K, V> IntoIterator for &'a Few<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K, V> IntoIterator for Few<K, V> {
    type Item = (K, V);
    type IntoIter = std::iter::Chain<std::vec::IntoIter<(K, V)>, btree_map::IntoIter<K, V>>;

    fn into_iter(self) -> Self::IntoIter {
        match self {
            Self::Sorted(entries) => entries.into_iter().chain(BTreeMap::new()),
            Self::Tree(tree) => Vec::new().into_iter().chain(tree),
        }
    }
}

impl<K: Ord, V> Extend<(K, V)> for Few<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Few<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        map.extend(entries);
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the map that it stands for.
        #[test]
        fn as_a_tree_would(steps in proptest::collection::vec((0_u8..6, 0_u32..20, 0_u32..20), 1..200)) {
            let (mut few, mut tree) = (Few::default(), BTreeMap::new());
            for (what, key, other) in steps {
                match what {
                    0 | 1 => prop_assert_eq!(few.insert(key, other), tree.insert(key, other)),
                    2 => prop_assert_eq!(few.remove(&key), tree.remove(&key)),
                    3 => prop_assert_eq!(
                        few.get_or_insert_with(key, || other).copied(),
                        Some(*tree.entry(key).or_insert(other))
                    ),
                    4 => {
                        few.retain(|key, value| key % 5 != other % 5 && *value != other);
                        tree.retain(|key, value| key % 5 != other % 5 && *value != other);
                    }
                    _ => {
                        few.values_mut().for_each(|value| *value += key);
                        tree.values_mut().for_each(|value| *value += key);
                    }
                }
                prop_assert!(few.iter().eq(tree.iter()) && few.iter().rev().eq(tree.iter().rev()));
                prop_assert_eq!((few.len(), few.iter().len(), few.is_empty()), (tree.len(), tree.len(), tree.is_empty()));
                prop_assert_eq!((few.get(&key), few.contains_key(&other)), (tree.get(&key), tree.contains_key(&other)));
                prop_assert_eq!(few.get_mut(&key), tree.get_mut(&key));
                if key <= other {
                    prop_assert!(few.range(key..=other).eq(tree.range(key..=other)));
                } else {
                    prop_assert_eq!(few.range(key..=other).count(), 0);
                }
            }
            prop_assert_eq!(format!("{few:?}"), format!("{tree:?}"));
            prop_assert!(few.into_iter().eq(tree));
        }
    }

    #[test]
    fn nothing_takes_nothing() {
        let mut few: Few<u32, u64> = (0..20).map(|i| (i, 0)).collect();
        assert!(matches!(few, Few::Tree(_)));
        (0..20).for_each(|i| assert_eq!(few.remove(&i), Some(0)));
        assert!(matches!(&few, Few::Sorted(entries) if entries.capacity() == 0));
        few.insert(1, 1);
        assert!(matches!(&few, Few::Sorted(entries) if entries.capacity() == 1));
    }
}
