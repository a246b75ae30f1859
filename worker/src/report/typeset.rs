//! Layout by typst, as a library: one template of ours, the report as data beside it, and nothing else that it could read.

use super::glyphs::{Trust, shown};
use chrono::{Datelike, Timelike};
use keywright_jobs::evidence::{Attachment, Layout, LayoutError, Report};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use typst::{
    Library, LibraryExt, World,
    diag::{FileError, FileResult, SourceDiagnostic},
    foundations::{Bytes, Datetime, Duration, Smart},
    syntax::{FileId, RootedPath, Source, VirtualPath, VirtualRoot},
    text::{Font, FontBook},
    utils::LazyHash,
};
use typst_kit::fonts::{FontStore, embedded};
use typst_layout::PagedDocument;
use typst_pdf::{PdfOptions, PdfStandard, PdfStandards, Timestamp};

const TEMPLATE: &str = include_str!("report.typ");
const DATA: &str = "data.json";

/// The fonts and the language, which all reports share.
pub struct Typeset {
    library: LazyHash<Library>,
    fonts: FontStore,
    covered: BTreeSet<char>,
}

impl Typeset {
    pub fn new() -> Self {
        let mut fonts = FontStore::new();
        fonts.extend(embedded());
        let book: &FontBook = fonts.book();
        let letters = (0..).map_while(|number| book.info(number)).flat_map(|info| info.coverage.iter());
        let covered = letters.filter_map(char::from_u32).collect();
        Self { library: LazyHash::new(Library::builder().build()), fonts, covered }
    }

    fn has_glyph(&self, letter: char) -> bool {
        letter.is_ascii() || self.covered.contains(&letter)
    }

    fn compile(&self, report: &Report, trust: Trust) -> Result<Vec<u8>, LayoutError> {
        let text = |text: &str| shown(text, trust, |letter| self.has_glyph(letter));
        let world = Pages::new(self, report, &text)?;
        let compiled = typst::compile::<PagedDocument>(&world);
        let document = compiled.output.map_err(|errors| failed(&errors))?;
        let date = date(report).ok_or_else(|| LayoutError("the date of the report is no date".to_owned()))?;
        let standards = PdfStandards::new(&[PdfStandard::A_3b]);
        let options = PdfOptions {
            ident: Smart::Custom(report.package.clone()),
            creator: Smart::Custom(Some("Keywright".to_owned())),
            timestamp: Some(Timestamp::new_utc(date)),
            standards: standards.map_err(|error| LayoutError(error.message().to_string()))?,
            ..PdfOptions::default()
        };
        typst_pdf::pdf(&document, &options).map_err(|errors| failed(&errors))
    }
}

impl Layout for Typeset {
    fn lay_out(&self, report: &Report) -> Result<Vec<u8>, LayoutError> {
        // letters that each have a glyph may combine to one that has none
        let laid_out = self.compile(report, Trust::Any).or_else(|first| {
            tracing::warn!(package = report.package, reason = first.0, "the report is laid out again in plain letters");
            self.compile(report, Trust::Ascii)
        });
        // what was computed for one report is of no use to the next, and would stay in memory
        typst::comemo::evict(0);
        laid_out
    }
}

/// The files that the template may read: itself, the data, the attachments.
struct Pages<'a> {
    typeset: &'a Typeset,
    main: Source,
    files: BTreeMap<String, Bytes>,
}

impl<'a> Pages<'a> {
    fn new(typeset: &'a Typeset, report: &Report, text: &dyn Fn(&str) -> String) -> Result<Self, LayoutError> {
        let mut data = serde_json::to_value(report).map_err(|error| LayoutError(error.to_string()))?;
        each_text(&mut data, text);
        let attachments: Vec<Value> = report
            .attachments
            .iter()
            .map(|attachment| json!({"path": attachment.name, "description": attachment.description}))
            .collect();
        let at = report.exported_at;
        if let Some(fields) = data.as_object_mut() {
            fields.insert("attachments".to_owned(), attachments.into());
            fields.insert("date".to_owned(), json!([at.year(), at.month(), at.day()]));
        }
        let mut files = BTreeMap::new();
        files.insert(DATA.to_owned(), Bytes::new(data.to_string().into_bytes()));
        for Attachment { name, bytes, .. } in &report.attachments {
            files.insert(name.clone(), Bytes::new(bytes.clone()));
        }
        let path = VirtualPath::new("report.typ").map_err(|_| LayoutError("the template has no name".to_owned()))?;
        let main = Source::new(RootedPath::new(VirtualRoot::Project, path).intern(), TEMPLATE.to_owned());
        Ok(Self { typeset, main, files })
    }
}

/// Everything that the report tells is shown, and nothing of it is markup: it stays data.
fn each_text(value: &mut Value, text: &dyn Fn(&str) -> String) {
    match value {
        Value::String(old) => *old = text(old),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, text)),
        Value::Object(members) => members.values_mut().for_each(|member| each_text(member, text)),
        _ => {}
    }
}

impl World for Pages<'_> {
    fn library(&self) -> &LazyHash<Library> {
        &self.typeset.library
    }

    fn book(&self) -> &LazyHash<FontBook> {
        self.typeset.fonts.book()
    }

    fn main(&self) -> FileId {
        self.main.id()
    }

    fn source(&self, id: FileId) -> FileResult<Source> {
        if id == self.main.id() { Ok(self.main.clone()) } else { Err(FileError::AccessDenied) }
    }

    fn file(&self, id: FileId) -> FileResult<Bytes> {
        self.files.get(id.vpath().get_without_slash()).cloned().ok_or(FileError::AccessDenied)
    }

    fn font(&self, index: usize) -> Option<Font> {
        self.typeset.fonts.font(index)
    }

    fn today(&self, _: Option<Duration>) -> Option<Datetime> {
        None
    }
}

fn date(report: &Report) -> Option<Datetime> {
    let (at, small) = (report.exported_at, |number: u32| u8::try_from(number).ok());
    Datetime::from_ymd_hms(
        at.year(),
        small(at.month())?,
        small(at.day())?,
        small(at.hour())?,
        small(at.minute())?,
        small(at.second())?,
    )
}

fn failed(errors: &[SourceDiagnostic]) -> LayoutError {
    LayoutError(errors.iter().map(|error| error.message.to_string()).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests;
