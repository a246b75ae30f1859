//! What people see on the way: a page that moves on by itself, and refusals in words. No script, nothing loaded.
//!
//! The page is there because a browser sends strict cookies only from our own pages: were the way back a redirect, the next request
//! would still count as the other site's, and come without the session.

use crate::error::PROBLEM_JSON;
use poem::{
    Request, Response,
    http::{HeaderValue, header},
};
use serde_json::Value;

/// Operations that people come to with a browser, and not from a page of ours.
pub const FOR_PEOPLE: &[&str] = &["ssoLogin", "ssoCallback"];

/// Nothing may be loaded or run, and nobody may frame the page.
pub const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Goes on to `next`, a path of ours, at once.
pub fn moving_on(next: &str) -> String {
    let next = escaped(next);
    let head = format!("<meta http-equiv=\"refresh\" content=\"0; url={next}\">");
    page("Signed in", &head, &format!("<p>You are signed in. <a href=\"{next}\">Go on</a> if nothing happens.</p>"))
}

/// Whether whoever asks would rather read a page than a problem object.
pub fn is_wanted(request: &Request) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let types: Vec<&str> = accepted
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .map(str::trim)
        .collect();
    types.contains(&"text/html") && !types.iter().any(|name| name.ends_with("json"))
}

/// The refusal as a page that says the same; what is no problem object stays as it is.
pub async fn of_refusal(mut response: Response) -> Response {
    if response.content_type() != Some(PROBLEM_JSON) {
        return response;
    }
    let problem: Value = match response.take_body().into_bytes().await {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        Err(_) => Value::Null,
    };
    let text = |name: &str| escaped(problem.get(name).and_then(Value::as_str).unwrap_or_default());
    let (title, detail, code, id) = (text("title"), text("detail"), text("code"), text("requestId"));
    let body = format!(
        "<p>{detail}</p>\n<p><a href=\"/api/auth/sso/login\">Sign in again</a></p>\n<p><small>{code}, request {id}</small></p>"
    );
    response.set_body(page(&title, "", &body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// `title` is escaped already.
fn page(title: &str, head: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Keywright: {title}</title>{head}</head>\n\
         <body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_break_out_of_the_page() {
        let html = moving_on("/\"><script>alert(1)</script>'&amp;");
        assert!(!html.contains("<script") && !html.contains("'&amp;\""), "{html}");
        assert!(html.contains("url=/&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#39;&amp;amp;\""), "{html}");
    }

    #[test]
    fn browsers_get_pages_and_programs_problems() {
        let wants = |accept: &str| is_wanted(&Request::builder().header("accept", accept).finish());
        assert!(wants("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
        for accept in
            ["*/*", "application/json", "application/json, text/html", "application/problem+json, text/html;q=0.1"]
        {
            assert!(!wants(accept), "{accept}");
        }
        assert!(!is_wanted(&Request::default()));
    }
}
