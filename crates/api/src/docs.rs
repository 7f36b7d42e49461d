//! Pages for people: where everything is, the API rendered from its OpenAPI document, and one page for each kind of
//! problem. They load nothing from anywhere.

mod schema;

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{
    Json,
    body::Bytes,
    extract::Path,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::{Map, Value, json};

use crate::http::problem::{ProblemKind, Refusal};

const NAME: &str = "Emergent Workspaces";
const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --link: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --link: #7aa2ff; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem; }
a { color: var(--link); }
code, pre { font: 0.875em/1.5 ui-monospace, monospace; }
code { background: var(--soft); padding: 0.1em 0.3em; border-radius: 0.25em; overflow-wrap: anywhere; }
details { border: 1px solid var(--line); border-radius: 0.5rem; margin: 0.5rem 0; padding: 0.5rem 0.75rem; }
summary { cursor: pointer; }
summary b { display: inline-block; min-width: 4.5rem; font: 600 0.8125rem ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; }
td, th { border-top: 1px solid var(--line); padding: 0.35rem 0.5rem 0.35rem 0; text-align: left; vertical-align: top; }
.soft { opacity: 0.75; font-size: 0.9em; }
h2 { margin-top: 2.5rem; } h4 { margin: 1rem 0 0; }
";

/// The page at `/`, the one at `/problems`, and that of each kind of problem by its slug: the same bytes for all who ask.
static FIRST: LazyLock<Bytes> = LazyLock::new(first_page);
static PROBLEMS: LazyLock<Bytes> = LazyLock::new(problems_page);
static PROBLEM: LazyLock<BTreeMap<&'static str, Bytes>> =
    LazyLock::new(|| ProblemKind::ALL.iter().map(|kind| (kind.slug(), problem_page(*kind))).collect());

/// A page as an answer. It may load nothing, and runs no script.
pub(crate) fn html(page: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, page).into_response()
}

/// Returns the program's name and release, and links to go on with: a page for a browser, JSON for a program. Needs no
/// token, and tells nothing that `/health` does not tell.
pub(crate) async fn root(headers: HeaderMap) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut answer = if accepted.into_iter().any(|accepted| accepted.contains("text/html")) {
        html(FIRST.clone())
    } else {
        let places = json!({
            "name": NAME, "version": version, "docs": "/docs", "openapi": "/openapi.json", "problems": "/problems",
            "health": "/health",
        });
        Json(places).into_response()
    };
    // A cache must not give a program the page.
    answer.headers_mut().insert(header::VARY, header::HeaderValue::from_static("accept"));
    answer
}

/// The page of one kind of problem.
pub(crate) async fn problem(Path(slug): Path<String>) -> Response {
    match PROBLEM.get(slug.as_str()) {
        Some(page) => html(page.clone()),
        None => {
            let detail = "there is no problem of this name; /problems lists all";
            Refusal::new(ProblemKind::NoSuchRoute, detail).into_response()
        }
    }
}

/// The list of all kinds of problems.
pub(crate) async fn problems() -> Response {
    html(PROBLEMS.clone())
}

fn first_page() -> Bytes {
    let version = env!("CARGO_PKG_VERSION");
    let body = html! {
        h1 { (NAME) }
        p { "A server that gives AI agents isolated workspaces, and hosts MCP servers. Release " (version) "." }
        table {
            tr { td { a href="/docs" { "/docs" } } td { "every call of the API" } }
            tr { td { a href="/openapi.json" { "/openapi.json" } } td { "the same for programs" } }
            tr { td { a href="/problems" { "/problems" } } td { "what the API answers when it refuses something" } }
            tr { td { a href="/health" { "/health" } } td { "how the server is" } }
        }
        p { "Calls need a token. On the server's machine, " code { "emergent env" } " prints the first one." }
    };
    page(NAME, &body).into_string().into()
}

fn problem_page(kind: ProblemKind) -> Bytes {
    let body = html! {
        h1 { (kind.title()) }
        p.soft { "Status " (kind.status().as_str()) " · type " code { (kind.address()) } }
        p { (words(kind.explanation())) }
        p { a href="/problems" { "All problems" } " · " a href="/docs" { "The API" } }
    };
    page(kind.title(), &body).into_string().into()
}

fn problems_page() -> Bytes {
    let body = html! {
        h1 { "Problems" }
        p { "What the API answers when it does not do what it was asked, as " code { "application/problem+json" } "." }
        table {
            tr { th { "Status" } th { "Type" } th { "What it is" } }
            @for kind in ProblemKind::ALL {
                tr {
                    td { (kind.status().as_str()) }
                    td { a href=(kind.address()) { (kind.slug()) } }
                    td { (kind.title()) }
                }
            }
        }
        p { a href="/docs" { "The API" } }
    };
    page("Problems", &body).into_string().into()
}

/// The API's page, from its OpenAPI document.
pub(crate) fn docs(document: &Value) -> Markup {
    let operations = operations(document);
    let tags: Vec<_> = document["tags"].as_array().into_iter().flatten().collect();
    let schemas = document["components"]["schemas"].as_object();
    let body = html! {
        h1 { (text(&document["info"]["title"])) " API" }
        @for paragraph in text(&document["info"]["description"]).split("\n\n") { p { (words(paragraph)) } }
        p { a href="/openapi.json" { "OpenAPI document" } " · " a href="/problems" { "Problems" } }
        nav { @for tag in &tags { a href={ "#" (text(&tag["name"])) } { (text(&tag["name"])) } " " } a href="#schemas" { "schemas" } }
        @for tag in &tags {
            h2 id=(text(&tag["name"])) { (text(&tag["name"])) }
            p { (words(text(&tag["description"]))) }
            @for operation in operations.iter().filter(|operation| operation.has_tag(tag)) { (operation.render()) }
        }
        h2 id="schemas" { "schemas" }
        @for (name, schema) in schemas.into_iter().flatten() { (schema::render(name, schema)) }
    };
    page("Emergent Workspaces API", &body)
}

struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    body: &'a Value,
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, item)| {
            let methods = item.as_object().into_iter().flatten();
            methods.map(move |(method, body)| Operation { method, path, body })
        })
        .collect()
}

impl Operation<'_> {
    fn has_tag(&self, tag: &Value) -> bool {
        self.body["tags"].as_array().into_iter().flatten().any(|name| *name == tag["name"])
    }

    fn scopes(&self) -> String {
        let security = self.body["security"].as_array().into_iter().flatten();
        let scopes = security.filter_map(|entry| entry["token"].as_array()).flatten().filter_map(Value::as_str);
        scopes.collect::<Vec<_>>().join(", ")
    }

    fn render(&self) -> Markup {
        let scopes = self.scopes();
        let parameters: Vec<_> = self.body["parameters"].as_array().into_iter().flatten().collect();
        html! {
            details id=(text(&self.body["operationId"])) {
                summary { b { (self.method.to_uppercase()) } " " code { (self.path) } " " span.soft { (text(&self.body["summary"])) } }
                p { (words(text(&self.body["summary"]))) }
                @for paragraph in text(&self.body["description"]).split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
                    p { (words(paragraph)) }
                }
                p.soft { @if scopes.is_empty() { "No token needed." } @else { "Scope " code { (scopes) } } }
                @if !parameters.is_empty() {
                    h4 { "Parameters" }
                    table {
                        @for parameter in parameters {
                            tr {
                                td { code { (text(&parameter["name"])) } }
                                td.soft { (text(&parameter["in"])) @if parameter["required"] == true { ", required" } }
                                td { (schema::kind(&parameter["schema"])) }
                                td { (words(text(&parameter["description"]))) }
                            }
                        }
                    }
                }
                @if let Some(content) = self.body["requestBody"]["content"].as_object() {
                    h4 { "Body" }
                    p { (words(text(&self.body["requestBody"]["description"]))) }
                    (contents(content))
                }
                h4 { "Answers" }
                table {
                    @for (status, response) in self.body["responses"].as_object().into_iter().flatten() {
                        tr {
                            td { (status) }
                            td { (words(text(&response["description"]))) }
                            td { @if let Some(content) = response["content"].as_object() { (contents(content)) } }
                        }
                    }
                }
            }
        }
    }
}

fn contents(content: &Map<String, Value>) -> Markup {
    html! {
        @for (media_type, body) in content {
            div { (schema::kind(&body["schema"])) " " span.soft { (media_type) } }
        }
    }
}

fn page(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Text with `code` between backticks.
fn words(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}
