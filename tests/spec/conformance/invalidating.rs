//! What a change makes invalid (RFC 9111 §4.4).

use super::Bench;

const HOUR: &str = "cache-control: max-age=3600";

/// Stores `target`, sends a change to `to` and tells whether `target` is still served from storage.
async fn survives(bench: &Bench, target: &str, to: &str, method: &str, status: u16, lines: &str) -> bool {
    bench.answer(target, 200, HOUR, "v1");
    bench.get(target, "").await.expect(200);
    bench.answer(to, status, lines, "");
    bench.ask(method, to, "").await.expect(status);
    bench.answer(target, 200, HOUR, "v2");
    bench.get(target, "").await.expect(200).text() == "v1"
}

#[tokio::test]
async fn a_change_that_worked_makes_its_target_invalid() {
    let bench = Bench::new().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "FOO", "M-SEARCH", "MKCOL"] {
        for (status, expected) in [
            (200, false),
            (201, false),
            (204, false),
            (299, false),
            (303, false),
            (307, false),
            (399, false),
            (400, true),
            (404, true),
            (409, true),
            (499, true),
            (500, true),
            (503, true),
            (599, true),
        ] {
            let target = bench.target();
            let found = survives(&bench, &target, &target, method, status, "").await;
            assert_eq!(found, expected, "{method} {status}");
        }
    }
    for method in ["HEAD", "OPTIONS", "GET"] {
        let target = bench.target();
        assert!(survives(&bench, &target, &target, method, 200, "").await, "{method} is safe");
    }
    bench.finish().await;
}

#[tokio::test]
async fn the_targets_named_by_location_and_content_location_go_too() {
    let bench = Bench::new().await;
    for field in ["location", "content-location"] {
        for method in ["POST", "PUT", "DELETE", "FOO"] {
            for (prefix, status, expected) in [
                ("", 201, false),
                ("http://edge.test", 201, false),
                ("HTTP://EDGE.TEST:80", 201, false),
                ("//edge.test", 303, false),
                ("http://other.test", 201, true),
                ("https://edge.test", 201, true),
                ("http://edge.test:81", 201, true),
                ("", 400, true),
                ("", 500, true),
            ] {
                let (target, to) = (bench.target(), bench.target());
                let line = format!("{field}: {prefix}{target}");
                let found = survives(&bench, &target, &to, method, status, &line).await;
                assert_eq!(found, expected, "{method} {status} {line}");
            }
        }
    }
    bench.finish().await;
}

#[tokio::test]
async fn every_variant_of_a_changed_target_goes() {
    let bench = Bench::new().await;
    let target = bench.target();
    for version in ["v1", "v2"] {
        bench.answer(&target, 200, "cache-control: max-age=3600\nvary: foo", version);
        for foo in ["foo: 1", "foo: 2", ""] {
            bench.get(&target, foo).await.expect(200).body(version);
        }
        bench.answer(&target, 204, "", "");
        bench.ask("DELETE", &target, "foo: 3").await.expect(204);
    }
    bench.finish().await;
}
