//! Instances are asked whether they are well: what is asked, what counts as well, and how fast what they say takes effect.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::ssl::{NameType, Ssl, SslAcceptor, SslMethod};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::edge::{Configuration, Edge};
use crate::support::origin::{self, Origin, reply};
use crate::support::poll_until;

async fn instance(name: &'static str) -> Origin {
    Origin::new().on_request("*", move |_| reply(200).cache("no-store").body(name)).start().await
}

fn checked(instances: &[SocketAddr], health: &str) -> Configuration {
    Edge::before(instances).without_cache().upstream(&format!("health = {{ {health} }}"))
}

async fn until_up(edge: &Edge, up: &[bool]) {
    poll_until(&format!("the instances to be up: {up:?}"), || async { edge.up() == up }).await;
}

/// So many checks of `/ready` have come since.
async fn more_checks(origin: &Origin, count: usize) {
    origin.wait_for_hits("/ready", origin.hits("/ready") + count).await;
}

#[tokio::test]
async fn an_instance_that_answers_503_is_out_after_one_check_and_back_after_rise() {
    let (a, b) = (instance("a").await, instance("b").await);
    let edge = checked(
        &[a.address(), b.address()],
        "path = \"/ready\", every = \"50ms\", timeout = \"5s\", fall = 1000, rise = 3",
    );
    let edge = edge.start().await;
    more_checks(&b, 1).await;
    b.set("/ready", reply(503));
    let before = b.hits("/ready");
    until_up(&edge, &[true, false]).await;
    let needed = b.hits("/ready") - before;
    assert!(needed <= 2, "{needed} checks; one may have been under way");
    for _ in 0..10 {
        edge.get("/").await.expect(200).body("a");
    }
    b.set("/ready", reply(200));
    let before = b.hits("/ready");
    until_up(&edge, &[true, true]).await;
    let needed = b.hits("/ready") - before;
    assert!((3..=4).contains(&needed), "{needed} checks");
    edge.finish().await;
}

#[tokio::test]
async fn which_statuses_withdraw_is_for_the_operator_to_say() {
    let a = instance("a").await;
    let health = "path = \"/ready\", every = \"20ms\", timeout = \"5s\", fall = 1000, rise = 1";
    for (more, status, withdraws) in [
        ("", 503, true),
        ("", 500, false),
        (", withdraw = [429]", 429, true),
        (", withdraw = []", 503, false),
    ] {
        a.set("/ready", reply(200));
        let edge = checked(&[a.address()], &format!("{health}{more}")).start().await;
        more_checks(&a, 1).await;
        a.set("/ready", reply(status));
        if withdraws {
            until_up(&edge, &[false]).await;
        } else {
            more_checks(&a, 10).await;
            assert_eq!(edge.up(), [true], "{status} with {more:?} is one failure of many");
        }
        edge.finish().await;
    }
}

#[tokio::test]
async fn what_the_answer_holds_tells_whether_an_instance_is_well() {
    for (rule, well, unwell) in [
        ("contains = \"ready\"", "all ready", "starting"),
        ("matches = \"^v[0-9]+$\"", "v12", "v12 (old)"),
        (
            "json = { at = \"/checks/db\", is = \"up\" }",
            r#"{"checks":{"db":"up"}}"#,
            r#"{"checks":{"db":"down"}}"#,
        ),
        ("json = { at = \"ready\", is = \"true\" }", r#"{"ready":true}"#, "not JSON at all"),
    ] {
        let a = Origin::new().on("/ready", reply(200).body(well)).start().await;
        let health =
            format!("path = \"/ready\", every = \"20ms\", timeout = \"5s\", fall = 2, rise = 1, {rule}");
        let edge = checked(&[a.address()], &health).start().await;
        more_checks(&a, 4).await;
        assert_eq!(edge.up(), [true], "{rule}");
        a.set("/ready", reply(200).chunk(unwell));
        until_up(&edge, &[false]).await;
        a.set("/ready", reply(200).chunk(well));
        until_up(&edge, &[true]).await;
        edge.finish().await;
    }
}

/// An instance that says without end that it is well: so much is read, and no more.
#[tokio::test]
async fn no_more_than_64_kib_of_an_answer_is_looked_at() {
    let long = "x".repeat(80 * 1024) + "ready";
    let a = Origin::new().on("/ready", reply(200).body(long)).start().await;
    let health =
        "path = \"/ready\", every = \"20ms\", timeout = \"5s\", fall = 1, rise = 1, contains = \"ready\"";
    let edge = checked(&[a.address()], health).start().await;
    until_up(&edge, &[false]).await;
    a.set("/ready", reply(200).body("x".repeat(60 * 1024) + "ready"));
    until_up(&edge, &[true]).await;
    edge.finish().await;
}

#[tokio::test]
async fn checks_may_ask_another_port_and_another_host() {
    let (a, doctor) = (instance("a").await, instance("doctor").await);
    let port = doctor.address().port();
    let health = format!(
        "path = \"/ready\", every = \"20ms\", timeout = \"5s\", port = {port}, host = \"health.test\""
    );
    let edge = checked(&[a.address()], &health).start().await;
    more_checks(&doctor, 2).await;
    assert_eq!(doctor.last("/ready").header("host"), Some("health.test"));
    doctor.set("/ready", reply(503));
    until_up(&edge, &[false]).await;
    edge.get("/").await.expect(200).body("a");
    assert_eq!(a.hits("/ready"), 0);
    edge.finish().await;
}

#[tokio::test]
async fn who_is_down_is_asked_at_its_own_pace() {
    let a = instance("a").await;
    a.set("/ready", reply(503));
    let health = "path = \"/ready\", every = \"1h\", every_down = \"20ms\", timeout = \"5s\", rise = 1";
    let edge = checked(&[a.address()], health).start().await;
    until_up(&edge, &[false]).await;
    a.set("/ready", reply(200));
    until_up(&edge, &[true]).await;
    edge.finish().await;
}

#[tokio::test]
async fn an_instance_that_must_prove_itself_gets_nothing_before_its_first_success() {
    let (a, b) = (instance("a").await, instance("b").await);
    b.set("/ready", origin::hang());
    let health = "path = \"/ready\", every = \"20ms\", timeout = \"5s\", rise = 3, start = \"down\"";
    let edge = checked(&[a.address(), b.address()], health).start().await;
    assert_eq!(edge.up(), [false, false]);
    let series = format!("vanne_upstream_up{{instance=\"{}\",upstream=\"api\"}}", b.address());
    assert_eq!(edge.metric(&series), Some(0.0));
    until_up(&edge, &[true, false]).await;
    assert!(a.hits("/ready") <= 2, "one success is proof: {}", a.hits("/ready"));
    for _ in 0..6 {
        edge.get("/").await.expect(200).body("a");
    }
    edge.finish().await;
}

/// What an instance speaks, and what it says of itself in gRPC: 1 is SERVING.
#[derive(Clone)]
struct Grpc {
    serving: Arc<AtomicU8>,
    asked: watch::Sender<Vec<(String, Vec<u8>)>>,
}

impl Grpc {
    async fn start() -> (Self, SocketAddr) {
        let grpc = Self { serving: Arc::new(AtomicU8::new(1)), asked: watch::Sender::new(Vec::new()) };
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("the address of a bound socket");
        let served = grpc.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let served = served.clone();
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, answer))) = connection.accept().await {
                        tokio::spawn(served.clone().answer(request, answer));
                    }
                });
            }
        });
        (grpc, address)
    }

    async fn answer(
        self,
        request: http::Request<h2::RecvStream>,
        mut answer: h2::server::SendResponse<Bytes>,
    ) {
        let path = request.uri().path().to_owned();
        let mut body = request.into_body();
        let mut message = Vec::new();
        while let Some(Ok(piece)) = body.data().await {
            message.extend_from_slice(&piece);
        }
        self.asked.send_modify(|asked| asked.push((path, message)));
        let head =
            http::Response::builder().header("content-type", "application/grpc").body(()).expect("a head");
        let mut stream = answer.send_response(head, false).expect("an open stream");
        let serving = self.serving.load(Ordering::SeqCst);
        let _ = stream.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, serving]), false);
        let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let _ = stream.send_trailers(trailers);
    }
}

#[tokio::test]
async fn grpc_instances_are_asked_in_their_own_protocol() {
    let (grpc, address) = Grpc::start().await;
    let health =
        "type = \"grpc\", service = \"api\", every = \"20ms\", timeout = \"5s\", fall = 1000, rise = 1";
    let edge = checked(&[address], health).start().await;
    let mut asked = grpc.asked.subscribe();
    asked.wait_for(|asked| asked.len() >= 3).await.expect("asked");
    let first = asked.borrow()[0].clone();
    assert_eq!(first, ("/grpc.health.v1.Health/Check".to_owned(), b"\0\0\0\0\x05\x0a\x03api".to_vec()));
    assert_eq!(edge.up(), [true]);
    let failures = |edge: &Edge| {
        let series = "vanne_health_checks_total{instance=\"ADDRESS\",result=\"failure\",upstream=\"api\"}";
        edge.metric(&series.replace("ADDRESS", &address.to_string()))
    };
    assert_eq!(failures(&edge), Some(0.0));
    grpc.serving.store(2, Ordering::SeqCst);
    until_up(&edge, &[false]).await;
    grpc.serving.store(1, Ordering::SeqCst);
    until_up(&edge, &[true]).await;
    edge.finish().await;
}

/// A certificate for `name`, signed by itself, and its key.
fn certificate(name: &str) -> (X509, PKey<openssl::pkey::Private>) {
    let key = PKey::ec_gen("prime256v1").expect("a key");
    let mut subject = X509NameBuilder::new().expect("a name");
    subject.append_entry_by_text("CN", name).expect("a name");
    let subject = subject.build();
    let mut builder = X509Builder::new().expect("a certificate");
    builder.set_version(2).expect("version 3");
    builder.set_serial_number(&BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap()).expect("a number");
    builder.set_subject_name(&subject).expect("a subject");
    builder.set_issuer_name(&subject).expect("an issuer");
    builder.set_pubkey(&key).expect("a key");
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).expect("a date");
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).expect("a date");
    let names =
        SubjectAlternativeName::new().dns(name).build(&builder.x509v3_context(None, None)).expect("a name");
    builder.append_extension(names).expect("room");
    builder.sign(&key, MessageDigest::sha256()).expect("a signature");
    (builder.build(), key)
}

/// An instance that answers 200 to everything over TLS, and tells which names it was asked for.
async fn over_tls(
    certificate: &X509,
    key: &PKey<openssl::pkey::Private>,
) -> (SocketAddr, watch::Receiver<Vec<String>>) {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("an acceptor");
    acceptor.set_certificate(certificate).expect("a certificate");
    acceptor.set_private_key(key).expect("its key");
    let acceptor = acceptor.build();
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("the address of a bound socket");
    let (told, names) = watch::channel(Vec::new());
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let (acceptor, told) = (acceptor.clone(), told.clone());
            tokio::spawn(async move {
                let ssl = Ssl::new(acceptor.context()).expect("a session");
                let mut stream = tokio_openssl::SslStream::new(ssl, stream).expect("a stream");
                if std::pin::Pin::new(&mut stream).accept().await.is_err() {
                    return;
                }
                let name = stream.ssl().servername(NameType::HOST_NAME).unwrap_or_default().to_owned();
                told.send_modify(|names| names.push(name));
                let mut head = [0; 1024];
                if matches!(stream.read(&mut head).await, Ok(1..)) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    (address, names)
}

#[tokio::test]
async fn checks_over_tls_verify_the_instance() {
    let (certificate, key) = certificate("api.internal");
    let (address, mut names) = over_tls(&certificate, &key).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), certificate.to_pem().expect("PEM")).expect("written");
    let ca = file.path().display();
    let base = "every = \"20ms\", timeout = \"5s\", fall = 1, rise = 1, start = \"down\"";
    for (tls, well) in [
        (format!("tls = {{ sni = \"api.internal\", ca = \"{ca}\" }}"), true),
        (format!("tls = {{ sni = \"other.internal\", ca = \"{ca}\" }}"), false),
        ("tls = { sni = \"api.internal\" }".to_owned(), false),
        ("tls = { verify = false }".to_owned(), true),
    ] {
        for kind in ["type = \"tcp\"", "path = \"/ready\""] {
            let edge = checked(&[address], &format!("{kind}, {base}, {tls}")).start().await;
            if well {
                until_up(&edge, &[true]).await;
            } else {
                let series = format!(
                    "vanne_health_checks_total{{instance=\"{address}\",result=\"failure\",upstream=\"api\"}}"
                );
                poll_until("some checks to fail", || async { edge.metric(&series) >= Some(3.0) }).await;
                assert_eq!(edge.up(), [false], "{kind}, {tls}");
            }
            edge.finish().await;
        }
    }
    let names = names.borrow_and_update();
    assert!(names.iter().any(|name| name == "api.internal"), "{names:?}");
}

#[tokio::test]
async fn certificates_that_cannot_be_read_keep_the_gateway_from_starting() {
    let configuration = checked(
        &["127.0.0.1:9".parse().unwrap()],
        "path = \"/ready\", tls = { ca = \"/nowhere/instances.pem\" }",
    );
    let error = configuration.fails_to_start().await;
    assert!(error.contains("upstreams.api.health.tls.ca: "), "{error}");
}

/// Three of four instances are down. Where that is too few, all are used: the one that is left could not hold what four did.
#[tokio::test]
async fn while_too_few_are_up_all_are_used() {
    let origins = [instance("a").await, instance("b").await, instance("c").await, instance("d").await];
    let addresses: Vec<_> = origins.iter().map(Origin::address).collect();
    for (panic, used) in [(0, 1), (25, 1), (50, 4)] {
        origins.iter().for_each(|origin| origin.set("/ready", reply(200)));
        let health = "path = \"/ready\", every = \"20ms\", timeout = \"5s\", rise = 1";
        let edge = Edge::before(&addresses)
            .without_cache()
            .upstream(&format!("health = {{ {health} }}\npanic = {panic}"))
            .start()
            .await;
        for origin in &origins[1..] {
            origin.set("/ready", reply(503));
        }
        until_up(&edge, &[true, false, false, false]).await;
        let mut seen = std::collections::HashSet::new();
        for _ in 0..8 {
            seen.insert(edge.get("/").await.expect(200).text());
        }
        assert_eq!(seen.len(), used, "panic = {panic}");
        let told = edge.metric("vanne_upstream_panic{upstream=\"api\"}");
        assert_eq!(told, Some(f64::from(u8::from(panic == 50))));
        origins[1].set("/ready", reply(200));
        until_up(&edge, &[true, true, false, false]).await;
        for _ in 0..8 {
            let name = edge.get("/").await.expect(200).text();
            assert!(name == "a" || name == "b", "{name}: half are up, which is enough");
        }
        assert_eq!(edge.metric("vanne_upstream_panic{upstream=\"api\"}"), Some(0.0));
        edge.finish().await;
    }
}
