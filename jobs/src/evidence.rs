//! What a process needs for evidence packages beside the database: the store, room for what is being built, and whoever lays
//! out the report.

use keywright_stores::objects::{Objects, Place, StoreError, local_folder};
use serde::Serialize;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};
use thiserror::Error;
use tokio::sync::OnceCell;
use url::Url;

pub use keywright_stores::objects;

/// The store that the configuration names, opened when it is first needed.
#[derive(Clone)]
pub struct Store {
    place: Place,
    folder: PathBuf,
    gcp_endpoint: Option<Url>,
    opened: Arc<OnceCell<Objects>>,
}

impl Store {
    /// `data_dir` holds the directory of a local store.
    pub fn new(place: Place, data_dir: &Path, gcp_endpoint: Option<Url>) -> Self {
        Self { place, folder: local_folder(data_dir), gcp_endpoint, opened: Arc::default() }
    }

    /// # Errors
    /// When it cannot be opened; the next call tries again.
    pub async fn objects(&self) -> Result<&Objects, StoreError> {
        let open = || Objects::open(&self.place, &self.folder, self.gcp_endpoint.clone());
        self.opened.get_or_try_init(open).await
    }
}

/// What a worker builds packages with.
#[derive(Clone)]
pub struct Workshop {
    pub store: Store,
    /// Where what is being built lies; never read by anybody else.
    pub room: PathBuf,
    /// `None` = this worker lays out no report.
    pub layout: Option<Arc<dyn Layout>>,
    /// Told of each step before it is taken; only tests have one.
    pub observer: Option<Observer>,
}

/// Hears of the steps of a build by name.
pub type Observer = Arc<dyn Fn(&str) + Send + Sync>;

impl Workshop {
    /// What is built lies in `data_dir` too.
    pub fn new(store: Store, data_dir: &Path, layout: Option<Arc<dyn Layout>>) -> Self {
        Self { store, room: data_dir.join("building"), layout, observer: None }
    }

    /// A step is about to be taken.
    pub fn step(&self, name: &str) {
        if let Some(observer) = &self.observer {
            observer(name);
        }
    }
}

impl fmt::Debug for Workshop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workshop").field("room", &self.room).finish_non_exhaustive()
    }
}

/// Lays a report out as a document in PDF. The same report makes the same bytes.
pub trait Layout: Send + Sync {
    /// # Errors
    /// [`LayoutError`].
    fn lay_out(&self, report: &Report) -> Result<Vec<u8>, LayoutError>;
}

/// The report could not be laid out.
#[derive(Debug, Error)]
#[error("the report could not be laid out: {0}")]
pub struct LayoutError(pub String);

/// What a report tells. Everything from outside is text here and stays text.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub title: String,
    /// Identifies the document.
    pub package: String,
    /// When the package was asked for; the document's date.
    pub exported_at: chrono::DateTime<chrono::Utc>,
    /// Facts of the cover, in order.
    pub cover: Vec<(String, String)>,
    pub sections: Vec<Section>,
    /// The statement that management signs by hand: one paragraph each.
    pub assertion: Vec<String>,
    #[serde(skip)]
    pub attachments: Vec<Attachment>,
}

/// A part of a report with a heading of its own.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Section {
    pub title: String,
    pub paragraphs: Vec<String>,
    pub figures: Vec<Figure>,
    pub tables: Vec<Table>,
}

/// Numbers of one thing by kind.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figure {
    pub title: String,
    pub bars: Vec<(String, u64)>,
}

/// Rows of text.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Table {
    pub title: String,
    pub columns: Vec<String>,
    /// How wide the columns are in relation to each other.
    pub widths: Vec<u32>,
    pub rows: Vec<Vec<String>>,
    /// What is said below it; empty for nothing.
    pub note: String,
}

/// A file that travels in the report, byte for byte.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub name: String,
    pub description: String,
    pub bytes: Vec<u8>,
}
