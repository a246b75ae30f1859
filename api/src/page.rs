//! The one wire shape of lists: `{"data": […], "meta": {"limit", "hasMore", "nextCursor", "total"}}`.
//!
//! A list operation takes [`ListParams`] as an argument and answers [`Page`]; [`crate::openapi`] documents the parameters
//! `limit`, `cursor`, `offset` and `includeTotal` of every such operation. `sort` is declared by the operation itself,
//! with its keys in the description.

mod cursor;
mod keyset;
mod sort;

use poem::{FromRequest, Request, RequestBody};
use poem_openapi::Object;
use poem_openapi::types::{Example, ParseFromJSON, ToJSON, Type};

pub use self::cursor::{CursorKey, Key};
pub use self::keyset::Slice;
pub use self::sort::{SortKey, Sorting};
use crate::error::ApiError;

/// Rows per page when the client does not say.
pub const DEFAULT_LIMIT: u64 = 50;
/// Most rows of a page.
pub const MAX_LIMIT: u64 = 500;
/// The last row that `offset` reaches; beyond it a list is walked by cursor.
pub const MAX_OFFSET: u64 = 10_000;
/// The parameters that say which part of a list is wanted, not which list.
pub const PAGING_PARAMETERS: [&str; 4] = ["limit", "cursor", "offset", "includeTotal"];

/// One page of a list.
#[derive(Debug, Clone, Object)]
pub struct Page<T: Type + ParseFromJSON + ToJSON> {
    /// The rows, in the order asked for.
    pub data: Vec<T>,
    pub meta: PageMeta,
}

/// Where a page lies in its list.
#[derive(Debug, Clone, PartialEq, Eq, Object)]
#[oai(rename_all = "camelCase", example)]
pub struct PageMeta {
    /// The most rows that this page could have had.
    #[oai(validator(minimum(value = "1"), maximum(value = "500")))]
    pub limit: u64,
    /// Whether rows follow.
    pub has_more: bool,
    /// Send it as `cursor`, with the same filters and sort, to get the page that follows; null at the end.
    pub next_cursor: Option<String>,
    /// The rows of the whole list; null unless asked for by `includeTotal=true`.
    pub total: Option<u64>,
}

impl Example for PageMeta {
    fn example() -> Self {
        Self { limit: DEFAULT_LIMIT, has_more: false, next_cursor: None, total: None }
    }
}

/// The part of a list that a request asks for.
///
/// An extractor: the strict-input layer has checked the values' types and ranges before it reads them.
#[derive(Debug, Clone)]
pub struct ListParams {
    limit: u64,
    cursor: Option<String>,
    offset: Option<u64>,
    include_total: bool,
    sort: Option<String>,
    list: String,
    key: CursorKey,
}

impl<'a> FromRequest<'a> for ListParams {
    async fn from_request(request: &'a Request, _body: &mut RequestBody) -> poem::Result<Self> {
        let key = request.data::<CursorKey>().ok_or_else(|| ApiError::internal("the application has no cursor key"))?;
        let query: Vec<(String, String)> = request.params().unwrap_or_default();
        Ok(Self::read(request.uri().path(), query, key.clone())?)
    }
}

impl ListParams {
    /// Reads the paging parameters of `query`; all others, with `path`, say which list it is.
    ///
    /// # Errors
    /// 400 for values outside of their documented ranges, and for `cursor` together with `offset`.
    pub fn read(path: &str, mut query: Vec<(String, String)>, key: CursorKey) -> Result<Self, ApiError> {
        let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let limit = number("limit", find("limit"), 1, MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
        let offset = number("offset", find("offset"), 0, MAX_OFFSET)?;
        let (cursor, include_total, sort) = (find("cursor"), find("includeTotal"), find("sort"));
        if cursor.is_some() && offset.is_some() {
            return Err(ApiError::invalid("/query/offset", "exclusive", "Send cursor or offset, not both."));
        }
        query.retain(|(name, _)| !PAGING_PARAMETERS.contains(&name.as_str()));
        query.sort();
        let list = serde_json::to_string(&(path, &query)).map_err(ApiError::internal)?;
        Ok(Self { limit, cursor, offset, include_total: include_total.as_deref() == Some("true"), sort, list, key })
    }

    /// Rows asked for, 1 to 500.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

fn number(name: &str, value: Option<String>, min: u64, max: u64) -> Result<Option<u64>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    match value.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
        _ => {
            let hint = if name == "offset" { "; use cursor beyond" } else { "" };
            Err(ApiError::invalid(
                format!("/query/{name}"),
                "range",
                format!("Must be a whole number from {min} to {max}{hint}."),
            ))
        }
    }
}

impl<M> Slice<M> {
    /// The page with each row as its answer shows it.
    pub fn into_page<T: Type + ParseFromJSON + ToJSON>(self, view: impl FnMut(M) -> T) -> Page<T> {
        let meta = PageMeta {
            limit: self.limit,
            has_more: self.next_cursor.is_some(),
            next_cursor: self.next_cursor,
            total: self.total,
        };
        Page { data: self.rows.into_iter().map(view).collect(), meta }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<ListParams, ApiError> {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ListParams::read("/api/things", query, CursorKey::new(b"test"))
    }

    #[test]
    fn limits_are_enforced_and_defaulted() {
        assert_eq!(read(&[]).unwrap().limit(), 50);
        assert_eq!(read(&[("limit", "500")]).unwrap().limit(), 500);
        for wrong in [("limit", "0"), ("limit", "501"), ("limit", "x"), ("offset", "10001"), ("offset", "-1")] {
            let error = read(&[wrong]).unwrap_err();
            assert_eq!(error.errors()[0].pointer, format!("/query/{}", wrong.0));
        }
        assert!(read(&[("cursor", "x"), ("offset", "1")]).is_err());
    }

    #[test]
    fn a_list_is_named_by_path_filters_and_sort_but_not_by_paging() {
        let list = |query: &[(&str, &str)]| read(query).unwrap().list;
        assert_eq!(list(&[("a", "1"), ("b", "2"), ("limit", "3")]), list(&[("b", "2"), ("a", "1")]));
        assert_ne!(list(&[("a", "1")]), list(&[("a", "2")]));
        assert_ne!(list(&[("sort", "a")]), list(&[("sort", "-a")]));
    }
}
