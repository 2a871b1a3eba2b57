//! Behind a CDN: who the client is, and what the CDN is told.

use crate::edge::Edge;
use crate::support::origin::{Origin, reply};

/// What the instance is told about who asks.
async fn echo() -> Origin {
    Origin::new()
        .on_request("*", |request| {
            reply(200).body(request.header("x-forwarded-for").unwrap_or_default().to_owned())
        })
        .start()
        .await
}

#[tokio::test]
async fn the_field_of_a_cdn_names_the_client_when_the_cdn_is_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("proxies.txt");
    for (field, line, named) in [
        ("CF-Connecting-IP", "192.0.2.1", "192.0.2.1"),
        ("CloudFront-Viewer-Address", "2001:db8::1:46532", "2001:db8::1"),
    ] {
        for (networks, trusted) in [("# ours\n127.0.0.0/8\n::1\n", true), ("10.0.0.0/8\n", false)] {
            std::fs::write(&list, networks).expect("a file");
            let origin = echo().await;
            let logged = folder.path().join(format!("{field}-{trusted}.log"));
            let edge = Edge::serving(&origin)
                .without_cache()
                .also(&format!(
                    "[log]\naccess = \"{}\"\n[server]\ntrusted_proxies_file = \"{}\"\nclient_address = \"{field}\"",
                    logged.display(),
                    list.display()
                ))
                .start()
                .await;
            edge.request("GET", "/").header(field, line).send().await.expect(200);
            edge.finish().await;
            let line = std::fs::read_to_string(&logged).expect("the access log");
            let client = if trusted { named } else { "127.0.0.1" };
            assert!(line.contains(&format!("\"client\":\"{client}\"")), "{field}, {networks:?}: {line}");
        }
    }
}
