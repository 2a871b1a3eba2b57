//! What may be stored, and what is kept of it (RFC 9111 §3).

use super::Then::{Fetched, Reused, Validated};
use super::{Bench, Fact, fact};
use crate::support::origin::reply;

#[tokio::test]
async fn directives_that_forbid_or_allow_storing() {
    const FACTS: &[Fact] = &[
        fact("no-store", "cache-control: no-store", Fetched),
        fact("no-store beside max-age", "cache-control: max-age=3600, no-store", Fetched),
        fact("no-store in capitals", "cache-control: max-age=3600, NO-STORE", Fetched),
        fact("no-store with an argument", "cache-control: max-age=3600, no-store=\"x\"", Fetched),
        fact("no-store on another line", "cache-control: max-age=3600\ncache-control: no-store", Fetched),
        fact("no-store within quotes", "cache-control: max-age=3600, foo=\"no-store\"", Reused),
        fact("private", "cache-control: private, max-age=3600", Fetched),
        fact("private in mixed case", "cache-control: pRiVaTe, max-age=3600", Fetched),
        fact("private and s-maxage", "cache-control: private, s-maxage=3600", Fetched),
        fact("private for a field", "cache-control: private=\"x-a\", max-age=3600\nx-a: 1", Reused),
        fact("no-cache", "cache-control: no-cache, max-age=3600", Fetched),
        fact("no-cache in capitals", "cache-control: NO-CACHE, max-age=3600\netag: \"a\"", Validated),
        fact("no-cache with a tag", "cache-control: no-cache\netag: \"a\"", Validated),
        fact("no-cache with a date", "cache-control: no-cache\nlast-modified: {i-1000}", Validated),
        fact(
            "no-cache and max-age with a tag",
            "cache-control: no-cache, max-age=3600\netag: \"a\"",
            Validated,
        ),
        fact("no-cache for a field", "cache-control: no-cache=\"x-a\", max-age=3600\nx-a: 1", Reused),
        fact("must-revalidate while fresh", "cache-control: max-age=3600, must-revalidate", Reused),
        fact("must-revalidate when stale", "cache-control: max-age=3600, must-revalidate", Fetched)
            .later(3601),
        fact(
            "must-understand, status understood",
            "cache-control: max-age=3600, must-understand, no-store",
            Reused,
        ),
        fact("must-understand alone", "cache-control: max-age=3600, must-understand", Reused),
        fact(
            "must-understand, status not understood",
            "cache-control: max-age=3600, must-understand, no-store",
            Fetched,
        )
        .status(599),
        fact(
            "must-understand alone, status not understood",
            "cache-control: max-age=3600, must-understand",
            Fetched,
        )
        .status(599),
        fact("immutable is no lifetime", "cache-control: immutable", Fetched),
        fact("public is no lifetime", "cache-control: public", Fetched),
        fact("nothing at all", "", Fetched),
        fact("a tag alone", "etag: \"a\"", Validated),
        fact(
            "Pragma: no-cache in an answer means nothing",
            "cache-control: max-age=3600\npragma: no-cache",
            Reused,
        ),
        fact("Pragma: foo means nothing", "cache-control: max-age=3600\npragma: foo", Reused),
        fact("Vary: *", "cache-control: max-age=3600\nvary: *", Fetched),
        fact("Set-Cookie", "cache-control: max-age=3600\nset-cookie: a=b", Fetched),
        fact(
            "Set-Cookie, excepted by private",
            "cache-control: max-age=3600, private=\"set-cookie\"\nset-cookie: a=b",
            Reused,
        ),
        fact("Cookie in the request", "cache-control: max-age=3600", Reused).both("cookie: a=b"),
        fact("a request's no-store", "cache-control: max-age=3600", Fetched).first("cache-control: no-store"),
    ];
    let bench = Bench::new().await;
    bench.hold(FACTS).await;
    bench.finish().await;
}

#[tokio::test]
async fn any_final_status_with_explicit_freshness_is_stored_and_passes_unchanged() {
    let bench = Bench::new().await;
    let statuses = [
        200, 201, 202, 203, 204, 205, 207, 226, 299, 300, 301, 302, 303, 305, 307, 308, 399, 400, 401, 402,
        403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 417, 421, 422, 424, 426, 428, 429,
        431, 451, 499, 500, 501, 502, 503, 504, 505, 511, 599, 600, 999,
    ];
    let mut facts = Vec::new();
    for status in statuses.into_iter().filter(|status| *status != 205) {
        facts.push(fact("fresh", "cache-control: max-age=3600", Reused).status(status));
        facts.push(fact("by Expires", "expires: {i+3600}\ndate: {i+0}", Reused).status(status));
        facts.push(fact("stale", "cache-control: max-age=3600", Fetched).status(status).later(3601));
        facts.push(fact("forbidden", "cache-control: max-age=3600, no-store", Fetched).status(status));
    }
    bench.hold(&facts).await;
    bench.finish().await;
}

#[tokio::test]
async fn an_authorised_answer_is_stored_only_when_it_says_so() {
    const FACTS: &[Fact] = &[
        fact("max-age", "cache-control: max-age=3600", Fetched).both("authorization: x y"),
        fact("Expires", "expires: {i+3600}", Fetched).both("authorization: x y"),
        fact("public", "cache-control: max-age=3600, public", Reused).both("authorization: x y"),
        fact("must-revalidate", "cache-control: max-age=3600, must-revalidate", Reused)
            .both("authorization: x y"),
        fact("s-maxage", "cache-control: s-maxage=3600", Reused).both("authorization: x y"),
        fact("proxy-revalidate is none of them", "cache-control: max-age=3600, proxy-revalidate", Fetched)
            .both("authorization: x y"),
        fact("what nobody was authorised for", "cache-control: max-age=3600", Reused)
            .second("authorization: x y"),
    ];
    let bench = Bench::new().await;
    bench.hold(FACTS).await;
    bench.finish().await;
}

#[tokio::test]
async fn only_answers_to_get_are_stored() {
    let bench = Bench::new().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "FOO", "REPORT"] {
        let target = bench.target();
        bench.answer(&target, 200, "cache-control: max-age=3600", "v1");
        bench.ask(method, &target, "").await.expect(200);
        bench.get(&target, "").await.expect(200).cache("fwd=uri-miss");
        assert_eq!(bench.origin.hits(&target), 2, "{method}");
    }
    let target = bench.target();
    bench.answer(&target, 200, &format!("cache-control: max-age=3600\ncontent-location: {target}"), "posted");
    bench.ask("POST", &target, "").await.expect(200);
    bench.answer(&target, 200, "cache-control: max-age=3600", "got");
    bench.get(&target, "").await.expect(200).body("got");
    bench.finish().await;
}

#[tokio::test]
async fn a_stored_answer_never_answers_another_method() {
    let bench = Bench::new().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "FOO"] {
        let target = bench.target();
        bench.answer(&target, 200, "cache-control: max-age=3600", "got");
        bench.get(&target, "").await.expect(200);
        bench.answer(&target, 400, "", "refused");
        bench.ask(method, &target, "").await.expect(400).body("refused");
        bench.get(&target, "").await.expect(200).body("got").cache("hit");
    }
    bench.finish().await;
}

#[tokio::test]
async fn every_field_is_stored_but_those_of_one_hop() {
    let bench = Bench::new().await;
    let kept = [
        ("test-header", "a"),
        ("x-test-header", "b"),
        ("content-foo", "c"),
        ("x-content-foo", "d"),
        ("clear-site-data", "\"cookies\""),
        ("content-location", "/elsewhere"),
        ("content-md5", "f"),
        ("content-language", "de"),
        ("content-range", "bytes 0-1/2"),
        ("content-security-policy", "default-src 'self'"),
        ("content-security-policy-report-only", "default-src 'self'"),
        ("content-type", "text/plain;charset=utf-8"),
        ("etag", "\"h\""),
        ("expires", "Thu, 18 Aug 2050 02:01:18 GMT"),
        ("last-modified", "Thu, 18 Aug 2005 02:01:18 GMT"),
        ("link", "</a>; rel=next"),
        ("pragma", "x"),
        ("public-key-pins", "k"),
        ("server", "l"),
        ("strict-transport-security", "max-age=1"),
        ("warning", "299 - \"m\""),
        ("www-authenticate", "Basic"),
        ("x-frame-options", "DENY"),
        ("x-xss-protection", "1"),
        ("x-empty", ""),
    ];
    let hop = [
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authenticate", "Basic"),
        ("proxy-authentication-info", "a=b"),
        ("proxy-authorization", "Basic abc"),
        ("te", "trailers"),
        ("upgrade", "foo"),
        ("x-named", "by connection"),
    ];
    let target = bench.target();
    let answer = reply(200).cache("max-age=3600").header("connection", "x-named").body("v1");
    let answer = kept.iter().chain(&hop).fold(answer, |answer, (name, value)| answer.header(name, value));
    bench.origin.set(&target, answer.header("x-twice", "1").header("x-twice", "2"));
    for _ in 0..2 {
        let found = bench.get(&target, "").await.expect(200).body("v1");
        for (name, value) in kept {
            assert_eq!(found.headers(name), [value], "{name}");
        }
        for (name, _) in hop {
            assert_eq!(found.header(name), None, "{name}");
        }
        assert_eq!(found.headers("x-twice"), ["1", "2"]);
        assert_eq!(found.header("connection"), Some("keep-alive"));
    }
    assert_eq!(bench.origin.hits(&target), 1);
    bench.finish().await;
}

#[tokio::test]
async fn fields_meant_for_one_client_are_not_replayed() {
    let bench = Bench::new().await;
    for directive in ["private", "no-cache"] {
        let target = bench.target();
        let lines = format!("cache-control: max-age=3600, {directive}=\"x-a, X-B\"\nx-a: 1\nx-b: 2\nx-c: 3");
        bench.answer(&target, 200, &lines, "v1");
        bench.get(&target, "").await.expect(200);
        bench.get(&target, "").await.expect(200).cache("hit").without("x-a").without("x-b").with("x-c", "3");
    }
    bench.finish().await;
}

#[tokio::test]
async fn content_in_every_framing_is_stored_whole_and_only_whole() {
    let bench = Bench::new().await;
    let fresh = || reply(200).cache("max-age=3600");
    for (what, answer, hits) in [
        ("a length", fresh().body("0123456789"), 1),
        ("chunks", fresh().chunk("01234").chunk("56789"), 1),
        ("chunks and a trailer", fresh().chunk("0123456789").trailer("x-sum", "1"), 1),
        ("no content", fresh(), 1),
        (
            "until the connection closes: truncation could not be told",
            fresh().body("0123456789").until_close(),
            2,
        ),
    ] {
        let target = bench.target();
        bench.origin.set(&target, answer);
        let first = bench.get(&target, "").await.expect(200);
        let second = bench.get(&target, "").await.expect(200);
        assert_eq!(first.body, second.body, "{what}");
        assert_eq!(bench.origin.hits(&target), hits, "{what}");
    }
    for truncated in [fresh().body("0123").truncated(6), fresh().chunk("0123").truncated(0)] {
        let target = bench.target();
        bench.origin.set(&target, truncated);
        assert!(bench.get(&target, "").await.truncated.is_some());
        bench.answer(&target, 200, "cache-control: max-age=3600", "whole");
        bench.get(&target, "").await.expect(200).body("whole");
    }
    bench.finish().await;
}

#[tokio::test]
async fn a_part_is_passed_on_and_never_stored_as_the_whole() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.answer(&target, 206, "cache-control: max-age=3600\ncontent-range: bytes 0-3/10", "0123");
    bench.get(&target, "range: bytes=0-3").await.expect(206).body("0123");
    bench.answer(&target, 200, "cache-control: max-age=3600", "0123456789");
    bench.get(&target, "").await.expect(200).body("0123456789");
    bench.finish().await;
}

#[tokio::test]
async fn interim_answers_are_passed_on_and_their_fields_not_stored() {
    let bench = Bench::new().await;
    for status in [102, 103] {
        for fields in ["cache-control: max-age=3600", "cache-control: no-store"] {
            let target = bench.target();
            let answer = bench.reply(200, fields).body("v1");
            bench
                .origin
                .set(&target, answer.after_informational(status, &[("link", "</a>"), ("x-interim", "1")]));
            let found = bench.get(&target, "").await.expect(200).body("v1").without("x-interim");
            let interim: Vec<u16> = found.informational.iter().map(|(status, _)| *status).collect();
            assert_eq!(interim, [status]);
            assert!(found.informational[0].1.iter().any(|(name, value)| name == "x-interim" && value == "1"));
            let again = bench.get(&target, "").await.expect(200).without("x-interim").without("link");
            assert_eq!(
                again.informational.is_empty(),
                fields.ends_with("3600"),
                "from storage there is none"
            );
        }
    }
    bench.finish().await;
}

#[tokio::test]
async fn the_hop_is_named_in_via_once_a_direction() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.answer(&target, 200, "cache-control: max-age=3600\nvia: 1.1 inner", "v1");
    for _ in 0..2 {
        bench.get(&target, "via: 1.0 outer").await.expect(200).with("via", "1.1 inner, 1.1 vanne");
    }
    assert_eq!(bench.origin.last(&target).header("via"), Some("1.0 outer, 1.1 vanne"));
    bench.finish().await;
}
