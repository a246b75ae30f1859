//! What a verified export is told to hold.

use super::Cut;
use crate::{checkpoint::Checkpoint, note::Verifier};
use std::fmt;

/// What was checked and found valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub origin: String,
    pub from: u64,
    pub to: u64,
    /// The checkpoint under which all of it lies.
    pub checkpoint: Checkpoint,
    /// The key that signed it.
    pub key: Verifier,
    /// Checkpoints among the events.
    pub checkpoints: u64,
    pub kept: usize,
    pub erased_names: u64,
    pub cut: Option<Cut>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.to - self.from;
        writeln!(f, "log          {}", self.origin)?;
        match self.to.checked_sub(1).filter(|_| count > 0) {
            Some(last) => {
                writeln!(f, "events       {count}: {} to {last}, each as it was logged, none missing", self.from)?
            }
            None => writeln!(f, "events       none")?,
        }
        let time = self.checkpoint.time.as_deref().unwrap_or("an unknown time");
        writeln!(f, "checkpoint   {} events, root {}, of {time}", self.checkpoint.size, self.checkpoint.root)?;
        writeln!(f, "signed by    {}", self.key)?;
        writeln!(f, "compared     {} checkpoints in the file, {} kept elsewhere", self.checkpoints, self.kept)?;
        if let Some(cut) = &self.cut {
            writeln!(f, "retention    events before {} were cut off on {}, as signed", cut.size, cut.time)?;
        }
        if self.erased_names > 0 {
            writeln!(f, "erased       {} names, whose events stand as they did", self.erased_names)?;
        }
        Ok(())
    }
}
