//! Rows as a table (RFC 4180), of which no cell is a formula.

use crate::strict::resolve;
use serde_json::Value;

/// Objects in objects become columns of their own down to here.
const DEPTH: usize = 3;

/// What a spreadsheet takes for the beginning of a formula.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// The columns of a list's rows: the members that the document names, those of objects in them as `certificate.subject`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns(Vec<Vec<String>>);

impl Columns {
    /// The columns of what the pages of `operation` hold; `None` when it is no list.
    #[must_use]
    pub fn of(document: &Value, operation: &Value) -> Option<Self> {
        let content = operation.pointer("/responses/200/content")?;
        content.get("text/csv")?;
        let page = resolve(document, content.pointer("/application~1json/schema")?);
        let mut columns = Vec::new();
        collect(document, page.pointer("/properties/data/items")?, &[], &mut columns);
        Some(Self(columns))
    }

    /// The first line.
    #[must_use]
    pub fn head(&self) -> String {
        let mut line = String::new();
        write(self.0.iter().map(|path| path.join(".")), &mut line);
        line
    }

    /// Adds the line of this row.
    pub fn row(&self, row: &Value, to: &mut String) {
        let cell = |path: &Vec<String>| path.iter().try_fold(row, |value, member| value.get(member)).map(text);
        write(self.0.iter().map(|path| cell(path).unwrap_or_default()), to);
    }
}

fn collect(document: &Value, schema: &Value, path: &[String], columns: &mut Vec<Vec<String>>) {
    let properties = resolve(document, schema).get("properties").and_then(Value::as_object);
    match properties.filter(|_| path.len() < DEPTH) {
        Some(properties) => {
            for (name, schema) in properties {
                collect(document, schema, &[path, std::slice::from_ref(name)].concat(), columns);
            }
        }
        None => columns.push(path.to_vec()),
    }
}

/// Numbers and truth values stay what they are; lists and free objects are JSON.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => harmless(text),
        other => other.to_string(),
    }
}

/// Text that a spreadsheet does not take for a formula.
pub fn harmless(text: &str) -> String {
    if text.starts_with(FORMULA) { format!("'{text}") } else { text.to_owned() }
}

/// Adds a line of these cells.
pub fn write(cells: impl Iterator<Item = String>, line: &mut String) {
    for (number, cell) in cells.enumerate() {
        if number > 0 {
            line.push(',');
        }
        if cell.contains([',', '"', '\r', '\n']) || cell.starts_with(' ') || cell.ends_with(' ') {
            line.push('"');
            line.push_str(&cell.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(&cell);
        }
    }
    line.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn columns() -> Columns {
        let document = json!({"components": {"schemas": {
            "Page_Thing": {"properties": {"data": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}}}},
            "Thing": {"properties": {
                "name": {"type": "string"},
                "part": {"allOf": [{"$ref": "#/components/schemas/Part"}], "nullable": true},
                "tags": {"type": "object", "additionalProperties": {"type": "string"}},
            }},
            "Part": {"properties": {"size": {"type": "integer"}}},
        }}});
        let page = json!({"schema": {"$ref": "#/components/schemas/Page_Thing"}});
        let content = json!({"application/json": page, "text/csv": {}});
        Columns::of(&document, &json!({"responses": {"200": {"content": content}}})).unwrap()
    }

    #[test]
    fn cells_are_quoted_and_no_cell_is_a_formula() {
        let columns = columns();
        assert_eq!(columns.head(), "name,part.size,tags\r\n");
        let line = |name: &str, part: Value, tags: Value| {
            let mut line = String::new();
            columns.row(&json!({"name": name, "part": part, "tags": tags, "more": 1}), &mut line);
            line
        };
        assert_eq!(line("plain", json!({"size": -7}), json!({})), "plain,-7,{}\r\n");
        assert_eq!(line("a,\"b\"\nc", Value::Null, Value::Null), "\"a,\"\"b\"\"\nc\",,\r\n");
        assert_eq!(line("x", Value::Null, json!({"k": "v"})), "x,,\"{\"\"k\"\":\"\"v\"\"}\"\r\n");
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "＝1"] {
            assert_eq!(line(formula, Value::Null, Value::Null), format!("'{formula},,\r\n"));
        }
        assert_eq!(line("=cmd|'/c calc'!A0,x", Value::Null, Value::Null), "\"'=cmd|'/c calc'!A0,x\",,\r\n");
    }

    #[test]
    fn what_is_no_list_has_no_columns() {
        assert_eq!(
            Columns::of(&json!({}), &json!({"responses": {"200": {"content": {"application/json": {}}}}})),
            None
        );
    }
}
