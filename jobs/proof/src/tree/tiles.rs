//! The tree's hashes as they are kept: in tiles of up to 256 hashes of complete subtrees, as in C2SP's tlog-tiles.
//!
//! Tile (level, index) holds the hashes of the subtrees of 2^(8 * level) leaves from number 256 * index on. A proof in a tree of
//! 2^40 leaves reads ten tiles at most.

use super::{Frontier, Node, cover, node};
use crate::hash::Hash;
use std::collections::{BTreeMap, BTreeSet};

/// Hashes in a full tile.
pub const TILE: u64 = 256;
const HEIGHT: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileId {
    pub level: u32,
    pub index: u64,
}

impl TileId {
    /// The tile from which a subtree's hash comes.
    pub fn of(node: Node) -> Self {
        let first = node.index << (node.level % HEIGHT);
        Self { level: node.level / HEIGHT, index: first / TILE }
    }
}

/// Tiles that were read.
#[derive(Clone, Debug, Default)]
pub struct Tiles(BTreeMap<TileId, Vec<Hash>>);

impl Tiles {
    /// Which tiles these subtrees need.
    pub fn needed<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> BTreeSet<TileId> {
        nodes.into_iter().map(|node| TileId::of(*node)).collect()
    }

    /// Takes a tile; `false` when its bytes are not whole hashes or too many.
    pub fn insert(&mut self, id: TileId, bytes: &[u8]) -> bool {
        let Some(hashes) = hashes(bytes) else { return false };
        self.0.insert(id, hashes);
        true
    }

    /// The hash of a complete subtree; `None` when its tile was not read or does not reach so far.
    pub fn hash(&self, of: Node) -> Option<Hash> {
        subtree(self.0.get(&TileId::of(of))?, of)
    }
}

fn hashes(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    (rest.is_empty() && hashes.len() as u64 <= TILE).then(|| hashes.iter().copied().map(Hash).collect())
}

/// Hashes up what a tile holds of a subtree.
fn subtree(tile: &[Hash], of: Node) -> Option<Hash> {
    let height = of.level % HEIGHT;
    let first = usize::try_from((of.index << height) % TILE).ok()?;
    let mut row = tile.get(first..first + (1 << height))?.to_vec();
    while row.len() > 1 {
        row = row.chunks_exact(2).filter_map(|pair| Some(node(pair.first()?, pair.last()?))).collect();
    }
    row.pop()
}

/// The right border of a tree: on each level the last tile, if it is not full. All that is needed to add leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    /// By level; an empty one is a tile that has yet to begin.
    tiles: Vec<Vec<Hash>>,
    changed: BTreeMap<TileId, Vec<Hash>>,
}

impl Edge {
    /// The tiles of the border of a tree of `size` leaves.
    pub fn needed(size: u64) -> Vec<TileId> {
        let levels = (0..).take_while(|level| HEIGHT * level < u64::BITS && size >> (HEIGHT * level) > 0);
        levels
            .map(|level| TileId { level, index: (size >> (HEIGHT * level)) / TILE })
            .filter(|id| !(size >> (HEIGHT * id.level)).is_multiple_of(TILE))
            .collect()
    }

    /// The border of a tree of `size` leaves; `None` when a tile that [`Edge::needed`] names is missing or does not reach so far.
    /// What tiles hold beyond that is left out.
    pub fn of(size: u64, tiles: &Tiles) -> Option<Self> {
        let mut edge = Self { size, ..Self::default() };
        for id in Self::needed(size) {
            let width = usize::try_from((size >> (HEIGHT * id.level)) % TILE).ok()?;
            let tile = tiles.0.get(&id)?.get(..width)?.to_vec();
            edge.tiles.resize(usize::try_from(id.level).ok()?, Vec::new());
            edge.tiles.push(tile);
        }
        Some(edge)
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn push(&mut self, leaf: Hash) {
        self.size += 1;
        self.add(0, leaf);
    }

    fn add(&mut self, level: u32, hash: Hash) {
        let place = level as usize;
        if self.tiles.len() <= place {
            self.tiles.resize(place + 1, Vec::new());
        }
        let Some(tile) = self.tiles.get_mut(place) else { return };
        tile.push(hash);
        if tile.len() as u64 == TILE {
            let full = std::mem::take(tile);
            let root = subtree(&full, Node { level: level * HEIGHT + HEIGHT - 1, index: 0 })
                .zip(subtree(&full, Node { level: level * HEIGHT + HEIGHT - 1, index: 1 }))
                .map(|(left, right)| node(&left, &right));
            self.changed.insert(TileId { level, index: (self.size >> (HEIGHT * level)) / TILE - 1 }, full);
            if let Some(root) = root {
                self.add(level + 1, root);
            }
        }
    }

    /// The tiles that have grown since they were last taken, as bytes.
    pub fn take_changed(&mut self) -> Vec<(TileId, Vec<u8>)> {
        let mut changed = std::mem::take(&mut self.changed);
        for id in Self::needed(self.size) {
            if let Some(tile) = self.tiles.get(id.level as usize) {
                changed.insert(id, tile.clone());
            }
        }
        changed.into_iter().map(|(id, hashes)| (id, hashes.iter().flat_map(|hash| hash.0).collect())).collect()
    }

    /// The same tree as a frontier, for its root and its peaks.
    pub fn frontier(&self) -> Frontier {
        let mut frontier = Frontier::default();
        for peak in cover(0, self.size) {
            let tile = self.tiles.get((peak.level / HEIGHT) as usize);
            if let Some(hash) = tile.and_then(|tile| subtree(tile, peak)) {
                frontier.push_subtree(peak.level, hash);
            }
        }
        frontier
    }
}
