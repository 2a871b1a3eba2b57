//! Vary (RFC 9111 §4.1; RFC 9110 §12.5.5).

use super::Then::{Fetched, Reused};
use super::{Bench, Fact, fact};

#[tokio::test]
async fn a_variant_is_reused_for_the_requests_it_was_chosen_for() {
    const BY_FOO: &str = "cache-control: max-age=3600\nvary: Foo";
    const BY_TWO: &str = "cache-control: max-age=3600\nvary: Foo, Bar";
    const LANGUAGE: &str = "cache-control: max-age=3600\nvary: Accept-Language";
    const CODING: &str = "cache-control: max-age=3600\nvary: Accept-Encoding";
    const FACTS: &[Fact] = &[
        fact("the same", BY_FOO, Reused).both("foo: 1"),
        fact("another value", BY_FOO, Fetched).first("foo: 1").second("foo: 2"),
        fact("absent then there", BY_FOO, Fetched).second("foo: 1"),
        fact("there then absent", BY_FOO, Fetched).first("foo: 1"),
        fact("absent twice", BY_FOO, Reused),
        fact("absent is not empty", BY_FOO, Fetched).second("foo: "),
        fact("case of the name", BY_FOO, Reused).first("FOO: 1").second("foo: 1"),
        fact("case of the value counts", BY_FOO, Fetched).first("foo: a").second("foo: A"),
        fact("another field", BY_FOO, Reused).first("foo: 1\nother: 2").second("foo: 1\nother: 3"),
        fact("two fields, the same", BY_TWO, Reused).both("foo: 1\nbar: 2"),
        fact("two fields, in another order", BY_TWO, Reused).first("foo: 1\nbar: 2").second("bar: 2\nfoo: 1"),
        fact("two fields, one differs", BY_TWO, Fetched).first("foo: 1\nbar: 2").second("foo: 1\nbar: 3"),
        fact("two fields, one absent", BY_TWO, Fetched).first("foo: 1").second("foo: 1\nbar: 3"),
        fact("two fields, the second absent twice", BY_TWO, Reused).both("foo: 1"),
        fact("on two lines", "cache-control: max-age=3600\nvary: Foo\nvary: Bar", Fetched)
            .first("foo: 1\nbar: 2")
            .second("foo: 1\nbar: 3"),
        fact("in small letters", "cache-control: max-age=3600\nvary: foo", Fetched)
            .first("foo: 1")
            .second("foo: 2"),
        fact("empty members", "cache-control: max-age=3600\nvary: , foo, ", Reused).both("foo: 1"),
        fact("an empty Vary", "cache-control: max-age=3600\nvary: ", Reused).first("foo: 1").second("foo: 2"),
        fact("star", "cache-control: max-age=3600\nvary: *", Fetched),
        fact("star first", "cache-control: max-age=3600\nvary: *, foo", Fetched).both("foo: 1"),
        fact("star last", "cache-control: max-age=3600\nvary: foo, *", Fetched).both("foo: 1"),
        fact("star on its own line", "cache-control: max-age=3600\nvary: foo\nvary: *", Fetched)
            .both("foo: 1"),
        fact("a value on two lines", BY_FOO, Reused).first("foo: 1\nfoo: 2").second("foo: 1, 2"),
        fact("spaces around commas", BY_FOO, Reused).first("foo: 1,2").second("foo: 1 , 2"),
        fact("the order of members counts", BY_FOO, Fetched).first("foo: 1, 2").second("foo: 2, 1"),
        fact("languages in another case", LANGUAGE, Reused)
            .first("accept-language: en-US")
            .second("accept-language: EN-us"),
        fact("languages with other spaces", LANGUAGE, Reused)
            .first("accept-language: en , de;q=0.5")
            .second("accept-language: en,de;q=0.5"),
        fact("another language", LANGUAGE, Fetched)
            .first("accept-language: en")
            .second("accept-language: de"),
        fact("other weights", LANGUAGE, Fetched)
            .first("accept-language: en;q=0.5, de")
            .second("accept-language: en, de;q=0.5"),
        fact("the same codings in another order", CODING, Reused)
            .first("accept-encoding: gzip, br")
            .second("accept-encoding: br,gzip"),
        fact("fewer codings", CODING, Fetched)
            .first("accept-encoding: gzip, br")
            .second("accept-encoding: br"),
        fact("none then some", CODING, Fetched).second("accept-encoding: gzip"),
        fact("by Cookie", "cache-control: max-age=3600\nvary: Cookie", Fetched)
            .first("cookie: a=1")
            .second("cookie: a=2"),
        fact("by what a hop removes", "cache-control: max-age=3600\nvary: X-Hop", Reused)
            .first("connection: x-hop\nx-hop: 1")
            .second(""),
    ];
    let bench = Bench::new().await;
    bench.hold(FACTS).await;
    bench.finish().await;
}

#[tokio::test]
async fn several_variants_are_held_at_once_and_none_is_anothers() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.origin.set_script(&target, |request| {
        let foo = request.header("foo").unwrap_or("none").to_owned();
        crate::support::origin::reply(200).cache("max-age=3600").header("vary", "foo").body(foo)
    });
    for round in 0..3 {
        for value in ["1", "2", "3", "1, 2"] {
            let found = bench.get(&target, &format!("foo: {value}")).await.expect(200).body(value);
            assert_eq!(found.cache_status().contains("hit"), round > 0, "{value}");
        }
        bench.get(&target, "").await.expect(200).body("none");
    }
    assert_eq!(bench.origin.hits(&target), 5);
    bench.finish().await;
}

#[tokio::test]
async fn an_origin_that_varies_by_more_later_is_believed() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.answer(&target, 200, "cache-control: max-age=3600\nvary: foo", "one");
    bench.get(&target, "foo: 1\nbar: 1").await.expect(200);
    bench.answer(&target, 200, "cache-control: max-age=3600\nvary: foo, bar", "two");
    bench.get(&target, "foo: 2\nbar: 1").await.expect(200).body("two");
    bench.answer(&target, 200, "cache-control: max-age=3600\nvary: foo, bar", "three");
    bench.get(&target, "foo: 2\nbar: 2").await.expect(200).body("three");
    bench.get(&target, "foo: 2\nbar: 1").await.expect(200).body("two").cache("hit");
    bench.finish().await;
}

#[tokio::test]
async fn a_variant_is_validated_with_its_own_validators_and_the_clients_own_fields() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.origin.set_script(&target, |request| {
        let foo = request.header("foo").unwrap_or("none").to_owned();
        let tag = format!("\"{foo}\"");
        let answer = |status| {
            crate::support::origin::reply(status)
                .cache("max-age=10")
                .header("vary", "foo")
                .header("etag", &tag)
        };
        if request.header("if-none-match") == Some(&tag) { answer(304) } else { answer(200).body(foo) }
    });
    for value in ["1", "2"] {
        bench.get(&target, &format!("foo: {value}")).await.expect(200).body(value);
    }
    bench.later(20);
    for value in ["1", "2"] {
        bench.get(&target, &format!("foo: {value}")).await.expect(200).body(value).cache("fwd-status=304");
        bench.get(&target, &format!("foo: {value}")).await.expect(200).body(value).cache("hit");
    }
    bench.finish().await;
}
