//! The Merkle tree of RFC 6962, section 2.1: hashes, roots, proofs, and their verification.
//!
//! Nothing here reads anything: a proof is first a list of *ranges* of leaves, whose hashes somebody looks up.

use sha2::{Digest, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// Leaves from the first number up to, not including, the second.
pub type Range = (u64, u64);

/// The hash of a leaf.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

/// The hash of an inner node.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of the tree without leaves.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// A tree that only grows, as the roots of its complete subtrees from left to right: all that it takes to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// A tree of `size` leaves with these complete subtrees; `None` where their number does not fit.
    pub fn new(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, from left to right.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf, and calls `complete` with height and root of every subtree that it completes, itself the first.
    pub fn push(&mut self, leaf: Hash, mut complete: impl FnMut(u32, &Hash)) {
        let mut root = leaf;
        complete(0, &root);
        for height in 1..=self.size.trailing_ones() {
            let Some(left) = self.peaks.pop() else { break };
            root = node_hash(&left, &root);
            complete(height, &root);
        }
        self.peaks.push(root);
        self.size += 1;
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        join(&self.peaks).unwrap_or_else(empty_root)
    }
}

/// The hash of neighbouring subtrees that get smaller to the right; `None` of none.
pub fn join(subtrees: &[Hash]) -> Option<Hash> {
    let (last, before) = subtrees.split_last()?;
    Some(before.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
}

/// The largest power of two below `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// The complete subtrees that make up a range, as (height, first leaf), from left to right. The range is one that a
/// tree splits into: it begins at a multiple of its size rounded up to a power of two.
pub fn complete_subtrees((first, end): Range) -> Vec<(u32, u64)> {
    let mut found = vec![];
    let mut at = first;
    while at < end {
        let height = (end - at).ilog2();
        found.push((height, at));
        at += 1 << height;
    }
    found
}

/// The ranges whose hashes are the inclusion proof of a leaf in a tree of `size` leaves (PATH of RFC 6962); `None`
/// where the tree has no such leaf.
pub fn inclusion_ranges(index: u64, size: u64) -> Option<Vec<Range>> {
    if index >= size {
        return None;
    }
    let (mut first, mut end, mut ranges) = (0, size, vec![]);
    while end - first > 1 {
        let middle = first + split(end - first);
        if index < middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((first, middle));
            first = middle;
        }
    }
    ranges.reverse();
    Some(ranges)
}

/// The ranges whose hashes are the proof that a tree of `old` leaves is the beginning of one of `new` leaves (PROOF of
/// RFC 6962); `None` where `old` is 0 or more than `new`.
pub fn consistency_ranges(old: u64, new: u64) -> Option<Vec<Range>> {
    if old == 0 || old > new {
        return None;
    }
    let (mut first, mut end, mut ranges) = (0, new, vec![]);
    while end != old {
        let middle = first + split(end - first);
        if old <= middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((first, middle));
            first = middle;
        }
    }
    // A verifier has the old root; another subtree that ends there has to be given.
    if first > 0 {
        ranges.push((first, end));
    }
    ranges.reverse();
    Some(ranges)
}

/// Whether `path` proves that the leaf of this hash and number is in the tree of this size and root (RFC 9162,
/// 2.1.3.2).
pub fn verify_inclusion(index: u64, size: u64, leaf: &Hash, path: &[Hash], root: &Hash) -> bool {
    inclusion_root(index, size, leaf, path).as_ref() == Some(root)
}

/// The root of the only tree of this size in which `path` proves the leaf of this hash and number; `None` where it
/// proves it in none.
pub fn inclusion_root(index: u64, size: u64, leaf: &Hash, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(hash)
}

/// Whether `path` proves that the tree of `old` leaves and `old_root` is the beginning of the one of `new` leaves and
/// `new_root` (RFC 9162, 2.1.4.2). Of an empty tree nothing can be proven.
pub fn verify_consistency(old: u64, new: u64, old_root: &Hash, new_root: &Hash, path: &[Hash]) -> bool {
    old > 0 && verify_subtree((0, old), new, old_root, new_root, path)
}

/// Whether `path` proves that these leaves, with this hash, are part of the tree of this size and root. They have to be
/// a range that a tree splits into (draft-ietf-plants-merkle-tree-certs, 4.4); one from 0 on is an older tree.
pub fn verify_subtree((first, end): Range, size: u64, subtree: &Hash, root: &Hash, path: &[Hash]) -> bool {
    let length = end.saturating_sub(first);
    if length == 0 {
        return path.is_empty() && first == end && end <= size && *subtree == empty_root();
    }
    let aligned = length.checked_next_power_of_two().is_some_and(|power| first.is_multiple_of(power));
    if end > size || !aligned {
        return false;
    }
    let (mut left, mut node, mut last) = (first, end - 1, size - 1);
    // Up to where the subtree hangs; a complete one is part of the proof without being named.
    while left != node && (node == last || node & 1 == 1) {
        (left, node, last) = (left >> 1, node >> 1, last >> 1);
    }
    let mut path = path.iter();
    let Some(start) = (if left == node { Some(subtree) } else { path.next() }) else { return false };
    let (mut old, mut new) = (*start, *start);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            if left < node {
                old = node_hash(sibling, &old);
            }
            new = node_hash(sibling, &new);
            while node & 1 == 0 && node != 0 {
                (left, node, last) = (left >> 1, node >> 1, last >> 1);
            }
        } else {
            new = node_hash(&new, sibling);
        }
        (left, node, last) = (left >> 1, node >> 1, last >> 1);
    }
    last == 0 && old == *subtree && new == *root
}
