//! Answers that vary by language: as many requests as possible share one, and nobody gets a language that the origin would not have chosen
//! (RFC 9110 §12.5.4, RFC 9111 §4.1).

use super::Then::{Fetched, Reused};
use super::{Bench, Fact, fact};
use crate::edge::Edge;
use crate::support::origin::{Origin, Reply, Request, reply};
use crate::support::redis::Redis;

const VARIES: &str = "cache-control: max-age=3600\nvary: Accept-Language";
const GERMAN: &str = "cache-control: max-age=3600\nvary: Accept-Language\ncontent-language: de";

/// Every way in which people's programs ask for languages.
const ASKED: &[&str] = &[
    "en",
    "de",
    "fr",
    "it",
    "en, de",
    "de, en",
    "de,en;q=0.5",
    "en;q=0.5, de",
    "de-AT, de;q=0.9, en;q=0.8",
    "de-at,fr;q=0.7",
    "fr;q=0.5, de;q=1.0",
    "fr;q=0.8, de;q=0.3",
    "*",
    "*;q=0.5, fr",
    "en;q=0, de;q=0.1",
    "EN",
    "x_y",
];

/// What an origin that has English, German and French chooses: what is liked best, of what is liked equally the first, `de` for `de-AT`, and English
/// when there is nothing else.
fn negotiated(asked: &str) -> &'static str {
    const HAS: [&str; 3] = ["en", "de", "fr"];
    let read = |member: &str| {
        let (range, weight) = member.split_once(";q=").unwrap_or((member, "1"));
        (range.trim().to_ascii_lowercase(), weight.trim().parse::<f32>().unwrap_or(0.0))
    };
    let mut liked: Vec<(String, f32)> = asked.split(',').map(|member| read(member.trim())).collect();
    liked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let found = liked.iter().filter(|(_, weight)| *weight > 0.0).find_map(|(range, _)| {
        HAS.into_iter().find(|has| range == "*" || range.split('-').next() == Some(has))
    });
    found.unwrap_or("en")
}

fn page(request: &Request) -> Reply {
    let language = negotiated(request.header("accept-language").unwrap_or("*"));
    reply(200)
        .cache("max-age=3600")
        .header("vary", "Accept-Language")
        .header("content-language", language)
        .body(language)
}

#[tokio::test]
async fn nobody_gets_a_language_that_the_origin_would_not_have_chosen() {
    let bench = Bench::new().await;
    let mut shared = 0;
    for first in ASKED {
        for second in ASKED {
            let target = bench.target();
            bench.origin.set_script(&target, page);
            bench
                .get(&target, &format!("accept-language: {first}"))
                .await
                .expect(200)
                .body(negotiated(first));
            let found = bench.get(&target, &format!("accept-language: {second}")).await.expect(200);
            assert_eq!(found.text(), negotiated(second), "{second:?} after {first:?}");
            shared += usize::from(bench.origin.hits(&target) == 1);
        }
    }
    assert!(shared > ASKED.len() + 20, "only {shared} pairs shared an answer");
    bench.finish().await;
}

#[tokio::test]
async fn an_origin_that_mislabels_its_answers_costs_nobody_their_language() {
    let bench = Bench::new().await;
    for first in ["de", "de, en;q=0.5", "fr;q=0.9, en;q=0.8"] {
        let target = bench.target();
        bench.origin.set_script(&target, |request| {
            let language = negotiated(request.header("accept-language").unwrap_or("*"));
            reply(200)
                .cache("max-age=3600")
                .header("vary", "Accept-Language")
                .header("content-language", "en")
                .body(language)
        });
        bench.get(&target, &format!("accept-language: {first}")).await.expect(200).body(negotiated(first));
        bench.get(&target, "accept-language: en").await.expect(200).body("en");
        bench.get(&target, &format!("accept-language: {first}")).await.expect(200).body(negotiated(first));
    }
    bench.finish().await;
}

#[tokio::test]
async fn languages_are_compared_by_what_they_mean() {
    const FACTS: &[Fact] = &[
        fact("another form and order of weights", VARIES, Reused)
            .first("accept-language: EN;q=1.0, de;q=0.50")
            .second("accept-language: de;q=0.5,en"),
        fact("another order of languages liked equally", VARIES, Fetched)
            .first("accept-language: en, de")
            .second("accept-language: de, en"),
        fact("the one liked best is the one that was given", GERMAN, Reused)
            .first("accept-language: en, de")
            .second("accept-language: fr;q=0.5, de;q=1.0"),
        fact("another is liked best", GERMAN, Fetched)
            .first("accept-language: en, de")
            .second("accept-language: fr, de;q=0.5"),
        fact("two are liked best", GERMAN, Fetched)
            .first("accept-language: de")
            .second("accept-language: de, fr"),
        fact("it was not what the first liked best", GERMAN, Fetched)
            .first("accept-language: en, de;q=0.5")
            .second("accept-language: de"),
        fact(
            "other fields count as before",
            "cache-control: max-age=60\nvary: Accept-Language, Foo\ncontent-language: de",
            Fetched,
        )
        .first("accept-language: de\nfoo: 1")
        .second("accept-language: de, en;q=0.5\nfoo: 2"),
    ];
    let bench = Bench::new().await;
    bench.hold(FACTS).await;
    bench.finish().await;
}

#[tokio::test]
async fn the_order_of_languages_liked_equally_means_nothing_where_the_operator_says_so() {
    let bench = Bench::with("vary = { languages = \"unordered\" }").await;
    bench
        .hold(&[
            fact("another order", VARIES, Reused)
                .first("accept-language: en, de")
                .second("accept-language: de, en"),
            fact("other weights", VARIES, Fetched)
                .first("accept-language: en, de;q=0.5")
                .second("accept-language: en;q=0.5, de"),
        ])
        .await;
    bench.finish().await;
}

#[tokio::test]
async fn languages_and_codings_count_as_sent_where_the_operator_says_so() {
    let bench =
        Bench::with("vary = { languages = \"as_sent\", content_language = false, encodings = \"as_sent\" }")
            .await;
    const CODING: &str = "cache-control: max-age=3600\nvary: Accept-Encoding";
    bench
        .hold(&[
            fact("the same", VARIES, Reused).both("accept-language: en, de"),
            fact("spaces around commas", VARIES, Reused)
                .first("accept-language: en,de")
                .second("accept-language: en , de"),
            fact("case", VARIES, Fetched).first("accept-language: en").second("accept-language: EN"),
            fact("order of weights", VARIES, Fetched)
                .first("accept-language: en, de;q=0.5")
                .second("accept-language: de;q=0.5, en"),
            fact("the language given", GERMAN, Fetched)
                .first("accept-language: de")
                .second("accept-language: de, en;q=0.5"),
            fact("order of codings", CODING, Fetched)
                .first("accept-encoding: gzip, br")
                .second("accept-encoding: br, gzip"),
            fact("the same codings", CODING, Reused).both("accept-encoding: gzip, br"),
        ])
        .await;
    bench.finish().await;
}

#[tokio::test]
async fn an_answer_chosen_by_its_language_is_found_in_redis_and_goes_with_a_change() {
    let redis = Redis::start().await;
    let origin = Origin::new().on_request("/a", page).start().await;
    let start = || Edge::serving(&origin).redis(&redis.url()).start_with_redis();
    let (one, two) = (start().await, start().await);
    let ask =
        |edge: &Edge, language: &str| edge.request("GET", "/a").header("accept-language", language).send();
    ask(&one, "de-DE;q=0.2, de;q=0.9").await.expect(200).body("de").cache("stored");
    ask(&one, "en, de").await.expect(200).body("en").cache("stored");
    one.flush_redis().await;
    ask(&two, "de, fr;q=0.5").await.expect(200).body("de").cache("vanne-redis; hit");
    ask(&two, "de, it;q=0.5").await.expect(200).body("de").cache("vanne-mem; hit");
    ask(&two, "en;q=0.7").await.expect(200).body("en").cache("vanne-redis; hit");
    assert_eq!(origin.hits("/a"), 2);
    one.request("PUT", "/a").send().await.expect(200);
    one.flush_redis().await;
    ask(&one, "de").await.expect(200).body("de").cache("fwd=uri-miss");
    one.finish().await;
    two.finish().await;
}

/// A client cannot name by its own words what stands for a language.
#[tokio::test]
async fn a_client_cannot_fill_in_a_language_for_others() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.origin.set_script(&target, page);
    for odd in ["=de", "\"de\"", "de\u{80}", "?de"] {
        bench.get(&target, &format!("accept-language: {odd}")).await;
    }
    bench.get(&target, "accept-language: de").await.expect(200).body("de");
    bench.finish().await;
}
