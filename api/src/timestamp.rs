//! Instants on the wire: ISO 8601 in UTC with an explicit offset and at most microseconds, `2026-05-20T10:30:00+00:00`.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseFromParameter, ParseResult, ToJSON, Type};
use serde_json::Value;

/// An instant as answers and requests carry it. Input may have any RFC 3339 offset; output never ends in `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub DateTime<Utc>);

impl Timestamp {
    /// Reads RFC 3339 with any offset; finer than a microsecond is cut off.
    ///
    /// # Errors
    /// When the text is not an RFC 3339 instant.
    pub fn parse(text: &str) -> Result<Self, chrono::ParseError> {
        DateTime::parse_from_rfc3339(text).map(|instant| Self::from(instant.to_utc()))
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(instant: DateTime<Utc>) -> Self {
        Self(instant.trunc_subsecs(6))
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let format = if self.0.timestamp_subsec_micros() == 0 { SecondsFormat::Secs } else { SecondsFormat::Micros };
        f.write_str(&self.0.to_rfc3339_opts(format, false))
    }
}

impl Type for Timestamp {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "string_date-time".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        let mut schema = MetaSchema::new_with_format("string", "date-time");
        schema.example = Some(Value::from("2026-05-20T10:30:00+00:00"));
        MetaSchemaRef::Inline(Box::new(schema))
    }

    fn as_raw_value(&self) -> Option<&Self::RawValueType> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self::RawElementValueType> + 'a> {
        Box::new(self.as_raw_value().into_iter())
    }
}

impl ToJSON for Timestamp {
    fn to_json(&self) -> Option<Value> {
        Some(Value::String(self.to_string()))
    }
}

impl ParseFromJSON for Timestamp {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        match value {
            Some(Value::String(text)) => Ok(Self::parse(&text)?),
            other => Err(ParseError::expected_type(other.unwrap_or_default())),
        }
    }
}

impl ParseFromParameter for Timestamp {
    fn parse_from_parameter(value: &str) -> ParseResult<Self> {
        Ok(Self::parse(value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_utc_with_an_offset_and_at_most_microseconds() {
        for (input, output) in [
            ("2026-05-20T12:30:00+02:00", "2026-05-20T10:30:00+00:00"),
            ("2026-05-20T10:30:00Z", "2026-05-20T10:30:00+00:00"),
            ("2026-05-20T10:30:00.5Z", "2026-05-20T10:30:00.500000+00:00"),
            ("2026-05-20T10:30:00.123456789Z", "2026-05-20T10:30:00.123456+00:00"),
        ] {
            assert_eq!(Timestamp::parse(input).unwrap().to_string(), output);
        }
        assert!(Timestamp::parse("2026-05-20").is_err());
        assert!(Timestamp::parse("2026-05-20T10:30:00").is_err());
    }
}
