//! Files of a folder, as a browser asks for them.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::edge::{Configuration, Edge};
use crate::support::client::{Answer, Client};
use crate::support::origin::{Origin, reply};
use crate::support::process::Program;
use crate::support::{free_address, poll_until, wire, within};

/// A folder beside which lies what nobody may have.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        std::fs::create_dir(folder.root()).expect("a folder");
        std::fs::write(folder.0.path().join("secret.txt"), "the secret").expect("a file");
        folder
    }

    pub fn root(&self) -> std::path::PathBuf {
        self.0.path().join("public")
    }

    /// A file written long enough ago that nobody doubts it has settled.
    pub fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.write(name, content);
        self
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(&path, content).expect("a file");
        age(&path, 1_000_000_000);
    }

    /// A gateway with one route: everything is a file of this folder.
    pub fn serving(&self, lines: &str, route: &str) -> Configuration {
        Edge::before(&[]).without_first_upstream().without_cache().routes(&format!(
            "[[routes]]\n{route}\nfiles = {{ root = \"{}\"{lines} }}\n",
            self.root().display()
        ))
    }

    pub async fn start(&self, lines: &str) -> Edge {
        self.serving(lines, "").start().await
    }
}

fn age(path: &Path, seconds: u64) {
    let file = std::fs::File::options().write(true).open(path).expect("a file");
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).expect("its time");
}

/// What was known of files is only trusted once their time lies behind: so much later, nobody waits.
pub async fn settled(edge: Edge) -> Edge {
    edge.grow_older(Duration::from_secs(10));
    edge
}

pub fn field(answer: &Answer, name: &str) -> String {
    answer.header(name).unwrap_or_else(|| panic!("no {name} in {:?}", answer.fields)).to_owned()
}

#[tokio::test]
async fn a_path_names_a_file_an_index_or_a_page_without_its_ending() {
    let folder = Folder::new()
        .with("index.html", "<h1>home</h1>")
        .with("about.html", "about")
        .with("docs/index.html", "docs")
        .with("empty/x.txt", "x")
        .with("a b/ü.txt", "umlaut")
        .with(".well-known/security.txt", "contact")
        .with("404.html", "lost");
    let edge = folder.start("").await;
    let html = "text/html; charset=utf-8";
    edge.get("/").await.expect(200).body("<h1>home</h1>").with("content-type", html);
    edge.get("/index.html?x=1").await.expect(200).body("<h1>home</h1>");
    edge.get("/about").await.expect(200).body("about").with("content-type", html);
    edge.get("/about.html").await.expect(200).body("about");
    edge.get("/docs/").await.expect(200).body("docs");
    edge.get("/docs?a=b").await.expect(308).with("location", "/docs/?a=b");
    edge.get("/a%20b/%C3%BC.txt").await.expect(200).body("umlaut").with("content-length", "6");
    edge.get("/.well-known/security.txt").await.expect(200).body("contact");
    for missing in ["/nothing", "/empty/", "/empty", "/about.html/", "/about/"] {
        let page = edge.get(missing).await.expect(404).body("lost").with("content-type", html);
        page.with("cache-control", "no-cache").without("etag").without("last-modified");
    }
    edge.finish().await;
}

#[tokio::test]
async fn an_application_that_finds_its_own_way_has_one_page_for_all_paths() {
    let folder = Folder::new().with("index.html", "app").with("app.js", "run()");
    let edge = folder.start(", fallback = \"index.html\"").await;
    edge.get("/users/7").await.expect(200).body("app").with("cache-control", "no-cache");
    edge.get("/users/7/").await.expect(200).body("app");
    edge.get("/app.js").await.expect(200).body("run()");
    // A page in place of a script would fail where nobody looks for it.
    let gone = edge.get("/app.0ld.js").await.expect(404);
    assert!(gone.text().contains("no-file"), "{}", gone.text());
    edge.get("/.env").await.expect(404);
    edge.finish().await;
}

#[tokio::test]
async fn only_reading_is_answered() {
    let folder = Folder::new().with("a.txt", "content");
    let edge = folder.start("").await;
    let head = edge.request("HEAD", "/a.txt").send().await.expect(200).body("");
    assert_eq!(head.header("content-length"), Some("7"));
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        edge.request(method, "/a.txt").send().await.expect(405).with("allow", "GET, HEAD");
    }
    assert_eq!(std::fs::read(folder.root().join("a.txt")).expect("the file"), b"content");
    edge.finish().await;
}

#[tokio::test]
async fn every_gateway_of_a_fleet_gives_the_same_content_the_same_tag() {
    let one = Folder::new().with("a.txt", "content").with("b.txt", "content").with("c.txt", "Content");
    let other = Folder::new().with("a.txt", "content");
    age(&other.root().join("a.txt"), 1_700_000_000);
    let (first, second) = (one.start("").await, other.start("").await);
    let a = first.get("/a.txt").await.expect(200);
    let tag = field(&a, "etag");
    assert!(tag.starts_with('"') && tag.len() == 34, "{tag}");
    assert_eq!(field(&a, "last-modified"), "Sun, 09 Sep 2001 01:46:40 GMT");
    assert_eq!(field(&first.get("/b.txt").await, "etag"), tag);
    assert_eq!(field(&second.get("/a.txt").await, "etag"), tag);
    assert_ne!(field(&first.get("/c.txt").await, "etag"), tag);
    first.finish().await;
    second.finish().await;
}

#[tokio::test]
async fn a_changed_file_has_another_tag_at_once() {
    let folder = Folder::new().with("a.txt", "one");
    let edge = settled(folder.start("").await).await;
    let one = field(&edge.get("/a.txt").await, "etag");
    assert_eq!(field(&edge.get("/a.txt").await, "etag"), one);
    // The same length, and written back to the same time.
    folder.write("a.txt", "two");
    let two = edge.get("/a.txt").await.expect(200).body("two");
    assert_ne!(field(&two, "etag"), one);
    edge.finish().await;
}

#[tokio::test]
async fn who_has_it_gets_no_content() {
    let folder = Folder::new().with("a.txt", "content");
    let edge = folder.start("").await;
    let tag = field(&edge.get("/a.txt").await, "etag");
    let ask = |name: &'static str, value: &str| edge.request("GET", "/a.txt").header(name, value).send();
    let not_modified = ask("if-none-match", &tag).await.expect(304).body("").with("etag", &tag);
    assert_eq!(not_modified.header("cache-control"), Some("no-cache"));
    ask("if-none-match", "\"other\"").await.expect(200);
    ask("if-modified-since", "Sun, 09 Sep 2001 01:46:40 GMT").await.expect(304);
    ask("if-modified-since", "Sun, 09 Sep 2001 01:46:39 GMT").await.expect(200);
    ask("if-match", &tag).await.expect(200);
    ask("if-match", "\"other\"").await.expect(412);
    ask("if-unmodified-since", "Sun, 09 Sep 2001 01:46:39 GMT").await.expect(412);
    edge.finish().await;
}

#[tokio::test]
async fn parts_of_small_and_large_files() {
    let large: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let folder = Folder::new().with("small.bin", "0123456789").with("large.bin", &large).with("none.bin", "");
    let edge = folder.start("").await;
    let ask =
        |path: &'static str, range: &'static str| edge.request("GET", path).header("range", range).send();
    ask("/small.bin", "bytes=2-4").await.expect(206).body("234").with("content-range", "bytes 2-4/10");
    ask("/small.bin", "bytes=-3").await.expect(206).body("789");
    ask("/small.bin", "bytes=20-").await.expect(416).with("content-range", "bytes */10");
    ask("/none.bin", "bytes=0-").await.expect(416);
    edge.get("/none.bin").await.expect(200).body("").with("content-length", "0");
    let whole = edge.get("/large.bin").await.expect(200).with("accept-ranges", "bytes").body(&large);
    assert_eq!(whole.header("content-length"), Some("3000000"));
    ask("/large.bin", "bytes=131070-2000001").await.expect(206).body(&large[131_070..2_000_002]);
    let several = ask("/large.bin", "bytes=0-1, 2999998-").await.expect(206);
    assert!(field(&several, "content-type").starts_with("multipart/byteranges"));
    assert!(wire::find(&several.body, &large[2_999_998..]).is_some());
    assert_eq!(several.header("content-length"), Some(several.body.len().to_string().as_str()));
    let old = edge.request("GET", "/large.bin").header("range", "bytes=0-1").header("if-range", "\"old\"");
    old.send().await.expect(200).body(&large);
    edge.finish().await;
}

#[tokio::test]
async fn a_very_large_file_has_a_tag_as_soon_as_it_has_been_read() {
    let folder = Folder::new().with("film.mp4", "");
    let file = std::fs::File::options().write(true).open(folder.root().join("film.mp4")).expect("the film");
    file.set_len(20 * 1024 * 1024).expect("room");
    age(&folder.root().join("film.mp4"), 1_000_000_000);
    let edge = settled(folder.start("").await).await;
    let head = || async { edge.request("HEAD", "/film.mp4").send().await.expect(200) };
    head().await.without("etag").with("content-length", "20971520");
    poll_until("a tag", || async { head().await.header("etag").is_some() }).await;
    edge.finish().await;
}

#[tokio::test]
async fn a_release_is_turned_over_by_one_link() {
    let folder = Folder::new().with("one/a.txt", "one").with("two/a.txt", "two");
    let link = folder.0.path().join("current");
    symlink(folder.root().join("one"), &link).expect("a link");
    let route = format!("[[routes]]\nfiles = {{ root = \"{}\" }}", link.display());
    let edge = Edge::before(&[]).without_first_upstream().without_cache().routes(&route).start().await;
    edge.get("/a.txt").await.expect(200).body("one");
    let next = folder.0.path().join("next");
    symlink(folder.root().join("two"), &next).expect("a link");
    std::fs::rename(&next, &link).expect("turned over");
    edge.get("/a.txt").await.expect(200).body("two");
    edge.finish().await;
}

#[tokio::test]
async fn a_route_s_prefix_is_not_part_of_the_file_s_name() {
    let folder = Folder::new().with("a.txt", "a").with("assets/b.txt", "b").with("docs/index.html", "docs");
    let edge = folder
        .serving("", "match = { path = \"/static/*\" }\nstrip_prefix = \"/static\"")
        .also(&format!(
            "[[routes]]\nmatch = {{ path = \"/assets/*\" }}\nfiles = {{ root = \"{}\" }}",
            folder.root().display()
        ))
        .start()
        .await;
    edge.get("/static/a.txt").await.expect(200).body("a");
    edge.get("/assets/b.txt").await.expect(200).body("b");
    edge.get("/static/docs").await.expect(308).with("location", "/static/docs/");
    edge.get("/a.txt").await.expect(404);
    edge.finish().await;
}

#[tokio::test]
async fn a_folder_shows_what_is_in_it_when_it_may() {
    let folder =
        Folder::new().with("music/<b>.txt", "x").with("music/.hidden", "x").with("index.html", "home");
    let edge = folder.start(", listing = true").await;
    edge.get("/").await.expect(200).body("home");
    edge.get("/music").await.expect(308);
    let page = edge.get("/music/").await.expect(200).with("content-security-policy", "default-src 'none'");
    assert!(
        page.text().contains("&lt;b&gt;.txt") && page.text().contains("./%3Cb%3E.txt"),
        "{}",
        page.text()
    );
    assert!(!page.text().contains("hidden"), "{}", page.text());
    edge.finish().await;
}

#[tokio::test]
async fn browsers_keep_what_has_a_fingerprint_and_ask_again_for_pages() {
    let folder = Folder::new()
        .with("index.html", "home")
        .with("assets/app.3f9a1c2b.js", "run()")
        .with("logo.svg", "<svg/>")
        .with("report.pdf", "%PDF");
    let forever = "public, max-age=31536000, immutable";
    let edge = folder.start("").await;
    edge.get("/").await.expect(200).with("cache-control", "no-cache");
    edge.get("/assets/app.3f9a1c2b.js").await.expect(200).with("cache-control", forever);
    edge.get("/logo.svg").await.expect(200).with("cache-control", "no-cache");
    edge.get("/assets/app.00000a00.js").await.expect(404).with("cache-control", "no-store");
    edge.finish().await;

    let rules = "cache_control = { html = \"max-age=60\", others = \"\", rules = [{ path = \"*.pdf\", value = \"private\" }, { path = \"/assets/*\", value = \"max-age=5\" }] }";
    let edge = folder.serving("", rules).start().await;
    edge.get("/").await.expect(200).with("cache-control", "max-age=60");
    edge.get("/assets/app.3f9a1c2b.js").await.expect(200).with("cache-control", "max-age=5");
    edge.get("/logo.svg").await.expect(200).without("cache-control");
    edge.get("/report.pdf").await.expect(200).with("cache-control", "private");
    edge.finish().await;
}

#[tokio::test]
async fn assets_of_an_upstream_are_kept_by_the_same_rules() {
    let origin = Origin::new()
        .on("/app.3f9a1c2b.js", reply(200).header("content-type", "text/javascript").body("run()"))
        .on("/own.3f9a1c2b.js", reply(200).header("cache-control", "max-age=7").body("run()"))
        .on("/", reply(200).header("content-type", "text/html").body("home"))
        .on("/data", reply(200).header("content-type", "application/json").body("{}"))
        .start()
        .await;
    let forever = "public, max-age=31536000, immutable";
    for (cached, rules) in
        [(false, "{}"), (true, "{}"), (true, "{ replace = true }"), (false, "{ replace = true }")]
    {
        let cache = if cached { "cache = \"api\"\n" } else { "" };
        let routes = format!("[[routes]]\nupstream = \"api\"\n{cache}cache_control = {rules}");
        let edge = Edge::serving(&origin).cache("ttl = \"1h\"").routes(&routes).start().await;
        let own = if rules == "{}" { "max-age=7" } else { forever };
        // As it is fetched, and as it is stored.
        for _ in 0..2 {
            edge.get("/app.3f9a1c2b.js").await.expect(200).with("cache-control", forever);
            edge.get("/own.3f9a1c2b.js").await.expect(200).with("cache-control", own);
            edge.get("/").await.expect(200).with("cache-control", "no-cache");
            edge.get("/data").await.expect(200).without("cache-control");
        }
        if cached {
            edge.get("/app.3f9a1c2b.js").await.cache("hit");
            edge.send_hits_the_long_way();
            edge.get("/app.3f9a1c2b.js").await.cache("hit").with("cache-control", forever);
        }
        edge.finish().await;
    }
}

/// What is said to browsers is not said to us: our own cache goes by what the origin says.
#[tokio::test]
async fn what_browsers_are_told_does_not_change_how_long_a_cache_keeps_it() {
    let origin = Origin::new()
        .on("/app.3f9a1c2b.js", reply(200).header("cache-control", "max-age=5").body("run()"))
        .start()
        .await;
    let routes = "[[routes]]\nupstream = \"api\"\ncache = \"api\"\ncache_control = { replace = true }";
    let edge = Edge::serving(&origin).routes(routes).start().await;
    edge.get("/app.3f9a1c2b.js").await.expect(200);
    edge.get("/app.3f9a1c2b.js").await.expect(200).cache("hit");
    edge.grow_older(Duration::from_secs(6));
    edge.get("/app.3f9a1c2b.js").await.expect(200).cache("fwd=stale");
    assert_eq!(origin.requests().len(), 2);
    edge.finish().await;
}

/// Ways to write one step up, a slash, and what is hidden.
const UPS: [&str; 14] = [
    "..",
    "%2e%2e",
    "%2E%2e",
    ".%2e",
    "%2e.",
    "%252e%252e",
    "..%00",
    "..;",
    "%c0%ae%c0%ae",
    "%u002e%u002e",
    "..%20",
    "...",
    "%ef%bc%8e%ef%bc%8e",
    ".%00.",
];
const SLASHES: [&str; 10] = ["/", "%2f", "%2F", "\\", "%5c", "%5C", "//", "%252f", "%c0%af", "%e2%88%95"];
const HIDDEN: [&str; 12] = [
    "/.env",
    "/%2eenv",
    "/.git/config",
    "/%2egit/config",
    "/a/.env",
    "/a/%2Eenv",
    "/.well-known/../.env",
    "/.well-known/.env",
    "/./.env",
    "/a/..%2f.env",
    "/%2e%65nv",
    "/.env/",
];
const LINKS: [&str; 8] = [
    "/out",
    "/absolute",
    "/up/secret.txt",
    "/a/up/../secret.txt",
    "/proc/etc/passwd",
    "/up/",
    "/out/",
    "/chain",
];

/// Everything that has ever led out of some server's root, and what such tricks are made of.
fn tricks(folder: &Folder) -> Vec<String> {
    let mut tricks: Vec<String> = HIDDEN.iter().chain(&LINKS).map(ToString::to_string).collect();
    for up in UPS {
        for slash in SLASHES {
            tricks.push(format!("/{up}{slash}secret.txt"));
            tricks.push(format!("/a{slash}{up}{slash}{up}{slash}secret.txt"));
        }
    }
    let outside = folder.0.path().join("secret.txt").display().to_string();
    for start in ["", "/", "//", "/%2f", "file://", "/file:", "/a/%2f", "/.", "/~root"] {
        tricks.push(format!("{start}{outside}"));
        tricks.push(format!("{start}/etc/passwd"));
    }
    for more in ["%00", "%00.html", "%0a", "%0d%0a", "%20", ".", "/.", "::$DATA", "%3a%3a$DATA", "~1"] {
        tricks.push(format!("/../secret.txt{more}"));
        tricks.push(format!("/..%2fsecret.txt{more}"));
        tricks.push(format!("/.env{more}"));
    }
    tricks
}

#[tokio::test]
async fn no_trick_leads_out_of_the_root_or_to_what_is_hidden() {
    let folder = Folder::new()
        .with("index.html", "home")
        .with("a/b.txt", "b")
        .with(".env", "the secret")
        .with("a/.env", "the secret");
    folder.write(".git/config", "the secret");
    folder.write(".well-known/.env", "the secret");
    let root = folder.root();
    for (target, link) in [
        ("../secret.txt", "out"),
        ("..", "up"),
        ("/proc/self/root", "proc"),
        ("out", "chain"),
        ("../..", "a/up"),
    ] {
        symlink(target, root.join(link)).expect("a link");
    }
    symlink(folder.0.path().join("secret.txt"), root.join("absolute")).expect("a link");
    let tricks = tricks(&folder);
    assert!(tricks.len() >= 300, "only {} tricks", tricks.len());
    for lines in ["", ", listing = true, fallback = \"index.html\""] {
        let edge = folder.start(lines).await;
        for trick in &tricks {
            let answer = edge.request("GET", trick).try_send().await;
            // A target that is none is refused before it is a request, and the connection closed.
            let Ok(answer) = answer else { continue };
            let text = answer.text();
            assert!(!text.contains("the secret") && !text.contains("root:"), "{trick} leads out: {text}");
            assert!(matches!(answer.status, 200 | 308 | 400 | 404), "{trick}: {}", answer.status);
            if let Some(location) = answer.header("location") {
                assert!(
                    location.starts_with('/') && !location.starts_with("//") && !location.contains('\\'),
                    "{trick}: {location}"
                );
            }
        }
        edge.get("/a/b.txt").await.expect(200).body("b");
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_link_within_the_root_is_followed() {
    let folder = Folder::new().with("v2/a.txt", "a");
    symlink("v2", folder.root().join("latest")).expect("a link");
    let edge = folder.start("").await;
    edge.get("/latest/a.txt").await.expect(200).body("a");
    edge.finish().await;
}

/// A figure of a process in KiB, as the system tells it.
fn memory(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let line = status.lines().find(|line| line.starts_with(name)).expect("the figure");
    line.split_whitespace().nth(1).and_then(|figure| figure.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_gigabyte_is_served_in_little_memory() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const LENGTH: u64 = 1 << 30;
    let folder = Folder::new().with("film.mp4", "").with("a.txt", "a");
    let film = std::fs::File::options().write(true).open(folder.root().join("film.mp4")).expect("the film");
    film.set_len(LENGTH).expect("room");
    let (web, admin) = (free_address(), free_address());
    let configuration = format!(
        "[listen.web]\naddr = \"{web}\"\n[admin]\naddr = \"{admin}\"\n[log]\naccess = \"off\"\n[[routes]]\nfiles = {{ root = \"{}\" }}\n",
        folder.root().display()
    );
    let process = Program::gateway(&configuration).ready_at(admin).start().await;
    Client::new(web).get("/a.txt").send().await.expect(200).body("a");
    let before = memory(process.id(), "VmRSS");
    let mut stream = tokio::net::TcpStream::connect(web).await.expect("a connection");
    stream
        .write_all(b"GET /film.mp4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .expect("a request");
    let (mut seen, mut piece) = (0u64, vec![0; 256 * 1024]);
    loop {
        match within("more of the film", stream.read(&mut piece)).await.expect("an answer") {
            0 => break,
            count => seen += count as u64,
        }
    }
    assert!((LENGTH..LENGTH + 2000).contains(&seen), "{seen} bytes came");
    let grown = memory(process.id(), "VmHWM").saturating_sub(before);
    assert!(grown < 16 * 1024, "it grew by {grown} KiB");
}
