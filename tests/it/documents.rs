//! `openapi.yaml`, the metrics and the documentation say what the code does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use flate2::read::GzDecoder;
use onward::config::{Config, SETTINGS, Setting};
use onward::lifecycle::LifecycleConfig;
use reqwest::Method;

use crate::support::onnx::add_constant;
use crate::support::{Answer, Repository, Server, contract, text, x};

#[test]
fn the_document_has_the_routes_of_the_router() {
    let names = |routes: Vec<(Method, String)>| -> BTreeSet<String> {
        routes.into_iter().map(|(method, path)| format!("{method} {path}")).collect()
    };
    let routed = onward::http::routes().into_iter();
    let routed = routed.map(|(method, path)| (method, path.to_owned())).collect();
    assert_eq!(names(contract::operations()), names(routed));
}

#[tokio::test]
async fn the_document_is_served() {
    let server = Server::start(Repository::empty()).await;
    let answer = server.get("/openapi.yaml").await;
    assert_eq!(answer.header("content-type"), "application/yaml");
    assert_eq!(answer.body, text("openapi.yaml").into_bytes());
    assert_eq!(contract::DOCUMENT["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn the_page_of_the_document_has_all_that_it_refers_to() {
    let server = Server::start(Repository::empty()).await;
    let moved = server.get("/docs").await;
    assert_eq!((moved.status, moved.header("location")), (308, "docs/"));
    let page = server.get("/docs/").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let page = String::from_utf8(page.body).unwrap();
    let kinds: BTreeMap<&str, &str> = [
        ("css", "text/css; charset=utf-8"),
        ("js", "text/javascript; charset=utf-8"),
        ("png", "image/png"),
        ("yaml", "application/yaml"),
    ]
    .into();
    let references = references(&page);
    for reference in &references {
        assert!(!reference.contains("//") && !reference.starts_with('/'), "{reference}");
        let answer = server.get(&format!("/docs/{reference}").replace("/docs/../", "/")).await;
        let (_, extension) = reference.rsplit_once('.').unwrap();
        assert_eq!(answer.status, 200, "{reference}");
        assert_eq!(answer.header("content-type"), kinds[extension], "{reference}");
    }
    assert!(references.len() >= 5, "{references:?}");
}

/// What `src` and `href` say.
fn references(page: &str) -> Vec<&str> {
    let after = |name| page.split(name).skip(1).filter_map(|rest| rest.split('"').next());
    after(" src=\"").chain(after(" href=\"")).collect()
}

#[tokio::test]
async fn the_page_of_the_document_lets_nothing_leave_the_host() {
    let server = Server::start(Repository::empty()).await;
    for path in ["/docs/", "/docs/start.js", "/docs/swagger-ui.css"] {
        let answer = server.get(path).await;
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        let (_, sources) = policy.split_once(' ').unwrap();
        assert!(!sources.contains("unsafe") && !sources.contains("//") && !sources.contains('*'));
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        let text = String::from_utf8(answer.body).unwrap();
        // Names of XML's vocabularies, which nobody goes to.
        let text = text.replace("http://www.w3.org/", "");
        assert!(!text.contains("://") && !text.contains("@import"), "{path} names another host");
    }
    let page = String::from_utf8(server.get("/docs/").await.body).unwrap();
    let inline = page.split("<script").skip(1).any(|script| !script.contains("></script>"));
    assert!(!inline && !page.contains("<style") && !page.contains(" style="), "{page}");
    let start = String::from_utf8(server.get("/docs/start.js").await.body).unwrap();
    assert!(start.contains("validatorUrl: null"), "a public service would be asked");
}

#[tokio::test]
async fn the_page_of_the_document_is_sent_once() {
    let server = Server::start(Repository::empty()).await;
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = server.request(Method::GET, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = Answer::of(request.send().await.unwrap()).await.unwrap();
        contract::check(&Method::GET, path, &answer);
        answer
    };
    for path in ["/docs/", "/docs/swagger-ui-bundle.js"] {
        let plain = get(path, &[]).await;
        let gzip = get(path, &[("accept-encoding", "br, gzip;q=0.5")]).await;
        assert!(!plain.headers.contains_key("content-encoding"));
        assert_eq!(gzip.header("content-encoding"), "gzip");
        let mut content = Vec::new();
        GzDecoder::new(&gzip.body[..]).read_to_end(&mut content).unwrap();
        assert!(content == plain.body, "{path} is another one when it is compressed");
        assert_ne!(plain.header("etag"), gzip.header("etag"));
        for answer in [&plain, &gzip] {
            assert_eq!(answer.header("vary"), "accept-encoding");
            assert_eq!(answer.header("cache-control"), "no-cache");
        }
        let tag = plain.header("etag");
        for known in [tag, &format!("W/{tag}"), &format!("\"x\", {tag}"), "*"] {
            let again = get(path, &[("if-none-match", known)]).await;
            assert_eq!((again.status, again.header("etag")), (304, tag), "{known}");
            assert!(!again.headers.contains_key("content-type"));
        }
        let other = [("if-none-match", tag), ("accept-encoding", "gzip")];
        assert_eq!(get(path, &other).await.status, 200, "it is the tag of another form");
    }
}

#[tokio::test]
async fn the_page_of_the_document_is_only_read() {
    let server = Server::start(Repository::empty()).await;
    for path in ["/docs", "/docs/", "/docs/swagger-ui.css"] {
        let get = server.get(path).await;
        let head = server.request(Method::HEAD, path).send().await.unwrap();
        let head = Answer::of(head).await.unwrap();
        let length = |answer: &Answer| answer.headers.get("content-length").cloned();
        assert_eq!((head.status, length(&head)), (get.status, length(&get)), "{path}");
        assert!(head.body.is_empty());
        let post = server.send(Method::POST, path, Vec::new()).await;
        post.refused(405, "method_not_allowed", &["only GET and HEAD"]);
        assert_eq!(post.header("allow"), "GET,HEAD");
    }
    for path in ["/docs/nothing.js", "/docs/swagger-ui.css/", "/docs/..%2fopenapi.yaml"] {
        server.get(path).await.refused(404, "not_found", &[path]);
    }
}

#[tokio::test]
async fn metrics_follow_requests_and_versions() {
    let repository = Repository::of("add", &add_constant(1.0)).and("add", 2, &add_constant(2.0));
    let server = Server::start(repository).await;
    server.infer("add", &x(&[1, 4], &[0.0; 4])).await.ok();
    server.infer("add", &x(&[1, 3], &[0.0; 3])).await.refused(400, "invalid_request", &[]);
    let metrics = async || String::from_utf8(server.get("/metrics").await.body).unwrap();
    let page = metrics().await;
    for line in [
        "onward_application_state{state=\"RUNNING\"} 1",
        "onward_model_current_version{model=\"add\"} 2",
        "onward_inference_requests_total{model=\"add\",outcome=\"success\",protocol=\"http\",version=\"2\"} 1",
        "onward_inference_requests_total{model=\"add\",outcome=\"invalid\",protocol=\"http\",version=\"2\"} 1",
        "onward_model_version_state{model=\"add\",state=\"READY\",version=\"2\"} 1",
    ] {
        assert!(page.lines().any(|have| have == line), "no {line} in\n{page}");
    }
    let swap = serde_json::json!({ "to": "1" });
    server.post("/lifecycle/models/add/swap", &swap).await.ok();
    let page = metrics().await;
    let gone = "onward_inference_requests_total{model=\"add\",outcome=\"success\",protocol=\"http\",version=\"2\"}";
    assert!(!page.contains(gone), "the series of an unloaded version stay:\n{page}");
    assert!(page.contains("onward_model_current_version{model=\"add\"} 1"));
}

/// As the README has them, which is held to the table of settings.
#[test]
fn the_guide_has_the_settings_of_the_lifecycle() {
    let (readme, guide) = (text("README.md"), text("docs/lifecycle.md"));
    let rows: Vec<String> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `lifecycle."))
        .map(|row| format!("| `{row}"))
        .collect();
    assert!(rows.len() >= 8, "{rows:?}");
    assert!(guide.contains(&rows.join("\n")), "the guide has to have these rows:\n{rows:#?}");
    assert_eq!(LifecycleConfig::default(), Config::default().lifecycle);
}

#[test]
fn the_readme_has_the_table_of_settings() {
    let row = |setting: &Setting| {
        let Setting { key, help, .. } = setting;
        let default = match setting.default_text() {
            word @ ("none" | "auto") => word.to_owned(),
            value => format!("`{value}`"),
        };
        let live = if setting.reloadable { "yes" } else { "" };
        format!("| `{key}` | {default} | {live} | {help} |\n")
    };
    let rows: String = SETTINGS.iter().map(row).collect();
    let table = format!("| Setting | Default | Live | Meaning |\n|---|---|---|---|\n{rows}\n");
    assert!(text("README.md").contains(&table), "README.md has to have this table:\n\n{table}");
}

#[test]
fn the_schema_of_the_configuration_is_that_of_the_table() {
    let file = "docs/config.schema.json";
    let schema = format!("{:#}\n", onward::config::schema());
    assert!(text(file) == schema, "`make schema` writes {file} anew");
}
