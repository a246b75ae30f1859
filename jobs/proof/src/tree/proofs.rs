//! Proofs of inclusion and of consistency (RFC 9162, 2.1.3 and 2.1.4).
//!
//! A proof is made in two steps: which complete subtrees it is made of, and, once their hashes were read, the proof itself. So
//! whoever keeps the hashes reads them all at once.

use super::{Node, cover, fold, node};
use crate::hash::Hash;

/// For each hash of the proof that leaf `index` is in the tree of `size` leaves: the subtrees that it is made of. `None` when
/// there is no such leaf.
pub fn inclusion_nodes(index: u64, size: u64) -> Option<Vec<Vec<Node>>> {
    if index >= size {
        return None;
    }
    let mut proof = Vec::new();
    let (mut begin, mut end) = (0, size);
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            proof.push(cover(middle, end));
            end = middle;
        } else {
            proof.push(cover(begin, middle));
            begin = middle;
        }
    }
    proof.reverse();
    Some(proof)
}

/// The same for the proof that the tree of `new` leaves begins with the one of `old` leaves. `None` unless 0 < `old` <= `new`.
pub fn consistency_nodes(old: u64, new: u64) -> Option<Vec<Vec<Node>>> {
    if old == 0 || old > new {
        return None;
    }
    let mut proof = Vec::new();
    let (mut begin, mut end) = (0, new);
    // whether the old tree is a subtree of which the verifier knows the hash already
    let mut known = true;
    while end != old {
        let middle = begin + split(end - begin);
        if old <= middle {
            proof.push(cover(middle, end));
            end = middle;
        } else {
            proof.push(cover(begin, middle));
            begin = middle;
            known = false;
        }
    }
    if !known {
        proof.push(cover(begin, end));
    }
    proof.reverse();
    Some(proof)
}

/// The largest power of two below `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// The proof for what [`inclusion_nodes`] named; `None` when one of the hashes is not there.
pub fn inclusion(nodes: &[Vec<Node>], hash: impl Fn(Node) -> Option<Hash>) -> Option<Vec<Hash>> {
    nodes.iter().map(|nodes| fold(nodes.iter().map(|node| hash(*node)).collect::<Option<Vec<_>>>()?.iter())).collect()
}

/// The proof for what [`consistency_nodes`] named; `None` when one of the hashes is not there.
pub fn consistency(nodes: &[Vec<Node>], hash: impl Fn(Node) -> Option<Hash>) -> Option<Vec<Hash>> {
    inclusion(nodes, hash)
}

/// Whether `leaf` is leaf `index` of the tree of `size` leaves with this root (RFC 9162, 2.1.3.2).
pub fn verify_inclusion(index: u64, size: u64, leaf: &Hash, root: &Hash, proof: &[Hash]) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for step in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node(step, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node(&hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether the tree of `new` leaves begins with the one of `old` leaves (RFC 9162, 2.1.4.2).
pub fn verify_consistency(old: u64, new: u64, old_root: &Hash, new_root: &Hash, proof: &[Hash]) -> bool {
    if old == 0 || old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    let mut steps = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { steps.next() };
    let Some(first) = first else { return false };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = node(step, &old_hash);
            new_hash = node(step, &new_hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node(&new_hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}
