//! Messages made to be read two ways. Each is judged by what reached the instance, by the status, and by whether the next request on the same
//! connection and another user's on a fresh one get their own answers.

use crate::edge::Edge;
use crate::support::gate::Gate;
use crate::support::origin::{self, Origin, Request, echo, raw, reply};
use crate::support::wire;

/// What must come of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    /// This status and the end of the connection; nothing of it is whole at the instance.
    Refused(u16),
    /// It is a request like any other: answered, and so is the next one on the connection.
    Served,
}
use Outcome::{Refused, Served};

/// A message, named by its bytes.
struct Case {
    bytes: Vec<u8>,
    outcome: Outcome,
}

/// One byte for each character up to U+00FF: so that a table can hold bytes that are no UTF-8.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("characters up to U+00FF")).collect()
}

fn case(text: &str, outcome: Outcome) -> Case {
    Case { bytes: latin1(text), outcome }
}

/// The request that follows every hostile one on its connection.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

async fn telling_origin() -> Origin {
    let own = |request: &Request| {
        reply(200).cache("no-store").body(format!("{} {}", request.method, request.target))
    };
    Origin::new().on_request("*", own).start().await
}

/// Sends each message with a request right behind it and gives what was not as it should be.
async fn failures(edge: &Edge, origin: &Origin, cases: &[Case]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let before = origin.requests().len();
        let mut connection = edge.client.connect().await;
        // A server that has refused need not read on.
        let _ = connection.try_write([&case.bytes[..], NEXT.as_bytes()].concat()).await;
        let said = connection.read_to_close().await;
        let seen = origin.requests().split_off(before);
        if let Err(why) = judge(case, &said, &seen) {
            wrong.push(format!("{:?}: {why}; answered {:?}", wire::show(&case.bytes), wire::show(&said)));
        }
        let fresh = format!("/fresh-{number}");
        let answer = edge.get(&fresh).await;
        if answer.text() != format!("GET {fresh}") {
            wrong.push(format!("{:?}: another user got {:?}", wire::show(&case.bytes), answer.text()));
        }
    }
    wrong.extend(origin.violations().into_iter().map(|violation| format!("at the instance: {violation}")));
    wrong
}

fn judge(case: &Case, said: &[u8], seen: &[Request]) -> Result<(), String> {
    let text = String::from_utf8_lossy(said).replace("HTTP/1.1 100 Continue\r\n\r\n", "");
    let answers = text.matches("HTTP/1.1 ").count();
    if let Some(smuggled) = seen.iter().find(|request| request.target.contains("smuggled")) {
        return Err(format!("{} {} reached the instance", smuggled.method, smuggled.target));
    }
    match case.outcome {
        Refused(status) => {
            if !text.starts_with(&format!("HTTP/1.1 {status} ")) {
                return Err(format!("not refused with {status}"));
            }
            if answers != 1 {
                return Err("more than one answer".into());
            }
            match seen.iter().find(|request| request.complete) {
                Some(request) => {
                    Err(format!("{} {} is whole at the instance", request.method, request.target))
                }
                None => Ok(()),
            }
        }
        Served => {
            if answers != 2 || !text.starts_with("HTTP/1.1 200 ") || !text.ends_with("GET /next") {
                return Err("not served, or not the next one".into());
            }
            if seen.len() != 2 || !seen.iter().all(|request| request.complete) {
                return Err(format!("{} requests reached the instance", seen.len()));
            }
            Ok(())
        }
    }
}

async fn hold(cases: Vec<Case>, at_least: usize) {
    assert!(cases.len() >= at_least, "only {} messages", cases.len());
    for cached in [false, true] {
        let origin = telling_origin().await;
        let edge = Edge::serving(&origin);
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let wrong = failures(&edge, &origin, &cases).await;
        let (count, all) = (wrong.len(), cases.len());
        assert!(wrong.is_empty(), "{count} of {all}, cached: {cached}:\n{}", wrong.join("\n"));
        assert_eq!(edge.up(), [true]);
        assert_eq!(edge.in_flight(), [0]);
        edge.finish().await;
        origin.finish().await;
    }
}

#[tokio::test]
async fn request_lines() {
    let lines: &[(&str, Outcome)] = &[
        ("GET / HTTP/1.1", Served),
        ("FOO / HTTP/1.1", Served),
        ("M-SEARCH / HTTP/1.1", Served),
        ("OPTIONS / HTTP/1.1", Served),
        ("OPTIONS * HTTP/1.1", Served),
        ("GET /", Refused(400)),
        ("GET / HTTP/0.9", Refused(400)),
        ("GET / HTTP/1.2", Refused(400)),
        ("GET / HTTP/2.0", Refused(400)),
        ("GET / HTTP/3", Refused(400)),
        ("GET / HTTP/11", Refused(400)),
        ("GET / HTTP/1.10", Refused(400)),
        ("GET / HTTP/01.1", Refused(400)),
        ("GET / HTTP/1.", Refused(400)),
        ("GET / HTTP/.1", Refused(400)),
        ("GET / HTTP/1,1", Refused(400)),
        ("GET / HTTP/+1.1", Refused(400)),
        ("GET / http/1.1", Refused(400)),
        ("GET / HTTPS/1.1", Refused(400)),
        ("GET / HTTP 1.1", Refused(400)),
        ("GET / XHTTP/1.1", Refused(400)),
        ("GET / ICY", Refused(400)),
        ("GET / HTTP/1.1 ", Refused(400)),
        ("GET / HTTP/1.1\t", Refused(400)),
        ("GET / HTTP/1.1x", Refused(400)),
        ("GET / HTTP/1.1\0", Refused(400)),
        ("GET / HTTP/1.1 HTTP/1.1", Refused(400)),
        ("GET /\u{a0}HTTP/1.1", Refused(400)),
        ("GET  / HTTP/1.1", Refused(400)),
        ("GET /  HTTP/1.1", Refused(400)),
        ("GET\t/ HTTP/1.1", Refused(400)),
        ("GET /\tHTTP/1.1", Refused(400)),
        ("GET\u{b}/ HTTP/1.1", Refused(400)),
        ("GET\u{c}/ HTTP/1.1", Refused(400)),
        ("GET\r/ HTTP/1.1", Refused(400)),
        ("GET\0/ HTTP/1.1", Refused(400)),
        (" GET / HTTP/1.1", Refused(400)),
        ("\tGET / HTTP/1.1", Refused(400)),
        ("\0GET / HTTP/1.1", Refused(400)),
        ("\u{ef}\u{bb}\u{bf}GET / HTTP/1.1", Refused(400)),
        ("/ HTTP/1.1", Refused(400)),
        (" / HTTP/1.1", Refused(400)),
        ("G(T / HTTP/1.1", Refused(400)),
        ("GE\"T / HTTP/1.1", Refused(400)),
        ("GE,T / HTTP/1.1", Refused(400)),
        ("GE/T / HTTP/1.1", Refused(400)),
        ("GE:T / HTTP/1.1", Refused(400)),
        ("GE@T / HTTP/1.1", Refused(400)),
        ("GE{T / HTTP/1.1", Refused(400)),
        ("G\u{80}T / HTTP/1.1", Refused(400)),
        ("G\u{7f}T / HTTP/1.1", Refused(400)),
        ("GET", Refused(400)),
        ("GET ", Refused(400)),
        ("GET HTTP/1.1", Refused(400)),
        ("HTTP/1.1 200 OK", Refused(400)),
        ("PRI * HTTP/2.0", Refused(400)),
        ("CONNECT a:443 HTTP/1.1", Refused(405)),
        ("CONNECT / HTTP/1.1", Refused(405)),
        ("CONNECT http://a/ HTTP/1.1", Refused(405)),
        ("TRACE / HTTP/1.1", Refused(405)),
        ("GET * HTTP/1.1", Refused(400)),
        ("POST * HTTP/1.1", Refused(400)),
    ];
    hold(lines.iter().map(|(line, o)| case(&format!("{line}\r\nHost: a\r\n\r\n"), *o)).collect(), 60).await;
}

#[tokio::test]
async fn targets() {
    let targets: &[(&str, Outcome)] = &[
        ("/a/b?c=d", Served),
        ("/a;b=c", Served),
        ("/a/../b", Served),
        ("/%2e%2e%2f", Refused(400)),
        ("/..%2fetc", Refused(400)),
        ("/a/%2E%2E/b", Served),
        ("//a", Served),
        ("/?", Served),
        ("/?a=/../..", Served),
        ("http://a/x", Served),
        ("HTTP://A/x", Served),
        ("http://a:80/x", Served),
        ("http://a", Served),
        ("http://b/x", Refused(400)),
        ("http://u@a/x", Refused(400)),
        ("http://a:0/x", Refused(400)),
        ("http://a:81/x", Refused(400)),
        ("http://a:x/", Refused(400)),
        ("http://a\\b/", Refused(400)),
        ("http:///x", Refused(400)),
        ("http://", Refused(400)),
        ("http:/x", Refused(400)),
        ("http:a", Refused(400)),
        ("http//a/x", Refused(400)),
        ("ftp://a/x", Refused(400)),
        ("file:///etc/passwd", Refused(400)),
        ("a", Refused(400)),
        ("a/b", Refused(400)),
        ("a:443", Refused(400)),
        ("../x", Refused(400)),
        ("?x", Refused(400)),
        ("#", Refused(400)),
        ("/x#y", Refused(400)),
        ("/x?y#z", Refused(400)),
        ("/..", Refused(400)),
        ("/../x", Refused(400)),
        ("/a/../../x", Refused(400)),
        ("/%2e%2e/x", Refused(400)),
        ("/a\\..\\b", Refused(400)),
        ("\\a", Refused(400)),
        ("/%", Refused(400)),
        ("/%1", Refused(400)),
        ("/%gg", Refused(400)),
        ("/%u002f", Refused(400)),
        ("/%00", Refused(400)),
        ("/a%00.html", Refused(400)),
        ("/a\0b", Refused(400)),
        ("/a\u{1}b", Refused(400)),
        ("/a\u{7f}b", Refused(400)),
        ("/a\u{80}b", Refused(400)),
        ("/\u{e4}", Refused(400)),
        ("/?\u{ff}", Refused(400)),
        ("/a\tb", Refused(400)),
        ("/a b", Refused(400)),
        ("/a\rb", Refused(400)),
        ("/a\u{b}b", Refused(400)),
        ("/x?\0", Refused(400)),
        ("/x?\u{7f}", Refused(400)),
    ];
    hold(
        targets.iter().map(|(t, o)| case(&format!("GET {t} HTTP/1.1\r\nHost: a\r\n\r\n"), *o)).collect(),
        55,
    )
    .await;
}

#[tokio::test]
async fn hosts() {
    let hosts: &[(&str, Outcome)] = &[
        ("Host: a", Served),
        ("hOsT:a", Served),
        ("Host: \t a \t", Served),
        ("Host: a:8080", Served),
        ("Host: a.", Served),
        ("Host: [::1]:80", Served),
        ("Host: 127.0.0.1", Served),
        ("X: y", Refused(400)),
        ("Host:", Refused(400)),
        ("Host: ", Refused(400)),
        ("Host: a\r\nHost: a", Refused(400)),
        ("Host: a\r\nhost: b", Refused(400)),
        ("Host: a\r\nHost:", Refused(400)),
        ("Host: a, b", Refused(400)),
        ("Host: a b", Refused(400)),
        ("Host: a\tb", Refused(400)),
        ("Host: u@a", Refused(400)),
        ("Host: u:p@a", Refused(400)),
        ("Host: a@", Refused(400)),
        ("Host: a:", Served),
        ("Host: a:0", Refused(400)),
        ("Host: a:65536", Refused(400)),
        ("Host: a:99999999999999999999", Refused(400)),
        ("Host: a:-1", Refused(400)),
        ("Host: a:+1", Refused(400)),
        ("Host: a:1x", Refused(400)),
        ("Host: a:80:80", Refused(400)),
        ("Host: a: 80", Refused(400)),
        ("Host: :80", Refused(400)),
        ("Host: a/b", Refused(400)),
        ("Host: a?b", Refused(400)),
        ("Host: a#b", Refused(400)),
        ("Host: a\\b", Refused(400)),
        ("Host: \"a\"", Refused(400)),
        ("Host: 'a'", Refused(400)),
        ("Host: <a>", Refused(400)),
        ("Host: a%00", Refused(400)),
        ("Host: a%2eb", Refused(400)),
        ("Host: a;b", Refused(400)),
        ("Host: a|b", Refused(400)),
        ("Host: a`b", Refused(400)),
        ("Host: a..b", Refused(400)),
        ("Host: .a", Refused(400)),
        ("Host: ..", Refused(400)),
        ("Host: *", Refused(400)),
        ("Host: \u{e4}", Refused(400)),
        ("Host: a\0", Refused(400)),
        ("Host: a\u{1}", Refused(400)),
        ("Host: a\u{7f}", Refused(400)),
        ("Host: http://a", Refused(400)),
        ("Host: ::1", Refused(400)),
        ("Host: [::1", Refused(400)),
        ("Host: [::g]", Refused(400)),
        ("Host: [::1]x", Refused(400)),
        ("Host: [127.0.0.1]", Refused(400)),
        ("Host: [fe80::1%25eth0]", Refused(400)),
        ("Host : a", Refused(400)),
        ("Host\t: a", Refused(400)),
        (" Host: a", Refused(400)),
        ("\tHost: a", Refused(400)),
        ("Host", Refused(400)),
        ("Host; a", Refused(400)),
        ("Host: a\r\n b", Refused(400)),
        ("Host:\r\n a", Refused(400)),
        ("Host: a\rHost: b", Refused(400)),
        ("Host: a\nHost: b", Refused(400)),
    ];
    hold(hosts.iter().map(|(host, o)| case(&format!("GET / HTTP/1.1\r\n{host}\r\n\r\n"), *o)).collect(), 60)
        .await;
}

#[tokio::test]
async fn fields() {
    let fields: &[(&str, Outcome)] = &[
        ("X: y", Served),
        ("X:", Served),
        ("X:y", Served),
        ("X: \u{e4}\u{ff}", Served),
        ("X: a\tb", Served),
        ("!#$%&'*+-.^_`|~: y", Served),
        ("X_Y: 1", Served),
        ("X : y", Refused(400)),
        ("X\t: y", Refused(400)),
        (" X: y", Refused(400)),
        ("\tX: y", Refused(400)),
        ("X: y\r\n z", Refused(400)),
        ("X: y\r\n\tz", Refused(400)),
        ("X: y\r\n \r\nZ: w", Refused(400)),
        (": y", Refused(400)),
        (":", Refused(400)),
        ("X", Refused(400)),
        ("X y", Refused(400)),
        ("X y: z", Refused(400)),
        ("X\0: y", Refused(400)),
        ("X\u{1}: y", Refused(400)),
        ("X\u{7f}: y", Refused(400)),
        ("X\u{e4}: y", Refused(400)),
        ("X\r: y", Refused(400)),
        ("X(: y", Refused(400)),
        ("X/: y", Refused(400)),
        ("X@: y", Refused(400)),
        ("X[: y", Refused(400)),
        ("X{: y", Refused(400)),
        ("X\": y", Refused(400)),
        ("X,Y: y", Refused(400)),
        ("X;Y: y", Refused(400)),
        ("X=Y: y", Refused(400)),
        ("X\\Y: y", Refused(400)),
        ("X: a\0b", Refused(400)),
        ("X: a\u{1}b", Refused(400)),
        ("X: a\u{8}b", Refused(400)),
        ("X: a\u{b}b", Refused(400)),
        ("X: a\u{c}b", Refused(400)),
        ("X: a\u{1b}b", Refused(400)),
        ("X: a\u{7f}b", Refused(400)),
        ("X: a\rb", Refused(400)),
        ("X: a\nb", Refused(400)),
        ("X: a\r\r\nY: b", Refused(400)),
        ("X: a\nContent-Length: 3", Refused(400)),
        ("X: a\n\nGET /smuggled HTTP/1.1", Refused(400)),
        ("X: a\rGET /smuggled HTTP/1.1", Refused(400)),
        ("Expect: 100-continue", Served),
        ("Expect: 100-Continue", Served),
        ("Expect: 200-ok", Refused(417)),
        ("Expect: 100-continue, x", Refused(417)),
        ("Expect:", Refused(417)),
        ("Expect: \"100-continue\"", Refused(417)),
        ("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__", Served),
        ("Upgrade: h2c", Served),
        ("Upgrade: TLS/1.0\r\nConnection: Upgrade", Served),
        ("Connection: Upgrade", Served),
        ("Connection: content-length, transfer-encoding, x", Served),
        ("TE: trailers, chunked", Served),
        ("Trailer: Content-Length", Served),
        ("Keep-Alive: timeout=9999, max=0", Served),
        ("Proxy-Connection: close", Served),
        ("Proxy: http://evil", Served),
        ("Range: bytes=0-0,-1,9-", Served),
        ("Max-Forwards: 0", Served),
    ];
    let mut cases: Vec<Case> = fields
        .iter()
        .map(|(line, o)| case(&format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"), *o))
        .collect();
    cases
        .push(case(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(40_000)), Refused(431)));
    cases
        .push(case(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}: y\r\n\r\n", "X".repeat(40_000)), Refused(431)));
    cases.push(case(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(150)), Refused(431)));
    cases.push(case(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(40_000)), Refused(431)));
    hold(cases, 60).await;
}

#[tokio::test]
async fn lengths() {
    let lengths: &[(&str, Outcome)] = &[
        ("Content-Length: 3", Served),
        ("content-length:3", Served),
        ("Content-Length: \t3\t ", Served),
        ("Content-Length: 003", Served),
        ("Content-Length:", Refused(400)),
        ("Content-Length: ", Refused(400)),
        ("Content-Length: +3", Refused(400)),
        ("Content-Length: -3", Refused(400)),
        ("Content-Length: -0", Refused(400)),
        ("Content-Length: 0x3", Refused(400)),
        ("Content-Length: 3.0", Refused(400)),
        ("Content-Length: 3e0", Refused(400)),
        ("Content-Length: 3 3", Refused(400)),
        ("Content-Length: 3,3", Refused(400)),
        ("Content-Length: 3, 3", Refused(400)),
        ("Content-Length: 3,4", Refused(400)),
        ("Content-Length: ,3", Refused(400)),
        ("Content-Length: 3,", Refused(400)),
        ("Content-Length: 3;", Refused(400)),
        ("Content-Length: \"3\"", Refused(400)),
        ("Content-Length: three", Refused(400)),
        ("Content-Length: 3a", Refused(400)),
        ("Content-Length: 1_0", Refused(400)),
        ("Content-Length: \u{b2}", Refused(400)),
        ("Content-Length: 3\0", Refused(400)),
        ("Content-Length: 3\u{b}", Refused(400)),
        ("Content-Length: 18446744073709551619", Refused(400)),
        ("Content-Length: 99999999999999999999999999", Refused(400)),
        ("Content-Length: 00000000000000000000003", Refused(400)),
        ("Content-Length: 3\r\nContent-Length: 3", Refused(400)),
        ("Content-Length: 3\r\nContent-Length: 4", Refused(400)),
        ("Content-Length: 0\r\nContent-Length: 3", Refused(400)),
        ("Content-Length: 3\r\ncontent-length:", Refused(400)),
        ("Content-Length : 3", Refused(400)),
        ("Content-Length\t: 3", Refused(400)),
        ("Content-Length\u{b}: 3", Refused(400)),
        (" Content-Length: 3", Refused(400)),
        ("Content-Length:\r\n 3", Refused(400)),
        ("X: y\r\n Content-Length: 3", Refused(400)),
        ("Content-Length: 3\rX: y", Refused(400)),
        ("Content-Length: 9999999999", Refused(413)),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", Refused(400)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3", Refused(400)),
        ("Content-Length: 3\r\nTransfer-Encoding: identity", Refused(400)),
        ("Content-Length: 3\r\nTransfer-Encoding:", Refused(400)),
        ("Content-Length: 3\r\nConnection: content-length", Served),
    ];
    let with = |line: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\nabc");
    let mut cases: Vec<Case> = lengths.iter().map(|(line, o)| case(&with(line), *o)).collect();
    for method in ["GET", "DELETE", "OPTIONS", "FOO"] {
        cases.push(case(&format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"), Served));
    }
    // What looks like a request within content is content.
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = inner.len();
    for method in ["GET", "POST", "PUT"] {
        cases.push(case(
            &format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"),
            Served,
        ));
    }
    hold(cases, 50).await;
}

#[tokio::test]
async fn transfer_codings() {
    let codings: &[(&str, Outcome)] = &[
        ("Transfer-Encoding: chunked", Served),
        ("transfer-encoding:CHUNKED", Served),
        ("Transfer-Encoding: \tchunked ", Served),
        ("Transfer-Encoding: chunked\r\nConnection: transfer-encoding", Served),
        ("Transfer-Encoding:", Refused(400)),
        ("Transfer-Encoding: identity", Refused(400)),
        ("Transfer-Encoding: gzip", Refused(400)),
        ("Transfer-Encoding: gzip, chunked", Refused(400)),
        ("Transfer-Encoding: chunked, gzip", Refused(400)),
        ("Transfer-Encoding: chunked, chunked", Refused(400)),
        ("Transfer-Encoding: chunked, identity", Refused(400)),
        ("Transfer-Encoding: identity, chunked", Refused(400)),
        ("Transfer-Encoding: ,chunked", Refused(400)),
        ("Transfer-Encoding: chunked,", Refused(400)),
        ("Transfer-Encoding: chunked;q=1", Refused(400)),
        ("Transfer-Encoding: chunked;", Refused(400)),
        ("Transfer-Encoding: xchunked", Refused(400)),
        ("Transfer-Encoding: chunkedx", Refused(400)),
        ("Transfer-Encoding: chun ked", Refused(400)),
        ("Transfer-Encoding: chunk", Refused(400)),
        ("Transfer-Encoding: \"chunked\"", Refused(400)),
        ("Transfer-Encoding: 'chunked'", Refused(400)),
        ("Transfer-Encoding: chunked\u{b}", Refused(400)),
        ("Transfer-Encoding: \u{b}chunked", Refused(400)),
        ("Transfer-Encoding: chunked\0", Refused(400)),
        ("Transfer-Encoding: \u{a0}chunked", Refused(400)),
        ("Transfer-Encoding: chunked\u{85}", Refused(400)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Refused(400)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Refused(400)),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", Refused(400)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding:", Refused(400)),
        ("Transfer-Encoding : chunked", Refused(400)),
        ("Transfer-Encoding\t: chunked", Refused(400)),
        (" Transfer-Encoding: chunked", Refused(400)),
        ("Transfer-Encoding:\r\n chunked", Refused(400)),
        ("Transfer-Encoding: chunked\r\n x", Refused(400)),
        ("X: y\rTransfer-Encoding: chunked", Refused(400)),
        ("X: y\nTransfer-Encoding: chunked", Refused(400)),
    ];
    let with = |line: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    hold(codings.iter().map(|(line, o)| case(&with(line), *o)).collect(), 38).await;
}

#[tokio::test]
async fn chunks() {
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "a".repeat(5000));
    let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(5000));
    let request_as_data = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let request_after_lf = format!("3\r\nabc\r\n0\n\r\n{inner}");
    let request_in_extension = format!("2;\n{inner}\r\nab\r\n0\r\n\r\n");
    let contents: &[(&str, Outcome)] = &[
        ("0\r\n\r\n", Served),
        ("3\r\nabc\r\n0\r\n\r\n", Served),
        ("03\r\nabc\r\n00\r\n\r\n", Served),
        ("A\r\n0123456789\r\n0\r\n\r\n", Served),
        ("a\r\n0123456789\r\n0\r\n\r\n", Served),
        ("3;a=b\r\nabc\r\n0\r\n\r\n", Served),
        ("3 ;a = \"b;\\\"c\"\r\nabc\r\n0;z\r\n\r\n", Served),
        ("3\r\nabc\r\n0\r\nX: y\r\n\r\n", Served),
        ("3\r\nabc\r\n0\r\nContent-Length: 100\r\nHost: b\r\n\r\n", Served),
        ("3\r\n\r\n0\r\n0\r\n\r\n", Served),
        (&request_as_data, Served),
        (&request_after_lf, Refused(400)),
        (&request_in_extension, Refused(400)),
        (&long, Refused(400)),
        (&trailers, Refused(400)),
        ("\r\n3\r\nabc\r\n0\r\n\r\n", Refused(400)),
        (" 3\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3 \r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3\t\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("+3\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("-3\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("-0\r\n\r\n", Refused(400)),
        ("0x3\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3h\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3.0\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3,\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("\"3\"\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("g\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("\u{b3}\r\nabc\r\n0\r\n\r\n", Refused(400)),
        (";a\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3;\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3;=b\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3;a=\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3;a=\"b\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3;a\nb\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3;\n\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3;a\0\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3;a\u{1}\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3;a\u{7f}\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3;a\rb\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3;a\r\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3\rabc\r\n0\r\n\r\n", Refused(400)),
        ("3\r\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3\0\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3\r\nabcd\r\n0\r\n\r\n", Refused(400)),
        ("3\r\nab\r\n0\r\n\r\n", Refused(400)),
        ("3\r\nabc0\r\n\r\n", Refused(400)),
        ("3\r\nabc\n0\r\n\r\n", Refused(400)),
        ("3\r\nabc\r0\r\n\r\n", Refused(400)),
        ("3\r\nabcXX0\r\n\r\n", Refused(400)),
        ("3\r\nabc\r\n\r\n0\r\n\r\n", Refused(400)),
        ("3\r\nabc\r\n\n0\r\n\r\n", Refused(400)),
        ("3\r\nabc\r\n0\n\r\n", Refused(400)),
        ("3\r\nabc\r\n0\r\n\n", Refused(400)),
        ("3\r\nabc\r\n0\r\rX\r\n", Refused(400)),
        ("ffffffffffffffff\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("10000000000000003\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("00000000000000000000000000000003\r\nabc\r\n0\r\n\r\n", Refused(400)),
        ("3\r\nabc\r\n0\r\nX\r\n\r\n", Refused(400)),
        ("3\r\nabc\r\n0\r\nX : y\r\n\r\n", Refused(400)),
        ("3\r\nabc\r\n0\r\n X: y\r\n\r\n", Refused(400)),
        ("3\r\nabc\r\n0\r\nX: y\r\n z\r\n\r\n", Refused(400)),
        ("3\r\nabc\r\n0\r\nX: y\nZ: w\r\n\r\n", Refused(400)),
        ("3\r\nabc\r\n0\r\nX: \0\r\n\r\n", Refused(400)),
        ("3\r\nabc\r\n0\r\n: y\r\n\r\n", Refused(400)),
        ("3\r\nabc\r\n0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ];
    let with =
        |content: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{content}");
    hold(contents.iter().map(|(c, o)| case(&with(c), *o)).collect(), 65).await;
}

#[tokio::test]
async fn the_old_protocol() {
    let requests: &[(&str, Outcome)] = &[
        ("GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", Refused(400)),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", Refused(400)),
        ("POST / HTTP/1.0\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", Refused(400)),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.0\r\nHost: u@a\r\n\r\n", Refused(400)),
        ("GET http://b/ HTTP/1.0\r\nHost: a\r\n\r\n", Refused(400)),
        ("CONNECT a:1 HTTP/1.0\r\n\r\n", Refused(405)),
        ("GET /\r\n\r\n", Refused(400)),
        ("GET / HTTP/1.0\nHost: a\n\n", Refused(400)),
        ("\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Served),
        ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\r\n\r\n", Refused(400)),
        ("SSH-2.0-x\r\n\r\n", Refused(400)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(400)),
    ];
    hold(requests.iter().map(|(text, outcome)| case(text, *outcome)).collect(), 15).await;
}

/// What must come of an instance's answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    /// 502, or what another try brought.
    Bad,
    /// As `Bad`; or passed on as far as it came, its end visibly missing.
    Cut,
    /// Passed on with this content.
    Whole(&'static str),
    /// As `Bad`, or as `Whole`: lenient readers agree on what it means.
    Either(&'static str),
}
use Verdict::{Bad, Cut, Either, Whole};

/// Answers each of the messages once and then well, and gives what was not as it should be.
async fn answers(messages: &[(String, Verdict)], at_least: usize) {
    assert!(messages.len() >= at_least, "only {} messages", messages.len());
    let mut wrong = Vec::new();
    for (cached, held_open) in [(false, true), (false, false), (true, true), (true, false)] {
        let own = |request: &Request| reply(200).cache("max-age=60").body(request.target.clone());
        let origin = Origin::new().on_request("*", own).start().await;
        let edge = Edge::serving(&origin);
        let edge = if cached { edge } else { edge.without_cache() };
        // A connection held open never answers again: what comes of that must not take long, and may be a time-out.
        let patience = if held_open { "300ms" } else { "30s" };
        let edge = edge.upstream(&format!("read_timeout = \"{patience}\"")).start().await;
        for (number, (message, verdict)) in messages.iter().enumerate() {
            let target = format!("/hostile-{number}");
            let bad = if held_open { raw(latin1(message)).then_hang() } else { raw(latin1(message)) };
            origin.set_script(&target, {
                let first = std::sync::atomic::AtomicBool::new(true);
                move |request| match first.swap(false, std::sync::atomic::Ordering::SeqCst) {
                    true => bad.clone(),
                    false => reply(200).body(request.target.clone()),
                }
            });
            let mut connection = edge.client.connect().await;
            let answer = connection.get(&target).try_send().await;
            let mut complain = |why: String| {
                let shown = wire::show(&latin1(message)[..message.chars().count().min(300)]);
                wrong.push(format!("cached: {cached}, held open: {held_open}: {shown:?}: {why}"));
            };
            match answer {
                Ok(answer) => {
                    let again = answer.text() == target;
                    let refused = matches!(answer.status, 502 | 504) && answer.truncated.is_none();
                    let whole = |body: &str| answer.truncated.is_none() && answer.text() == body;
                    let good = match verdict {
                        Bad => refused || again,
                        Cut => refused || again || answer.truncated.is_some(),
                        Whole(body) => whole(body),
                        Either(body) => refused || again || whole(body),
                    };
                    if !good {
                        complain(format!(
                            "not {verdict:?}: {:?}, cut: {:?}",
                            wire::show(&answer.raw),
                            answer.truncated
                        ));
                    }
                    if !answer.headers("connection").iter().all(|v| matches!(*v, "keep-alive" | "close"))
                        || answer.header("x-hop").is_some()
                        || answer.header("keep-alive").is_some()
                    {
                        complain(format!("hop-by-hop fields left: {:?}", answer.fields));
                    }
                }
                Err(why) if *verdict == Cut => drop(why),
                Err(why) => complain(why),
            }
            // What was left of it must answer nobody: neither on this connection nor on another, and never from the store.
            for turn in 0..2 {
                let other = format!("/other-{number}-{turn}");
                let answer = edge.get(&other).await;
                if answer.text() != other && !(held_open && answer.status == 504) {
                    complain(format!("another user got {:?}", wire::show(&answer.raw)));
                }
            }
            if !matches!(verdict, Whole(_) | Either(_)) {
                let later = edge.get(&target).await;
                if later.text() != target {
                    complain(format!("later, {:?} was served", wire::show(&later.raw)));
                }
            }
        }
        assert_eq!(edge.in_flight(), [0]);
        edge.finish().await;
        origin.finish().await;
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn status_lines_of_instances() {
    let lines: &[(&str, Verdict)] = &[
        ("HTTP/1.1 200 OK", Whole("abc")),
        ("HTTP/1.1 200 ", Whole("abc")),
        ("HTTP/1.1 200", Either("abc")),
        ("HTTP/1.1 200 \u{e4}", Either("abc")),
        ("HTTP/1.0 200 OK", Whole("abc")),
        ("HTTP/0.9 200 OK", Bad),
        ("HTTP/2 200 OK", Bad),
        ("HTTP/2.0 200 OK", Bad),
        ("HTTP/1.2 200 OK", Bad),
        ("HTTP/1.10 200 OK", Bad),
        ("HTTP/11 200 OK", Bad),
        ("http/1.1 200 OK", Bad),
        ("HTTP 1.1 200 OK", Bad),
        ("HTTP/1.1 20 OK", Bad),
        ("HTTP/1.1 2000 OK", Bad),
        ("HTTP/1.1 abc OK", Bad),
        ("HTTP/1.1 +20 OK", Bad),
        ("HTTP/1.1 -20 OK", Bad),
        ("HTTP/1.1 0xC8 OK", Bad),
        ("HTTP/1.1 000 OK", Bad),
        ("HTTP/1.1 099 OK", Bad),
        ("HTTP/1.1 200OK", Bad),
        ("HTTP/1.1  200 OK", Bad),
        ("HTTP/1.1\t200 OK", Bad),
        ("HTTP/1.1", Bad),
        ("HTTP/1.1 ", Bad),
        (" HTTP/1.1 200 OK", Bad),
        ("XHTTP/1.1 200 OK", Bad),
        ("ICY 200 OK", Bad),
        ("200 OK", Bad),
        ("GET / HTTP/1.1", Bad),
        ("HTTP/1.1 200 O\0K", Bad),
        ("HTTP/1.1 200 O\rK", Bad),
        ("HTTP/1.1 200 O\u{1}K", Bad),
        ("HTTP/1.1 101 Switching Protocols", Bad),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket", Bad),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c", Bad),
        ("HTTP/1.1 204 No Content", Whole("")),
        ("HTTP/1.1 599 x", Whole("abc")),
        ("HTTP/1.1 999 x", Either("abc")),
    ];
    let messages: Vec<_> =
        lines.iter().map(|(line, v)| (format!("{line}\r\nContent-Length: 3\r\n\r\nabc"), *v)).collect();
    answers(&messages, 40).await;
}

#[tokio::test]
async fn garbage_of_instances() {
    let big_field =
        format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 3\r\n\r\nabc", "y".repeat(2_000_000));
    let many_fields = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 3\r\n\r\nabc", "X: y\r\n".repeat(1000));
    let endless = "X: y\r\n".repeat(100_000);
    let messages: &[(&str, Verdict)] = &[
        ("", Bad),
        ("\r\n", Bad),
        ("\n", Bad),
        ("<html>not HTTP</html>", Bad),
        ("<html>not HTTP</html>\r\n\r\n", Bad),
        ("\0\0\0\0\r\n\r\n", Bad),
        ("\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{28}", Bad),
        ("SSH-2.0-OpenSSH\r\n", Bad),
        ("HTTP/1.1 200 OK\r\nContent-Le", Bad),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", Bad),
        (&big_field, Bad),
        (&many_fields, Bad),
        (&endless, Bad),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Whole("abc")),
        (
            "HTTP/1.1 102 x\r\n\r\nHTTP/1.1 103 y\r\nLink: z\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            Whole("abc"),
        ),
        ("HTTP/1.1 100 Continue\r\n\r\n", Bad),
        ("HTTP/1.1 100 Continue\r\n\r\nnot HTTP\r\n\r\n", Bad),
    ];
    answers(&messages.iter().map(|(m, v)| ((*m).to_owned(), *v)).collect::<Vec<_>>(), 15).await;
}

#[tokio::test]
async fn fields_of_instances() {
    let fields: &[(&str, Verdict)] = &[
        ("X: y", Whole("abc")),
        ("X: \u{e4}", Whole("abc")),
        ("X:", Whole("abc")),
        (
            "Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\nProxy-Connection: x\r\nTrailer: y",
            Whole("abc"),
        ),
        ("Upgrade: h2c", Whole("abc")),
        ("X : y", Either("abc")),
        ("X\t: y", Either("abc")),
        (" X: y", Bad),
        ("X: y\r\n z", Either("abc")),
        ("X: y\r\n\tz", Either("abc")),
        ("X", Bad),
        (": y", Bad),
        ("X y: z", Bad),
        ("X(: z", Bad),
        ("X\0: y", Bad),
        ("X\u{e4}: y", Bad),
        ("X: a\0b", Bad),
        ("X: a\u{1}b", Bad),
        ("X: a\u{7f}b", Bad),
        ("X: a\rb", Bad),
        ("X: a\nY: b", Either("abc")),
    ];
    let messages: Vec<_> = fields
        .iter()
        .map(|(line, v)| (format!("HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 3\r\n\r\nabc"), *v))
        .collect();
    answers(&messages, 20).await;
}

#[tokio::test]
async fn framing_of_instances() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let leftover = format!("Content-Length: 3\r\n\r\nabc{poison}");
    let leftover_chunked = format!("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{poison}");
    let leftover_empty = format!("Content-Length: 0\r\n\r\n{poison}");
    let framings: &[(&str, Verdict)] = &[
        ("Content-Length: 3\r\n\r\nabc", Whole("abc")),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Whole("abc")),
        ("Transfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n", Whole("abc")),
        (&leftover, Either("abc")),
        (&leftover_chunked, Either("abc")),
        (&leftover_empty, Either("")),
        ("Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Bad),
        ("Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", Bad),
        ("Content-Length: 4\r\nContent-Length: 3\r\n\r\nabcd", Bad),
        ("Content-Length: 3, 3\r\n\r\nabc", Bad),
        ("Content-Length: 3, 4\r\n\r\nabcd", Bad),
        ("Content-Length:\r\n\r\nabc", Bad),
        ("Content-Length: +3\r\n\r\nabc", Bad),
        ("Content-Length: -3\r\n\r\nabc", Bad),
        ("Content-Length: 0x3\r\n\r\nabc", Bad),
        ("Content-Length: 3a\r\n\r\nabc", Bad),
        ("Content-Length: 3 3\r\n\r\nabc", Bad),
        ("Content-Length: 3.0\r\n\r\nabc", Bad),
        ("Content-Length: three\r\n\r\nabc", Bad),
        ("Content-Length: 18446744073709551619\r\n\r\nabc", Bad),
        ("Content-Length: 99999999999999999999999\r\n\r\nabc", Bad),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Either("abc")),
        ("Transfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Either("abc")),
        ("Transfer-Encoding: gzip\r\n\r\nabc", Bad),
        ("Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", Bad),
        ("Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Bad),
        ("Transfer-Encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Bad),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Bad),
        ("Transfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", Bad),
        ("Transfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc", Bad),
        ("Content-Length: 10\r\n\r\nabc", Cut),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Cut),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", Cut),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nabc", Cut),
        ("Transfer-Encoding: chunked\r\n\r\n", Cut),
        ("Transfer-Encoding: chunked\r\n\r\nxyz\r\n", Cut),
        ("Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n", Cut),
        ("Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", Cut),
        ("Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", Cut),
        ("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nabc\r\n0\r\n\r\n", Cut),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", Cut),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc0\r\n\r\n", Cut),
        ("Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n", Cut),
    ];
    let messages: Vec<_> =
        framings.iter().map(|(rest, v)| (format!("HTTP/1.1 200 OK\r\n{rest}"), *v)).collect();
    answers(&messages, 40).await;
}

#[tokio::test]
async fn a_refused_method_is_told_which_ones_are_not() {
    let origin = telling_origin().await;
    let edge = Edge::serving(&origin).start().await;
    let said = edge.client.raw("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(
        String::from_utf8_lossy(&said)
            .contains("\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n")
    );
    edge.finish().await;
}

#[tokio::test]
async fn what_no_key_holds_cannot_shape_what_others_get() {
    let origin = Origin::new().on("*", echo().cache("max-age=60")).start().await;
    let edge = Edge::serving(&origin).start().await;
    let claims = [
        "X-Forwarded-Host",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Scheme",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-Path",
        "X-Forwarded-URI",
        "X-Forwarded",
        "Forwarded",
        "X-Original-URL",
        "X-Original-URI",
        "X-Original-Host",
        "X-Rewrite-URL",
        "X-Override-URL",
        "X-Host",
        "X-HTTP-Host-Override",
        "X-HTTP-Method",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X-Real-IP",
        "X-Client-IP",
        "Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Request-ID",
        "X-Scheme",
        "X-URL-Scheme",
        "X_Forwarded_Host",
        "Proxy",
        "Proxy-Authorization",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Upgrade",
        "Connection",
    ];
    for (number, name) in claims.iter().enumerate() {
        let target = format!("/{number}");
        edge.request("GET", &target).header(name, "evil.example").send().await.expect(200);
        let other = edge.get(&target).await.expect(200).text();
        assert!(!other.contains("evil.example"), "{name}: {other}");
    }
    // Content, too, would shape the answer: it is passed on, and the answer is nobody else's.
    edge.request("GET", "/content").body("evil.example").send().await.expect(200);
    assert!(origin.last("/content").body == b"evil.example");
    assert!(!edge.get("/content").await.expect(200).text().contains("evil.example"));
    edge.request("GET", "/chunks").chunks(["evil.example"]).send().await.expect(200);
    assert!(!edge.get("/chunks").await.expect(200).text().contains("evil.example"));
    edge.finish().await;
    origin.finish().await;
}

#[tokio::test]
async fn bytes_sent_ahead_of_an_upgrade_reach_no_instance() {
    let answer = Gate::new("the answer");
    let origin = Origin::new()
        .on("/ws", origin::upgrade().gate(&answer))
        .on_request("/*", |request| reply(200).cache("no-store").body(request.target.clone()))
        .start()
        .await;
    let edge = Edge::serving(&origin).without_cache().start().await;
    let mut connection = edge.client.connect().await;
    connection
        .write(
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
    connection.read_to_close().await;
    answer.release();
    edge.get("/own").await.expect(200).body("/own");
    let seen = origin.requests();
    assert!(
        seen.iter().all(|request| !request.target.contains("smuggled") && request.body.is_empty()),
        "{seen:?}"
    );
    edge.finish().await;
    origin.finish().await;
}

#[tokio::test]
async fn an_unfinished_upload_is_never_finished_for_the_client() {
    let origin = telling_origin().await;
    let edge = Edge::serving(&origin).without_cache().start().await;
    let heads = [
        "Content-Length: 10\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
    ];
    for rest in heads {
        for reset in [false, true] {
            let before = origin.requests().len();
            let mut connection = edge.client.connect().await;
            connection.write(format!("POST /cut HTTP/1.1\r\nHost: a\r\n{rest}")).await;
            origin.wait_for_requests(before + 1).await;
            if reset {
                connection.reset();
            } else {
                connection.finish_writing().await;
                connection.read_to_close().await;
            }
            edge.get("/own").await.expect(200).body("GET /own");
        }
    }
    edge.finish().await;
    assert!(origin.requests().iter().all(|request| request.target == "/own" || !request.complete));
    origin.finish().await;
}

#[tokio::test]
async fn a_cut_off_client_learns_why_even_while_it_is_sending() {
    let origin = telling_origin().await;
    let edge = Edge::serving(&origin).without_cache().start().await;
    for (content, status) in
        [("Content-Length: 100000000", 413), ("Content-Length: x", 400), ("Transfer-Encoding: chunked", 400)]
    {
        let mut connection = edge.client.connect().await;
        connection.write(format!("POST / HTTP/1.1\r\nHost: a\r\n{content}\r\n\r\n")).await;
        // No chunk begins like this.
        let _ = connection.try_write(vec![b'x'; 100_000]).await;
        connection.read_answer("POST").await.expect(status);
    }
    edge.finish().await;
    origin.finish().await;
}

#[tokio::test]
async fn requests_that_come_while_another_is_served_wait_their_turn() {
    let answer = Gate::new("the answer");
    let origin = Origin::new()
        .on("/slow", reply(200).body("slow").gate(&answer))
        .on_request("/*", |request| reply(200).cache("no-store").body(request.target.clone()))
        .start()
        .await;
    let edge = Edge::serving(&origin).without_cache().start().await;
    let mut connection = edge.client.connect().await;
    connection.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.wait_for_hits("/slow", 1).await;
    connection.write("GET /second HTTP/1.1\r\nHost: a\r\n\r\nGET /thi").await;
    edge.get("/other").await.expect(200).body("/other");
    answer.release();
    connection.read_answer("GET").await.expect(200).body("slow");
    connection.read_answer("GET").await.expect(200).body("/second");
    connection.write("rd HTTP/1.1\r\nHost: a\r\n\r\n").await;
    connection.read_answer("GET").await.expect(200).body("/third");
    edge.finish().await;
}
