//! The Merkle tree of RFC 9162, 2.1: leaves and nodes hashed apart, so that none can pass for the other.

use crate::hash::{Hash, Hasher};

mod proofs;
mod tiles;

pub use proofs::{consistency, consistency_nodes, inclusion, inclusion_nodes, verify_consistency, verify_inclusion};
pub use tiles::{Edge, TILE, TileId, Tiles};

/// The hash of a leaf.
pub fn leaf(bytes: &[u8]) -> Hash {
    Hash::of_parts(&[&[0], bytes])
}

/// The hash of an inner node.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    let (_, both) = bytes.split_at_mut(1);
    let (first, second) = both.split_at_mut(32);
    first.copy_from_slice(&left.0);
    second.copy_from_slice(&right.0);
    Hash::of(&bytes)
}

/// The root of the tree without leaves.
pub fn empty() -> Hash {
    Hasher::default().finish()
}

/// A complete subtree: the 2^`level` leaves from `index` * 2^`level` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    pub level: u32,
    pub index: u64,
}

impl Node {
    /// The first leaf below it.
    pub fn begin(self) -> u64 {
        self.index.checked_shl(self.level).unwrap_or(u64::MAX)
    }

    /// The leaf after the last one below it.
    pub fn end(self) -> u64 {
        self.index.saturating_add(1).checked_shl(self.level).unwrap_or(u64::MAX)
    }
}

/// The fewest complete subtrees that cover the leaves from `begin` up to `end`, in order.
pub fn cover(begin: u64, end: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut at = begin;
    while at < end {
        let room = (end - at).ilog2();
        let level = if at == 0 { room } else { at.trailing_zeros().min(room) };
        nodes.push(Node { level, index: at >> level });
        at += 1 << level;
    }
    nodes
}

/// The tree over leaves that come one after the other, of which only the subtrees on the right border are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// The largest subtree first, each with its level.
    peaks: Vec<(u32, Hash)>,
}

impl Frontier {
    /// The tree of `size` leaves whose complete subtrees, the largest first, have these hashes; `None` unless they are as many
    /// as such a tree has.
    pub fn of(size: u64, peaks: &[Hash]) -> Option<Self> {
        let nodes = cover(0, size);
        (nodes.len() == peaks.len())
            .then(|| Self { size, peaks: nodes.iter().zip(peaks).map(|(node, hash)| (node.level, *hash)).collect() })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of the complete subtrees, the largest first.
    pub fn peaks(&self) -> Vec<Hash> {
        self.peaks.iter().map(|(_, hash)| *hash).collect()
    }

    pub fn push(&mut self, leaf: Hash) {
        self.push_subtree(0, leaf);
    }

    /// Adds a complete subtree of 2^`level` leaves. The size before must be a multiple of that; else `false`, and nothing is
    /// added.
    pub fn push_subtree(&mut self, level: u32, hash: Hash) -> bool {
        let Some(leaves) = 1_u64.checked_shl(level) else { return false };
        if !self.size.is_multiple_of(leaves) {
            return false;
        }
        let (mut level, mut hash) = (level, hash);
        while let Some((_, left)) = self.peaks.pop_if(|(peak, _)| *peak == level) {
            hash = node(&left, &hash);
            level += 1;
        }
        self.peaks.push((level, hash));
        self.size += leaves;
        true
    }

    pub fn root(&self) -> Hash {
        fold(self.peaks.iter().map(|(_, hash)| hash)).unwrap_or_else(empty)
    }
}

/// The hash over neighbouring subtrees, of which each is larger than the next one.
fn fold<'a>(peaks: impl DoubleEndedIterator<Item = &'a Hash>) -> Option<Hash> {
    let mut peaks = peaks.rev();
    let last = *peaks.next()?;
    Some(peaks.fold(last, |right, left| node(left, &right)))
}

#[cfg(test)]
mod tests;
