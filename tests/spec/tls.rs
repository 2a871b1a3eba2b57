//! Connections under TLS: which certificate is shown, who may come in, what instances and browsers are told, and files that change.

use openssl::ssl::{SslConnector, SslContextBuilder, SslVersion};
use tokio::net::TcpStream;

use crate::edge::{Configuration, Edge};
use crate::support::client::Client;
use crate::support::origin::{Origin, reply};
use crate::support::process::Program;
use crate::support::secured::{Authority, Files, Issued, NOW, handshake};
use crate::support::{poll_until, within};

/// A gateway whose listener `web` is secured.
struct Secure {
    root: Authority,
    files: Files,
}

impl Secure {
    /// With one pair, `site`, for `edge.test`.
    fn new() -> Self {
        let secure = Self { root: Authority::new("Test Root"), files: Files::new() };
        secure.files.pair("site", &secure.root.issue(&["edge.test"]));
        secure
    }

    /// The `tls` of a listener with these pairs and these further lines.
    fn tls(&self, pairs: &[&str], more: &str) -> String {
        let pairs: Vec<String> = pairs.iter().map(|name| self.files.entry(name)).collect();
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        format!("tls = {{ certificates = [{}]{more} }}\n", pairs.join(", "))
    }

    /// What a client connects with that trusts the root.
    fn client(&self, edge: &Edge) -> Client {
        self.client_with(edge, "edge.test", |_| {})
    }

    fn client_with(&self, edge: &Edge, name: &str, configure: impl FnOnce(&mut SslContextBuilder)) -> Client {
        edge.client.over_tls(self.root.trust(configure), name)
    }

    /// The names of the certificate that a client which asks for `name` is shown; why there is none.
    async fn shown(&self, edge: &Edge, name: &str) -> Result<Vec<String>, String> {
        let mut context = SslConnector::builder(openssl::ssl::SslMethod::tls_client()).unwrap();
        context.set_verify(openssl::ssl::SslVerifyMode::NONE);
        let socket = TcpStream::connect(edge.address(0)).await.unwrap();
        let made = within("a handshake", handshake(&context.build().into_context(), name, socket)).await;
        let made = made.map_err(|error| error.to_string())?;
        let cert = made.ssl().peer_certificate().expect("a server shows a certificate");
        let names = cert.subject_alt_names().unwrap();
        Ok(names.iter().filter_map(|name| name.dnsname().map(str::to_owned)).collect())
    }
}

fn handshakes(edge: &Edge, result: &str) -> f64 {
    let series = format!("vanne_tls_handshakes_total{{listener=\"web\",result=\"{result}\"}}");
    edge.metric(&series).unwrap_or_else(|| panic!("no {series}"))
}

async fn counted(edge: &Edge, result: &str) {
    poll_until(&format!("a handshake to be counted as {result}"), || async {
        handshakes(edge, result) >= 1.0
    })
    .await;
}

fn secure(origin: &Origin, listen: &str) -> Configuration {
    Edge::serving(origin).listen(listen)
}

#[tokio::test]
async fn an_instance_learns_that_a_request_came_over_tls() {
    let secure_ = Secure::new();
    let origin = Origin::new().on("*", reply(200).cache("no-store").body("hello")).start().await;
    for cached in [false, true] {
        let edge = secure(&origin, &secure_.tls(&["site"], ""));
        let edge = if cached { edge } else { edge.without_cache() }.start().await;
        let answer = secure_.client(&edge).get("/a").header("x-forwarded-proto", "http").send().await;
        answer.expect(200).body("hello");
        let got = origin.last("/a");
        assert_eq!(got.header("x-forwarded-proto"), Some("https"));
        assert_eq!(got.header("x-forwarded-port"), Some(edge.address(0).port().to_string().as_str()));
        assert_eq!(got.header("host"), Some("edge.test"));
        assert_eq!(handshakes(&edge, "ok"), 1.0);
        edge.finish().await;
    }
}

#[tokio::test]
async fn a_kept_connection_serves_misses_and_hits_as_without_tls() {
    let secure_ = Secure::new();
    let large = "x".repeat(300_000);
    let origin = Origin::new().on("/large", reply(200).cache("max-age=60").body(large.as_str()));
    let origin = origin.on("*", reply(200).cache("max-age=60").body("small")).start().await;
    let edge = secure(&origin, &secure_.tls(&["site"], "")).start().await;
    let mut connection = secure_.client(&edge).connect().await;
    connection.get("/a").await.expect(200).body("small").cache("fwd=uri-miss");
    connection.get("/a").await.expect(200).body("small").cache("hit");
    connection.get("/large").await.expect(200).body(&large).cache("fwd=uri-miss");
    connection.get("/large").await.expect(200).body(&large).cache("hit");
    connection.request("POST", "/b").body("content").await.expect(200);
    // Two at once: the second waits for its turn.
    connection
        .write("GET /a HTTP/1.1\r\nHost: edge.test\r\n\r\nGET /a HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        .await;
    connection.read_answer("GET").await.expect(200);
    connection.read_answer("GET").await.expect(200);
    assert_eq!(handshakes(&edge, "ok"), 1.0);
    edge.finish().await;
}

#[tokio::test]
async fn what_was_fetched_over_tls_is_not_served_without_it() {
    let secure_ = Secure::new();
    let origin = Origin::new().on("*", reply(200).cache("max-age=60").body("x")).start().await;
    let edge = secure(&origin, &secure_.tls(&["site"], ""))
        .also("[listen.plain]\naddr = \"127.0.0.1:0\"")
        .start()
        .await;
    let client = secure_.client(&edge);
    let plain = Client::new(edge.address(1)).with_host("edge.test");
    client.get("/a").await.expect(200).cache("fwd=uri-miss");
    plain.get("/a").await.expect(200).cache("fwd=uri-miss");
    client.get("/a").await.expect(200).cache("hit");
    plain.get("/a").await.expect(200).cache("hit");
    edge.finish().await;
}

#[tokio::test]
async fn each_name_is_shown_its_certificate() {
    let secure_ = Secure::new();
    secure_.files.pair("wild", &secure_.root.issue(&["*.shop.test", "shop.test"]));
    secure_.files.pair("exact", &secure_.root.issue(&["api.shop.test"]));
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let edge = secure(&origin, &secure_.tls(&["site", "wild", "exact"], "")).start().await;
    for (asked, expected) in [
        ("edge.test", "edge.test"),
        ("EDGE.test", "edge.test"),
        ("shop.test", "*.shop.test"),
        ("www.shop.test", "*.shop.test"),
        ("api.shop.test", "api.shop.test"),
        // A wildcard stands for one label.
        ("a.b.shop.test", "edge.test"),
        ("elsewhere.test", "edge.test"),
        ("", "edge.test"),
    ] {
        let names = secure_.shown(&edge, asked).await.unwrap();
        assert_eq!(names[0], expected, "asked for {asked:?}");
    }
    edge.finish().await;
}

#[tokio::test]
async fn an_unknown_name_is_refused_where_the_operator_wants_it_so() {
    let secure_ = Secure::new();
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let edge = secure(&origin, &secure_.tls(&["site"], "unknown_names = \"refuse\"")).start().await;
    assert!(secure_.shown(&edge, "edge.test").await.is_ok());
    for name in ["elsewhere.test", ""] {
        let why = secure_.shown(&edge, name).await.unwrap_err();
        assert!(why.contains("unrecognized name"), "{why}");
    }
    poll_until("both to be counted", || async { handshakes(&edge, "unknown-name") == 2.0 }).await;
    edge.finish().await;
}

#[tokio::test]
async fn the_profile_says_which_versions_are_spoken() {
    let secure_ = Secure::new();
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    for (profile, version, spoken) in [
        ("intermediate", SslVersion::TLS1_1, false),
        ("intermediate", SslVersion::TLS1_2, true),
        ("intermediate", SslVersion::TLS1_3, true),
        ("modern", SslVersion::TLS1_2, false),
        ("modern", SslVersion::TLS1_3, true),
    ] {
        let edge =
            secure(&origin, &secure_.tls(&["site"], &format!("profile = \"{profile}\""))).start().await;
        let client = secure_.client_with(&edge, "edge.test", |context| {
            // Old versions need old signatures, which clients of today refuse to make, too.
            context.set_cipher_list("ALL:@SECLEVEL=0").unwrap();
            context.set_min_proto_version(Some(version)).unwrap();
            context.set_max_proto_version(Some(version)).unwrap();
        });
        let answer = client.get("/").try_send().await;
        assert_eq!(answer.is_ok(), spoken, "{profile} {version:?}");
        if !spoken {
            counted(&edge, "version").await;
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn ciphers_without_forward_secrecy_are_not_spoken() {
    let secure_ = Secure::new();
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let edge = secure(&origin, &secure_.tls(&["site"], "")).start().await;
    for ciphers in ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384"] {
        let client = secure_.client_with(&edge, "edge.test", |context| {
            context.set_cipher_list(&format!("{ciphers}:@SECLEVEL=0")).unwrap();
            context.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
        });
        assert!(client.get("/").try_send().await.is_err(), "{ciphers}");
    }
    counted(&edge, "cipher").await;
    edge.finish().await;
}

/// What `openssl s_client` tells of a connection over which it gets `/`.
async fn s_client(edge: &Edge, files: &Files, arguments: &[&str]) -> String {
    let request = files.write("request", b"GET / HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n\r\n");
    let mut command = std::process::Command::new("openssl");
    command.args(["s_client", "-servername", "edge.test", "-ign_eof", "-connect"]);
    command.arg(edge.address(0).to_string()).args(arguments);
    let run = tokio::task::spawn_blocking(move || {
        command.stdin(std::fs::File::open(request).unwrap()).output().expect("openssl is installed")
    });
    String::from_utf8_lossy(&within("openssl s_client", run).await.unwrap().stdout).into_owned()
}

#[tokio::test]
async fn a_session_is_resumed_by_a_ticket_unless_the_operator_wants_none() {
    let secure_ = Secure::new();
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    for (tickets, resumed) in [("true", true), ("false", false)] {
        let edge =
            secure(&origin, &secure_.tls(&["site"], &format!("session_tickets = {tickets}"))).start().await;
        for version in ["-tls1_2", "-tls1_3"] {
            let session = secure_.files.path(&format!("session{version}{tickets}"));
            let session = session.to_str().unwrap();
            let first = s_client(&edge, &secure_.files, &[version, "-sess_out", session]).await;
            assert!(first.contains("New, TLSv1"), "{first}");
            if !resumed && !std::path::Path::new(session).exists() {
                continue;
            }
            let second = s_client(&edge, &secure_.files, &[version, "-sess_in", session]).await;
            assert_eq!(second.contains("Reused, TLSv1"), resumed, "{version}: {second}");
            assert!(second.contains("HTTP/1.1 200 OK"), "{second}");
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn what_the_issuer_says_of_revocation_is_stapled() {
    let secure_ = Secure::new();
    // What is stapled is the issuer's to say and the client's to judge; the gateway passes the bytes.
    secure_.files.write("site.ocsp", b"\x30\x03\x0a\x01\x06");
    let entry = secure_.files.entry("site");
    let ocsp = secure_.files.path("site.ocsp").display().to_string();
    let entry = entry.replace(" }", &format!(", ocsp = \"{ocsp}\" }}"));
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let edge = secure(&origin, &format!("tls = {{ certificates = [{entry}] }}")).start().await;
    let told = s_client(&edge, &secure_.files, &["-status"]).await;
    assert!(told.contains("OCSP Response Status: unauthorized (0x6)"), "{told}");
    let plain = secure(&origin, &secure_.tls(&["site"], "")).start().await;
    let told = s_client(&plain, &secure_.files, &["-status"]).await;
    assert!(told.contains("OCSP response: no response sent"), "{told}");
    edge.finish().await;
    plain.finish().await;
}

#[tokio::test]
async fn a_handshake_that_is_not_made_in_time_ends_and_is_counted() {
    let secure_ = Secure::new();
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let edge = secure(&origin, &secure_.tls(&["site"], "handshake_timeout = \"50ms\"")).start().await;
    let mut silent = edge.client.connect().await;
    silent.expect_close().await;
    counted(&edge, "timeout").await;
    secure_.client(&edge).get("/").await.expect(200);
    edge.finish().await;
}

#[tokio::test]
async fn plain_http_on_a_secured_port_is_told_apart() {
    let secure_ = Secure::new();
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let edge = secure(&origin, &secure_.tls(&["site"], "")).start().await;
    edge.client.raw("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n").await;
    counted(&edge, "plain-http").await;
    assert!(origin.requests().is_empty());
    edge.finish().await;
}

#[tokio::test]
async fn the_head_of_a_request_has_its_deadline_under_tls() {
    let secure_ = Secure::new();
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let lines = format!("header_timeout = \"100ms\"\n{}", secure_.tls(&["site"], ""));
    let edge = secure(&origin, &lines).start().await;
    let mut slow = secure_.client(&edge).connect().await;
    slow.write("GET / HTTP/1.1\r\nHost: ").await;
    slow.read_answer("GET").await.expect(408);
    slow.expect_close().await;
    edge.finish().await;
}

#[tokio::test]
async fn connections_in_their_handshake_count_among_those_of_their_address() {
    let secure_ = Secure::new();
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let lines = format!("max_connections_per_address = 2\n{}", secure_.tls(&["site"], ""));
    let edge = secure(&origin, &lines).start().await;
    let first = edge.client.connect().await;
    let second = edge.client.connect().await;
    let client = secure_.client(&edge);
    poll_until("a third to find no room", || async { client.get("/").try_send().await.is_err() }).await;
    drop((first, second));
    poll_until("room to be there again", || async { client.get("/").try_send().await.is_ok() }).await;
    edge.finish().await;
}

#[tokio::test]
async fn a_drain_waits_for_no_handshake() {
    let secure_ = Secure::new();
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let edge = secure(&origin, &secure_.tls(&["site"], "handshake_timeout = \"1h\"")).start().await;
    let _silent = edge.client.connect().await;
    let idle = secure_.client(&edge);
    let mut idle = idle.connect().await;
    idle.get("/").await.expect(200);
    poll_until("both connections", || async { edge.open_connections() == 2 }).await;
    edge.finish().await;
}

#[tokio::test]
async fn browsers_are_told_to_stay_with_https_and_only_over_https() {
    let secure_ = Secure::new();
    let origin =
        Origin::new().on("/own", reply(200).header("strict-transport-security", "max-age=1").body("x"));
    let origin = origin.on("/hit", reply(200).cache("max-age=60").body("x"));
    let origin = origin.on("*", reply(200).cache("no-store").body("x")).start().await;
    let hsts = "hsts = { max_age = \"400d\", subdomains = true }";
    let edge = secure(&origin, &secure_.tls(&["site"], hsts))
        .also("[listen.plain]\naddr = \"127.0.0.1:0\"")
        .also("[[routes]]\nmatch = { path = \"/fixed\" }\nrespond = { body = \"x\" }")
        .also("[[routes]]\nmatch = { path = \"/passed\" }\nupstream = \"api\"")
        .also("[[routes]]\nmatch = { path = \"/only\", method = \"PUT\" }\nrespond = { body = \"x\" }")
        .start()
        .await;
    let name = "strict-transport-security";
    let expected = "max-age=34560000; includeSubDomains";
    let client = secure_.client(&edge);
    let plain = Client::new(edge.address(1)).with_host("edge.test");
    for target in ["/hit", "/hit", "/own", "/other", "/fixed", "/passed"] {
        let answer = client.get(target).await.expect(200);
        assert_eq!(answer.headers(name), [expected], "{target}");
        let told = plain.get(target).await;
        assert!(!told.headers(name).contains(&expected), "{target}");
    }
    let refused = client.get("/a").without_host().send().await.expect(400);
    assert_eq!(refused.headers(name), [expected]);
    edge.finish().await;
}

#[tokio::test]
async fn requests_without_tls_are_sent_to_https() {
    let origin = Origin::new().on("*", reply(200).cache("max-age=60").body("x")).start().await;
    let edge = Edge::serving(&origin).listen("https_port = 443").start().await;
    let answer = edge.client.get("/a/../b?q=1").await.expect(308);
    assert_eq!(answer.header("location"), Some("https://edge.test/b?q=1"));
    assert_eq!(answer.header("strict-transport-security"), None);
    let posted = edge.client.post("/form", "x").await.expect(308);
    assert_eq!(posted.header("location"), Some("https://edge.test/form"));
    // An issuer of certificates asks over plain HTTP, before there is one.
    edge.client.get("/.well-known/acme-challenge/token").await.expect(200).body("x");
    edge.client.get("/.well-known/acme-challenge/../../secret").await.expect(308);
    assert_eq!(origin.requests().len(), 1);
    edge.finish().await;

    let edge = Edge::serving(&origin)
        .listen("https_port = 8443")
        .also("[server]\ntrusted_proxies = [\"127.0.0.1\"]")
        .start()
        .await;
    let answer = edge.client.get("/").await.expect(308);
    assert_eq!(answer.header("location"), Some("https://edge.test:8443/"));
    // Where a trusted proxy took TLS off, the client is there already; hits, too.
    for _ in 0..2 {
        edge.client.get("/c").header("x-forwarded-proto", "https").send().await.expect(200);
    }
    edge.client.get("/c").await.expect(308);
    edge.finish().await;
}

#[tokio::test]
async fn only_clients_with_a_certificate_come_in_where_one_is_required() {
    let secure_ = Secure::new();
    let clients = Authority::new("Clients");
    let ca = secure_.files.write("clients.pem", &clients.pem()).display().to_string();
    let origin = Origin::new().on("*", reply(200).cache("no-store").body("x")).start().await;
    let edge = secure(&origin, &secure_.tls(&["site"], &format!("client_ca = \"{ca}\""))).start().await;
    let with = |issued: &Issued| secure_.client_with(&edge, "edge.test", |context| issued.shown_by(context));
    let alice = clients.issue_for(&[("O", "Ex,ample"), ("CN", "alice")], &[], NOW);
    with(&alice).get("/").header("x-client-cert-subject", "CN=root").send().await.expect(200);
    let got = origin.last("/");
    assert_eq!(got.headers("x-client-cert-subject"), ["CN=alice,O=Ex\\,ample"]);
    let digest = alice.cert.digest(openssl::hash::MessageDigest::sha256()).unwrap();
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(got.headers("x-client-cert-fingerprint"), [digest.as_str()]);
    let der = openssl::base64::encode_block(&alice.cert.to_der().unwrap());
    assert_eq!(got.headers("client-cert"), [format!(":{der}:").as_str()]);

    assert!(secure_.client(&edge).get("/").try_send().await.is_err());
    counted(&edge, "no-certificate").await;
    for stranger in
        [Authority::new("Others").issue(&["mallory"]), clients.issue_within(&["mallory"], (-10, -1))]
    {
        assert!(with(&stranger).get("/").try_send().await.is_err());
    }
    poll_until("both to be counted", || async { handshakes(&edge, "bad-certificate") == 2.0 }).await;
    assert_eq!(origin.requests().len(), 1);
    edge.finish().await;
}

#[tokio::test]
async fn a_client_that_need_not_show_a_certificate_cannot_claim_one() {
    let secure_ = Secure::new();
    let clients = Authority::new("Clients");
    let ca = secure_.files.write("clients.pem", &clients.pem()).display().to_string();
    let origin = Origin::new().on("*", reply(200).cache("no-store").body("x")).start().await;
    let lines = secure_.tls(&["site"], &format!("client_ca = \"{ca}\", client_auth = \"optional\""));
    let edge = secure(&origin, &lines).start().await;
    let claims = ["client-cert", "client-cert-chain", "x-client-cert-subject", "x-client-cert-fingerprint"];
    let mut request = secure_.client(&edge).get("/a");
    for name in claims {
        request = request.header(name, "forged");
    }
    request.send().await.expect(200);
    for name in claims {
        assert_eq!(origin.last("/a").header(name), None, "{name}");
    }
    let bob = clients.issue(&["bob"]);
    let client = secure_.client_with(&edge, "edge.test", |context| bob.shown_by(context));
    client.get("/b").await.expect(200);
    assert_eq!(origin.last("/b").header("x-client-cert-subject"), Some("CN=bob"));
    edge.finish().await;
}

#[tokio::test]
async fn what_is_fetched_for_the_holder_of_a_certificate_is_his_own() {
    let secure_ = Secure::new();
    let clients = Authority::new("Clients");
    let ca = secure_.files.write("clients.pem", &clients.pem()).display().to_string();
    let origin = Origin::new()
        .on("/public", reply(200).cache("public, max-age=60").body("all"))
        .on(
            "/varies",
            reply(200).cache("public, max-age=60").header("vary", "x-client-cert-subject").body("v"),
        )
        .on("*", reply(200).cache("max-age=60").body("secret"))
        .start()
        .await;
    let lines = secure_.tls(&["site"], &format!("client_ca = \"{ca}\", client_auth = \"optional\""));
    let edge = secure(&origin, &lines).start().await;
    let alice = clients.issue(&["alice"]);
    let alice = secure_.client_with(&edge, "edge.test", |context| alice.shown_by(context));
    let anyone = secure_.client(&edge);
    alice.get("/mine").await.expect(200);
    anyone.get("/mine").await.expect(200).cache("fwd=uri-miss");
    // Unless the instance says that all may have it.
    alice.get("/public").await.expect(200);
    anyone.get("/public").await.expect(200).cache("hit");
    // What varies by who asks is not had by claiming to be him.
    alice.get("/varies").await.expect(200);
    alice.get("/varies").await.expect(200).cache("hit");
    anyone.get("/varies").header("x-client-cert-subject", "CN=alice").send().await.cache("fwd=vary-miss");
    edge.finish().await;

    let edge = secure(&origin, &lines).cache("key = { headers = [\"X-Client-Cert-Subject\"] }").start().await;
    let alice = clients.issue(&["alice"]);
    let alice = secure_.client_with(&edge, "edge.test", |context| alice.shown_by(context));
    let anyone = secure_.client(&edge);
    alice.get("/keyed").await.expect(200);
    alice.get("/keyed").await.expect(200).cache("hit");
    let forged = anyone.get("/keyed").header("x-client-cert-subject", "CN=alice").send().await;
    forged.cache("fwd=uri-miss");
    edge.finish().await;
}

#[tokio::test]
async fn a_changed_certificate_is_shown_and_a_broken_one_is_not() {
    let secure_ = Secure::new();
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let edge = secure(&origin, &secure_.tls(&["site"], "reload = \"10ms\"")).start().await;
    let mut old = secure_.client(&edge).connect().await;
    old.get("/").await.expect(200);
    let expiry = format!(
        "vanne_tls_certificate_expiry_timestamp_seconds{{certificate=\"{}\",listener=\"web\"}}",
        secure_.files.path("site.pem").display()
    );
    let before = edge.metric(&expiry).expect("when it expires");
    let in_a_month = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64() + 30.0 * 86_400.0;
    assert!((before - in_a_month).abs() < 3600.0, "{before}");

    // The certificate alone does not fit the key that is there; with its key it does.
    let new = secure_.root.issue_within(&["edge.test", "new.test"], (-1, 60));
    secure_.files.write("site.pem", &new.pem());
    let reloads = |result| format!("vanne_tls_reloads_total{{listener=\"web\",result=\"{result}\"}}");
    poll_until("the mismatch to be counted", || async { edge.metric(&reloads("failed")) == Some(1.0) }).await;
    assert_eq!(secure_.shown(&edge, "edge.test").await.unwrap(), ["edge.test"]);
    secure_.files.write("site.key", &new.key_pem());
    poll_until("the new one to be in use", || async { edge.metric(&reloads("ok")) == Some(1.0) }).await;
    assert_eq!(secure_.shown(&edge, "new.test").await.unwrap(), ["edge.test", "new.test"]);
    let after = edge.metric(&expiry).expect("when the new one expires");
    assert!((after - before - 30.0 * 86_400.0).abs() < 3600.0, "{before} {after}");
    // Connections that stand are not touched.
    old.get("/").await.expect(200);
    edge.finish().await;
}

#[tokio::test]
async fn protocols_that_are_not_http_end_the_handshake() {
    let secure_ = Secure::new();
    let origin = Origin::new().on("*", reply(200).body("x")).start().await;
    let edge = secure(&origin, &secure_.tls(&["site"], "")).start().await;
    let client =
        secure_.client_with(&edge, "edge.test", |context| context.set_alpn_protos(b"\x03ftp").unwrap());
    assert!(client.get("/").try_send().await.is_err());
    counted(&edge, "protocol").await;
    let client =
        secure_.client_with(&edge, "edge.test", |context| context.set_alpn_protos(b"\x08http/1.1").unwrap());
    client.get("/").await.expect(200);
    edge.finish().await;
}

/// What `vanne check` says of a listener with this pair, and its exit code.
async fn checked(files: &Files, command: &str) -> (Option<i32>, String) {
    let text = format!(
        "[listen.web]\naddr = \"127.0.0.1:0\"\ntls = {{ certificates = [{}] }}\n[admin]\naddr = \"off\"\n[[routes]]\nrespond = {{}}\n",
        files.entry("site")
    );
    let program = Program::new(env!("CARGO_BIN_EXE_vanne"));
    let file = program.file("vanne.toml", &text);
    let mut process = program.arg(command).arg("-c").arg(&file).start().await;
    let status = process.wait().await;
    // What it wrote may arrive after its end.
    let said = || process.stderr() + &process.stdout();
    poll_until("it to say something", || async { said().ends_with('\n') }).await;
    (status.code(), said())
}

#[tokio::test]
async fn files_that_cannot_be_used_are_told_before_anybody_meets_them() {
    let root = Authority::new("Test Root");
    let middle = root.below("Middle");
    let right = middle.issue(&["edge.test"]);
    let other = root.issue(&["edge.test"]);
    let swapped = Issued { chain: vec![root.issue(&["x"]).cert], ..right.clone() };
    let nameless = root.issue_for(&[("O", "nobody")], &[], NOW);
    type Write<'a> = &'a dyn Fn(&Files);
    let cases: [(&str, Write<'_>); 8] = [
        ("cannot be read", &|_| {}),
        ("is not the key of the certificate", &|files| {
            files.pair("site", &right);
            files.write("site.key", &other.key_pem());
        }),
        ("everybody on this machine may read this private key (mode 644)", &|files| {
            use std::os::unix::fs::PermissionsExt;
            files.pair("site", &right);
            let open = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(files.path("site.key"), open).unwrap();
        }),
        ("certificate 2 did not issue the one before it", &|files| files.pair("site", &swapped)),
        ("there is no certificate in PEM in it", &|files| {
            files.pair("site", &right);
            files.write("site.pem", b"hello");
        }),
        ("there is no private key in PEM without a password in it", &|files| {
            files.pair("site", &right);
            let cipher = openssl::symm::Cipher::aes_128_cbc();
            let locked = right.key.private_key_to_pem_pkcs8_passphrase(cipher, b"secret").unwrap();
            files.write("site.key", &locked);
        }),
        ("the certificate is for no name", &|files| files.pair("site", &nameless)),
        ("ok (1 listener", &|files| files.pair("site", &right)),
    ];
    for (expected, write) in cases {
        let files = Files::new();
        write(&files);
        let (code, said) = checked(&files, "check").await;
        assert!(said.contains(expected), "{expected} in {said}");
        let right = expected.starts_with("ok");
        assert_eq!(code, Some(if right { 0 } else { 78 }), "{said}");
        if !right {
            let (code, said) = checked(&files, "run").await;
            assert!(said.contains(expected) && code != Some(0), "{code:?} {said}");
        }
    }
}

#[tokio::test]
async fn a_certificate_out_of_its_time_fails_the_check() {
    let root = Authority::new("Test Root");
    for (days, expected) in [((-10, -1), "has expired"), ((1, 10), "is not valid yet")] {
        let files = Files::new();
        files.pair("site", &root.issue_within(&["edge.test"], days));
        let (code, said) = checked(&files, "check").await;
        assert!(said.contains(expected) && code == Some(78), "{code:?} {said}");
    }
}
