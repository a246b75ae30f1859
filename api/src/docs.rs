//! The pages that people read: Swagger UI, ReDoc and the list of error codes. They work with no internet, and their
//! policies (CSP) let nothing in that is not in the page itself.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use poem::endpoint::make_sync;
use poem::http::header;
use poem::{IntoEndpoint, Response, Route, get};
use poem_openapi::OpenApiService;
use serde_json::Value;

use crate::error::Code;

/// The paths of the pages, none of which is an operation of the document.
pub const PAGES: &[&str] = &["/docs", "/docs/errors", "/redoc", "/openapi.json"];

/// The endpoint of [`PAGES`] for this document.
#[must_use]
pub fn pages(document: &Value) -> Route {
    let json = document.to_string();
    Route::new()
        .at("/docs", page(swagger_ui(document)))
        .at("/docs/errors", page(errors()))
        .at("/redoc", page(redoc(document)))
        .at(
            "/openapi.json",
            get(make_sync(move |_| Response::builder().content_type("application/json").body(json.clone()))),
        )
}

fn page(html: String) -> impl IntoEndpoint<Endpoint = impl poem::Endpoint + 'static> {
    let policy = policy(&html);
    get(make_sync(move |_| {
        Response::builder()
            .content_type("text/html; charset=utf-8")
            .header(header::CONTENT_SECURITY_POLICY, policy.as_str())
            .header(header::CACHE_CONTROL, "no-cache")
            .body(html.clone())
    }))
}

/// poem-openapi keeps the scripts of both pages to itself but writes pages for any service: an empty one's, with its
/// document exchanged for ours.
fn swagger_ui(document: &Value) -> String {
    let empty = OpenApiService::new((), "", "");
    with_document(&empty.swagger_ui_html(), &empty.spec(), document)
}

fn redoc(document: &Value) -> String {
    let empty = OpenApiService::new((), "", "");
    let html = without_fonts(&empty.redoc_html());
    // the one picture that ReDoc would load from elsewhere, its maker's logo
    let html = html.replace("https://cdn.redoc.ly/redoc/logo-mini.svg", "data:,");
    with_document(&html, &empty.spec(), document)
}

fn with_document(html: &str, spec: &str, document: &Value) -> String {
    // within a script element `<` could end it
    let json = document.to_string().replace('<', "\\u003c");
    html.replacen(&format!("let spec = {spec};"), &format!("let spec = {json};"), 1)
}

/// Takes out the links to style sheets, of which ReDoc's page has one, to a font server.
fn without_fonts(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some((before, link)) = rest.split_once("<link ") {
        out.push_str(before);
        rest = link.split_once('>').map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}

/// Scripts by their hashes; inline styles, which both pages make as they run; pictures that are data; workers that are
/// made in the page (ReDoc's search); requests to this server only ("try it out").
fn policy(html: &str) -> String {
    let hashes: String = scripts(html).map(|script| format!(" 'sha256-{}'", sha256(script))).collect();
    let scripts = if hashes.is_empty() { " 'none'".to_owned() } else { hashes };
    format!(
        "default-src 'none'; script-src{scripts}; style-src 'unsafe-inline'; img-src 'self' data:; font-src data:; \
         connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The contents of the script elements, as a browser delimits them: to the first end tag, whatever is in between.
fn scripts(html: &str) -> impl Iterator<Item = &str> {
    let mut rest = html;
    std::iter::from_fn(move || {
        let (_, tag) = rest.split_once("<script")?;
        let (script, after) = tag.split_once('>')?.1.split_once("</script>")?;
        rest = after;
        Some(script)
    })
}

fn sha256(text: &str) -> String {
    STANDARD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

/// What the `type` of a problem refers to.
fn errors() -> String {
    let row = |code: &Code| {
        let name = code.as_str();
        format!(
            "<tr id=\"{name}\"><td><code>{name}</code></td><td>{}</td><td>{}</td></tr>\n",
            code.status().as_u16(),
            code.title()
        )
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Keywright: error codes</title>\n\
         <style>body{{font-family:sans-serif;margin:2em auto;max-width:50em}}td,th{{text-align:left;padding:.2em 1em}}\
         tr:target{{background:#ffd}}</style></head><body>\n<h1>Error codes</h1>\n\
         <p>Every answer that is not a success is <code>application/problem+json</code> (RFC 9457) with one of these codes.</p>\n\
         <table><tr><th>code</th><th>status</th><th>title</th></tr>\n{}</table></body></html>\n",
        Code::ALL.iter().map(row).collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({"openapi": "3.0.3", "info": {"title": "</script><b>&", "version": "1"}, "paths": {}})
    }

    #[test]
    fn pages_hold_the_document_and_load_nothing() {
        for html in [swagger_ui(&document()), redoc(&document()), errors()] {
            let outside = scripts(&html).fold(html.clone(), |outside, script| outside.replace(script, ""));
            // names of XML namespaces in the pictures of the style sheet are not loaded
            let outside = outside.replace("http://www.w3.org/", "");
            assert!(!outside.contains("http://") && !outside.contains("https://"), "{outside:.500}");
            assert!(!outside.contains("<link") && !outside.contains(" src="), "{outside:.500}");
            assert!(!html.contains("cdn.redoc.ly") && !html.contains("fonts.googleapis"));
        }
        for html in [swagger_ui(&document()), redoc(&document())] {
            assert!(html.contains(r#""title":"\u003c/script>\u003cb>&""#), "the document is in the page");
        }
    }

    #[test]
    fn policies_name_every_script() {
        let html = swagger_ui(&document());
        let policy = policy(&html);
        assert_eq!(scripts(&html).count(), 2);
        assert_eq!(policy.matches("'sha256-").count(), 2);
        assert!(!html.contains(" onload=") && !html.contains('\r'), "inline handlers or CR would need other hashes");
        let bundle = scripts(&html).next().unwrap();
        assert!(bundle.len() > 1_000_000 && bundle.contains("<script>"), "a script may speak of scripts");
        assert!(super::policy(&errors()).contains("script-src 'none'"));
    }
}
