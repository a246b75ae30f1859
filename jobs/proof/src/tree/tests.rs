use super::*;
use proptest::prelude::*;

/// MTH as RFC 9162, 2.1.1 defines it.
fn root_of(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of(b""),
        [one] => *one,
        _ => {
            let middle = 1 << (leaves.len() - 1).ilog2();
            node(&root_of(&leaves[..middle]), &root_of(&leaves[middle..]))
        }
    }
}

/// PATH as RFC 9162, 2.1.3.1 defines it.
fn path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let middle = 1 << (leaves.len() - 1).ilog2();
    let (mut proof, step) = if index < middle {
        (path(index, &leaves[..middle]), root_of(&leaves[middle..]))
    } else {
        (path(index - middle, &leaves[middle..]), root_of(&leaves[..middle]))
    };
    proof.push(step);
    proof
}

/// SUBPROOF as RFC 9162, 2.1.4.1 defines it.
fn subproof(old: usize, leaves: &[Hash], known: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if known { Vec::new() } else { vec![root_of(leaves)] };
    }
    let middle = 1 << (leaves.len() - 1).ilog2();
    let (mut proof, step) = if old <= middle {
        (subproof(old, &leaves[..middle], known), root_of(&leaves[middle..]))
    } else {
        (subproof(old - middle, &leaves[middle..], false), root_of(&leaves[..middle]))
    };
    proof.push(step);
    proof
}

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|n| leaf(n.to_string().as_bytes())).collect()
}

fn hash_of(leaves: &[Hash]) -> impl Fn(Node) -> Option<Hash> {
    |node| leaves.get(usize::try_from(node.begin()).unwrap()..usize::try_from(node.end()).unwrap()).map(root_of)
}

/// The tree that certificate transparency's implementations test themselves with.
#[test]
fn known_roots() {
    let inputs: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut frontier = Frontier::default();
    assert_eq!(frontier.root(), empty());
    for (input, root) in inputs.into_iter().zip(roots) {
        frontier.push(leaf(input));
        assert_eq!(frontier.root().hex(), root);
    }
}

#[test]
fn every_proof_of_small_trees() {
    let all = leaves(70);
    for size in 1..=all.len() {
        let tree = &all[..size];
        let (root, hash) = (root_of(tree), hash_of(tree));
        let count = size as u64;
        for index in 0..size {
            let proof = inclusion(&inclusion_nodes(index as u64, count).unwrap(), &hash).unwrap();
            assert_eq!(proof, path(index, tree), "{index} of {size}");
            assert!(verify_inclusion(index as u64, count, &tree[index], &root, &proof));
            for other in 0..count {
                let same = other == index as u64;
                assert_eq!(
                    verify_inclusion(other, count, &tree[index], &root, &proof),
                    same,
                    "{other} {index} of {size}"
                );
            }
        }
        for old in 1..=size {
            let proof = consistency(&consistency_nodes(old as u64, count).unwrap(), &hash).unwrap();
            assert_eq!(proof, subproof(old, tree, true), "{old} of {size}");
            let old_root = root_of(&tree[..old]);
            assert!(verify_consistency(old as u64, count, &old_root, &root, &proof));
            assert!(!verify_consistency(old as u64, count, &leaf(b"other"), &root, &proof));
            assert!(!verify_consistency(old as u64, count, &old_root, &leaf(b"other"), &proof));
            let mut longer = proof.clone();
            longer.push(root);
            assert!(!verify_consistency(old as u64, count, &old_root, &root, &longer));
            if let Some((_, shorter)) = proof.split_last() {
                assert!(!verify_consistency(old as u64, count, &old_root, &root, shorter));
            }
        }
    }
    assert_eq!(inclusion_nodes(3, 3), None);
    assert_eq!(consistency_nodes(0, 3), None);
    assert_eq!(consistency_nodes(4, 3), None);
    assert!(!verify_inclusion(0, 0, &all[0], &all[0], &[]) && !verify_consistency(0, 1, &all[0], &all[0], &[]));
}

/// A tree that grew in steps and was put down in tiles between them.
struct Stored(std::collections::BTreeMap<TileId, Vec<u8>>);

impl Stored {
    fn read(&self, ids: impl IntoIterator<Item = TileId>) -> Tiles {
        let mut tiles = Tiles::default();
        for id in ids {
            assert!(tiles.insert(id, &self.0[&id]));
        }
        tiles
    }
}

fn stored(leaves: &[Hash], steps: &[usize]) -> Stored {
    let mut stored = Stored(Default::default());
    let mut size = 0;
    for step in steps {
        let mut edge = Edge::of(size as u64, &stored.read(Edge::needed(size as u64))).unwrap();
        let end = (size + step).min(leaves.len());
        leaves[size..end].iter().for_each(|leaf| edge.push(*leaf));
        size = end;
        for (id, bytes) in edge.take_changed() {
            let before = stored.0.insert(id, bytes.clone()).unwrap_or_default();
            assert!(bytes.starts_with(&before), "a tile only grows");
        }
        assert_eq!((edge.size(), edge.frontier().root()), (size as u64, root_of(&leaves[..size])));
    }
    stored
}

#[test]
fn a_tree_of_three_levels_of_tiles() {
    let all = leaves(65_536 + 300);
    let stored = stored(&all, &[1, 254, 1, 256, 60_000, 5_024, 300]);
    let size = all.len() as u64;
    let root = root_of(&all);
    for index in [0, 255, 256, 65_535, 65_536, size - 1] {
        let nodes = inclusion_nodes(index, size).unwrap();
        let needed = Tiles::needed(nodes.iter().flatten());
        assert!(needed.len() <= 4, "{needed:?}");
        let tiles = stored.read(needed);
        let proof = inclusion(&nodes, |node| tiles.hash(node)).unwrap();
        assert!(verify_inclusion(index, size, &all[index as usize], &root, &proof));
    }
    let tiles = stored.read(Edge::needed(size));
    assert_eq!(Edge::of(size, &tiles).unwrap().frontier().root(), root);
    assert!(Edge::of(size + 1, &tiles).is_none(), "a tile that is too short is no border");
}

proptest! {
    #[test]
    fn proofs_from_tiles(count in 1_usize..1500, steps in proptest::collection::vec(0_usize..400, 1..12), a: usize, b: usize) {
        let all = leaves(count);
        let mut steps = steps;
        steps.push(count);
        let stored = stored(&all, &steps);
        let (size, index) = (b % count + 1, a % (b % count + 1));
        let nodes = inclusion_nodes(index as u64, size as u64).unwrap();
        let tiles = stored.read(Tiles::needed(nodes.iter().flatten()));
        prop_assert_eq!(inclusion(&nodes, |node| tiles.hash(node)).unwrap(), path(index, &all[..size]));
        let nodes = consistency_nodes(index as u64 + 1, size as u64).unwrap();
        let tiles = stored.read(Tiles::needed(nodes.iter().flatten()));
        prop_assert_eq!(consistency(&nodes, |node| tiles.hash(node)).unwrap(), subproof(index + 1, &all[..size], true));
    }

    /// A run of leaves between two covers is the whole tree.
    #[test]
    fn a_part_of_the_tree_gives_its_root(count in 1_usize..600, a: usize, b: usize) {
        let all = leaves(count);
        let (begin, end) = (a % (count + 1), b % (count + 1));
        let (begin, end) = (begin.min(end), begin.max(end));
        let hash = hash_of(&all);
        let peaks: Vec<Hash> = cover(0, begin as u64).into_iter().map(|node| hash(node).unwrap()).collect();
        let mut frontier = Frontier::of(begin as u64, &peaks).unwrap();
        all[begin..end].iter().for_each(|leaf| frontier.push(*leaf));
        for node in cover(end as u64, count as u64) {
            prop_assert!(frontier.push_subtree(node.level, hash(node).unwrap()));
        }
        prop_assert_eq!((frontier.size(), frontier.root()), (count as u64, root_of(&all)));
    }

    #[test]
    fn no_proof_proves_another_leaf(size in 1_u64..200, index: u64, flip in 0_usize..32, place: usize) {
        let all = leaves(size as usize);
        let index = index % size;
        let mut proof = inclusion(&inclusion_nodes(index, size).unwrap(), hash_of(&all)).unwrap();
        let (mut leaf, mut root) = (all[index as usize], root_of(&all));
        let parts = proof.len() + 2;
        match place % parts {
            0 => leaf.0[flip] ^= 1,
            1 => root.0[flip] ^= 1,
            n => proof[n - 2].0[flip] ^= 1,
        }
        prop_assert!(!verify_inclusion(index, size, &leaf, &root, &proof));
    }
}
