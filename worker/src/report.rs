//! Lays out the reports of evidence packages.

#[cfg(feature = "pdf")]
mod glyphs;
#[cfg(feature = "pdf")]
mod typeset;

use keywright_jobs::evidence::Layout;
use std::sync::Arc;

/// What lays out reports here; `None` in a build without the feature `pdf`.
pub fn layout() -> Option<Arc<dyn Layout>> {
    #[cfg(feature = "pdf")]
    return Some(Arc::new(typeset::Typeset::new()));
    #[cfg(not(feature = "pdf"))]
    None
}
