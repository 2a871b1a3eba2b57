//! How instances are spoken to: under TLS, over HTTP/2, and gRPC through both.

use bytes::Bytes;
use openssl::ssl::SslVerifyMode;

use crate::edge::{Configuration, Edge};
use crate::support::http2::{Client, Instance};
use crate::support::origin::{Origin, reply};
use crate::support::secured::{Authority, Files, Front};
use crate::support::within;

/// A gateway before instances under TLS, known to it as `api.internal`.
struct Secure {
    root: Authority,
    files: Files,
}

impl Secure {
    fn new() -> Self {
        let secure = Self { root: Authority::new("Instances"), files: Files::new() };
        secure.files.write("ca.pem", &secure.root.pem());
        secure
    }

    fn tls(&self, more: &str) -> String {
        let ca = self.files.path("ca.pem").display().to_string();
        format!("tls = {{ ca = \"{ca}\", sni = \"api.internal\"{more} }}\n")
    }
}

fn before(instance: std::net::SocketAddr, lines: &str) -> Configuration {
    Edge::before(&[instance]).upstream(lines)
}

#[tokio::test]
async fn requests_go_to_instances_under_tls_both_ways() {
    let secure = Secure::new();
    let origin = Origin::new().on("/stored", reply(200).cache("max-age=60").body("stored"));
    let origin = origin.on("*", reply(200).cache("no-store").body("hello")).start().await;
    let front = Front::before(origin.address(), secure.root.issue(&["api.internal"]).server(|_| {})).await;
    let edge = before(front.address, &secure.tls("")).start().await;
    edge.get("/stored").await.expect(200).body("stored").cache("fwd=uri-miss");
    edge.get("/stored").await.expect(200).body("stored").cache("hit");
    edge.client.post("/passed", "content").await.expect(200).body("hello");
    assert_eq!(origin.last("/passed").body, b"content");
    // The connection is kept for the next.
    edge.client.post("/passed", "content").await.expect(200);
    assert!(front.met().iter().all(|met| *met == ("api.internal".to_owned(), None)), "{:?}", front.met());
    assert!(front.met().len() <= 2, "{:?}", front.met());
    // Whether clients came over TLS is another matter.
    assert_eq!(origin.last("/passed").header("x-forwarded-proto"), Some("http"));
    edge.finish().await;
}

#[tokio::test]
async fn an_instance_that_is_not_who_it_should_be_gets_nothing() {
    let secure = Secure::new();
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let stranger = Authority::new("Stranger").issue(&["api.internal"]);
    let misnamed = secure.root.issue(&["other.internal"]);
    let expired = secure.root.issue_within(&["api.internal"], (-10, -1));
    for (what, shown) in [("a stranger", stranger), ("misnamed", misnamed), ("expired", expired)] {
        let front = Front::before(origin.address(), shown.server(|_| {})).await;
        for cached in [false, true] {
            let edge = before(front.address, &secure.tls(""));
            let edge = if cached { edge } else { edge.without_cache() }.start().await;
            edge.get("/").await.expect(502);
            assert!(origin.requests().iter().all(|request| request.target == "/trusted"), "{what}");
            edge.finish().await;
        }
        let trusting = before(front.address, &secure.tls(", verify = false")).without_cache().start().await;
        trusting.get("/trusted").await.expect(200);
        trusting.finish().await;
    }
}

#[tokio::test]
async fn we_show_our_certificate_to_instances_that_ask() {
    let secure = Secure::new();
    secure.files.pair("gateway", &secure.root.issue_for(&[("CN", "gateway")], &["gateway"], (-1, 30)));
    let origin = Origin::new().on("*", reply(200).cache("no-store").body("x")).start().await;
    let asks = secure.root.issue(&["api.internal"]).server(|context| {
        let mut store = openssl::x509::store::X509StoreBuilder::new().unwrap();
        for root in openssl::x509::X509::stack_from_pem(&secure.root.pem()).unwrap() {
            store.add_cert(root).unwrap();
        }
        context.set_cert_store(store.build());
        context.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    });
    let front = Front::before(origin.address(), asks).await;
    let path = |end: &str| secure.files.path(&format!("gateway.{end}")).display().to_string();
    let own = format!(", cert = \"{}\", key = \"{}\"", path("pem"), path("key"));
    let edge = before(front.address, &secure.tls(&own)).start().await;
    edge.get("/").await.expect(200);
    assert_eq!(front.met(), [("api.internal".to_owned(), Some("gateway".to_owned()))]);
    edge.finish().await;
    let bare = before(front.address, &secure.tls("")).start().await;
    bare.get("/").await.expect(502);
    bare.finish().await;
}

#[tokio::test]
async fn checks_go_the_way_of_requests() {
    let secure = Secure::new();
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let front = Front::before(origin.address(), secure.root.issue(&["api.internal"]).server(|_| {})).await;
    let lines =
        format!("{}health = {{ path = \"/ready\", every = \"20ms\", start = \"down\" }}\n", secure.tls(""));
    let edge = before(front.address, &lines).start().await;
    origin.wait_for_hits("/ready", 2).await;
    crate::support::poll_until("the instance to be up", || async { edge.up() == [true] }).await;
    edge.finish().await;
}

#[tokio::test]
async fn instances_of_http2_are_spoken_to_both_ways() {
    let secure = Secure::new();
    let server = secure.root.issue(&["api.internal"]).server(|context| {
        context.set_alpn_select_callback(|_, theirs| {
            openssl::ssl::select_next_proto(b"\x02h2", theirs).ok_or(openssl::ssl::AlpnError::ALERT_FATAL)
        });
    });
    for (instance, lines, scheme) in [
        (Instance::start(None).await, "http = \"http2\"\n".to_owned(), "http"),
        (Instance::start(Some(server)).await, format!("http = \"http2\"\n{}", secure.tls("")), "https"),
    ] {
        let edge = before(instance.address, &lines).start().await;
        edge.get("/stored").await.expect(200).body("stored").cache("fwd=uri-miss");
        edge.get("/stored").await.expect(200).body("stored").cache("hit");
        edge.client.post("/echo", "content").await.expect(200).body("content");
        let got = instance.received();
        assert_eq!(got.len(), 2);
        for received in &got {
            assert!(received.uri.starts_with(&format!("{scheme}://edge.test/")), "{received:?}");
            assert_eq!(received.fields.get("x-forwarded-for").unwrap(), "127.0.0.1");
            assert!(!received.fields.contains_key("host") && !received.fields.contains_key("connection"));
        }
        assert_eq!((got[1].method.as_str(), &got[1].body[..]), ("POST", &b"content"[..]));
        // Many at once share a connection.
        let before = instance.connections();
        let all = (0..20).map(|i| {
            let client = edge.client.clone();
            tokio::spawn(async move {
                client.post("/echo", format!("{i}")).await.expect(200).body(format!("{i}"))
            })
        });
        for one in all.collect::<Vec<_>>() {
            one.await.unwrap();
        }
        assert!(instance.connections() - before < 20, "{} connections", instance.connections());
        edge.client.post("/cut", "content").await;
        edge.finish().await;
    }
}

#[tokio::test]
async fn grpc_passes_with_its_trailers_and_in_both_directions_at_once() {
    let instance = Instance::start(None).await;
    let edge = before(instance.address, "http = \"http2\"\n")
        .listen("http = \"http2\"")
        .without_cache()
        .start()
        .await;
    let client = within("a connection", Client::connect(edge.address(0))).await;
    let call = |path: &str| {
        client.request("POST", path).header("content-type", "application/grpc").header("te", "trailers")
    };
    // One question, one answer.
    let answer =
        client.send(call("/echo"), Some(b"\0\0\0\0\x02hi")).await.expect(200).body(b"\0\0\0\0\x02hi");
    assert_eq!(answer.header("content-type"), Some("application/grpc"));
    let trailers = answer.trailers.expect("trailers");
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");
    assert_eq!(trailers.get("grpc-message").unwrap(), "told");
    assert_eq!(instance.received()[0].fields.get("te").unwrap(), "trailers");
    // A failure that has no content.
    let failed = client.send(call("/fails"), Some(b"")).await.expect(200).body("");
    assert_eq!(failed.header("grpc-status"), Some("5"));
    // Each piece is answered before the next is sent.
    let (response, mut up) = client.begin(call("/echo"), false).await.unwrap();
    up.send_data(Bytes::from_static(b"first"), false).unwrap();
    let (head, mut down) = within("a head", response).await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(within("the first", down.data()).await.unwrap().unwrap(), "first");
    up.send_data(Bytes::from_static(b"second"), true).unwrap();
    assert_eq!(within("the second", down.data()).await.unwrap().unwrap(), "second");
    while let Some(rest) = within("the end", down.data()).await {
        assert!(rest.unwrap().is_empty());
    }
    let trailers = within("trailers", down.trailers()).await.unwrap().expect("trailers");
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");
    // A stream that breaks breaks for the client, too.
    let cut = client.send(call("/cut"), Some(b"x")).await;
    assert!(cut.cut.is_some() || cut.status == 502, "{cut:?}");
    edge.finish().await;
}
