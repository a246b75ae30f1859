//! Checking a run of events against checkpoints, wherever the events come from: an export, a package or the database.

use crate::{
    checkpoint::Checkpoint,
    hash::Hash,
    tree::{self, Frontier},
    verdict::Fault,
};
use std::collections::BTreeSet;

/// Follows the events in order and compares the tree that they make with what was signed.
#[derive(Clone, Debug)]
pub struct LogCheck {
    frontier: Frontier,
    /// Checkpoints that somebody kept, by size; those before `reached` are behind us.
    kept: Vec<(Checkpoint, String)>,
    reached: usize,
    /// The sizes at which they were compared.
    compared: BTreeSet<u64>,
    /// The size at which the tree was last what a checkpoint says.
    agreed: u64,
}

impl LogCheck {
    /// Begins behind the events that make up `frontier`.
    pub fn begin(frontier: Frontier) -> Self {
        let agreed = frontier.size();
        Self { frontier, kept: Vec::new(), reached: 0, compared: BTreeSet::new(), agreed }
    }

    /// The tree must be this one when it has this size; `source` names the checkpoint for people. Only before the first event.
    ///
    /// # Errors
    /// A fault when the tree already has this size and is another one.
    pub fn keep(&mut self, checkpoint: Checkpoint, source: impl Into<String>) -> Result<(), Fault> {
        self.kept.push((checkpoint, source.into()));
        self.kept.sort_by_key(|(checkpoint, _)| checkpoint.size);
        self.reached = self.kept.partition_point(|(kept, _)| kept.size < self.frontier.size());
        self.compare_kept()
    }

    /// The number that the next event must have.
    pub fn next(&self) -> u64 {
        self.frontier.size()
    }

    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Takes the next event: its number, the bytes that are hashed, and the hash that was stored beside it.
    ///
    /// # Errors
    /// The fault at this event.
    pub fn event(&mut self, seq: u64, bytes: &[u8], stored: Option<&Hash>) -> Result<(), Fault> {
        let next = self.next();
        if seq > next {
            let what = format!(
                "event {seq} stands where event {next} belongs: {} removed, or the order was changed",
                if seq - next == 1 {
                    format!("event {next} was")
                } else {
                    format!("events {next} to {} were", seq - 1)
                }
            );
            return Err(Fault::tampered("event_missing", what).at_event(next));
        }
        if seq < next {
            let what = format!(
                "event {seq} stands where event {next} belongs: it was put in or repeated, or the order was changed"
            );
            return Err(Fault::tampered("event_out_of_order", what).at_event(seq));
        }
        let leaf = tree::leaf(bytes);
        if stored.is_some_and(|stored| *stored != leaf) {
            let what = "its content is not what was hashed when it was logged: the event was changed";
            return Err(Fault::tampered("event_changed", what).at_event(seq));
        }
        self.frontier.push(leaf);
        self.compare_kept()
    }

    /// Compares the tree as it is now with a checkpoint of the log that is being checked.
    ///
    /// # Errors
    /// A fault when it says another size or root.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), Fault> {
        let size = self.frontier.size();
        if checkpoint.size != size {
            let what = format!(
                "a checkpoint of {} events stands after {size} events: events or the checkpoint were moved",
                checkpoint.size
            );
            return Err(Fault::tampered("checkpoint_misplaced", what));
        }
        if checkpoint.root != self.frontier.root() {
            let what = format!(
                "the events are not those that were signed: one of the events {} to {} was changed together with its hash",
                self.agreed,
                size.saturating_sub(1)
            );
            return Err(Fault::tampered("root_differs", what));
        }
        self.agreed = size;
        Ok(())
    }

    /// Goes over the leaves of complete subtrees without seeing them.
    ///
    /// # Errors
    /// A fault when they do not follow, or a kept checkpoint lies among them.
    pub fn skip(&mut self, nodes: &[tree::Node], hashes: &[Hash]) -> Result<(), Fault> {
        let changed = || Fault::tampered("hashes_changed", "the hashes of what is not in the file do not fit together");
        if nodes.len() != hashes.len() {
            return Err(changed());
        }
        for (node, hash) in nodes.iter().zip(hashes) {
            if node.begin() != self.next() || !self.frontier.push_subtree(node.level, *hash) {
                return Err(changed());
            }
            self.compare_kept()?;
        }
        Ok(())
    }

    /// The kept checkpoints that were not compared, because not all events up to them were seen one by one.
    pub fn not_compared(&self) -> impl Iterator<Item = &(Checkpoint, String)> {
        self.kept.iter().filter(|(kept, _)| !self.compared.contains(&kept.size))
    }

    fn compare_kept(&mut self) -> Result<(), Fault> {
        while let Some((kept, source)) = self.kept.get(self.reached)
            && kept.size <= self.frontier.size()
        {
            if kept.size == self.frontier.size() {
                if kept.root != self.frontier.root() {
                    return Err(rewritten(kept, source));
                }
                self.compared.insert(kept.size);
            }
            self.reached += 1;
        }
        Ok(())
    }
}

/// What a kept checkpoint that does not agree means.
pub(crate) fn rewritten(kept: &Checkpoint, source: &str) -> Fault {
    Fault::tampered(
        "history_rewritten",
        format!(
            "the first {} events are not those of the checkpoint kept in {source}{}: the log was rewritten since, signatures and all",
            kept.size,
            kept.time.as_ref().map(|time| format!(" from {time}")).unwrap_or_default()
        ),
    )
}
