//! A client of server-sent events, as the WHATWG describes one.

use crate::{app::PATIENCE, http::Client};
use reqwest::{Method, RequestBuilder, Response, header::HeaderMap};
use serde_json::Value;
use std::collections::VecDeque;

/// What comes out of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Event { id: Option<i64>, event: String, data: Value },
    Comment,
    Retry(u64),
}

impl Item {
    /// The id and the data of an event that has an id.
    pub fn numbered(&self) -> Option<(i64, &Value)> {
        match self {
            Self::Event { id: Some(id), data, .. } => Some((*id, data)),
            _ => None,
        }
    }

    /// What it is.
    pub fn name(&self) -> &str {
        match self {
            Self::Event { event, .. } => event,
            Self::Comment => "comment",
            Self::Retry(_) => "retry",
        }
    }

    /// The data of an event.
    #[track_caller]
    pub fn data(&self) -> &Value {
        match self {
            Self::Event { data, .. } => data,
            other => panic!("no event: {other:?}"),
        }
    }
}

impl Client<'_> {
    /// Opens a stream.
    pub async fn follow(&self, path: &str) -> EventStream {
        EventStream::open(self.request(Method::GET, path)).await
    }
}

/// An open stream.
pub struct EventStream {
    response: Response,
    text: String,
    items: VecDeque<Item>,
    ended: bool,
}

impl EventStream {
    async fn open(request: RequestBuilder) -> Self {
        let response = tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer").expect("an answer");
        let head = (response.status().as_u16(), response.headers().get("content-type").map(|value| value.as_bytes()));
        assert_eq!(head, (200, Some(b"text/event-stream".as_slice())), "{response:?}");
        Self { response, text: String::new(), items: VecDeque::new(), ended: false }
    }

    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The next of any kind; `None` at the end.
    pub async fn next(&mut self) -> Option<Item> {
        while self.items.is_empty() && !self.ended {
            let chunk =
                tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("the stream goes on or ends");
            match chunk.expect("the stream is not broken off") {
                Some(bytes) => self.text.push_str(std::str::from_utf8(&bytes).expect("frames are ASCII here")),
                None => self.ended = true,
            }
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                self.items.push_back(parse(block.trim_end()));
            }
        }
        assert!(!self.ended || self.text.is_empty(), "half a frame: {}", self.text);
        self.items.pop_front()
    }

    /// The next that is called so.
    pub async fn until(&mut self, name: &str) -> Item {
        loop {
            let item = self.next().await.unwrap_or_else(|| panic!("the stream ended without {name}"));
            if item.name() == name {
                return item;
            }
        }
    }

    /// So many events with an id.
    pub async fn numbered(&mut self, count: usize) -> Vec<(i64, Value)> {
        let mut found = Vec::new();
        while found.len() < count {
            let item = self.next().await.unwrap_or_else(|| panic!("the stream ended after {found:?}"));
            found.extend(item.numbered().map(|(id, data)| (id, data.clone())));
        }
        found
    }

    /// Everything to the end.
    pub async fn rest(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        while let Some(item) = self.next().await {
            items.push(item);
        }
        items
    }
}

fn parse(block: &str) -> Item {
    let (mut id, mut event, mut data) = (None, None, None);
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line}"));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => return Item::Comment,
            "retry" => return Item::Retry(value.parse().expect("milliseconds")),
            "id" => id = Some(value.parse().expect("a number")),
            "event" => event = Some(value.to_owned()),
            "data" => data = Some(serde_json::from_str(value).expect("JSON in one line")),
            other => panic!("an unknown field: {other}"),
        }
    }
    let (event, data) = (event.expect("a name"), data.unwrap_or(Value::Null));
    assert_eq!(data["type"], event.as_str(), "{block}");
    Item::Event { id, event, data }
}
