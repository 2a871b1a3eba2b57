//! How long an answer is fresh, and how old it is (RFC 9111 §4.2, §5.1, §5.3; RFC 9213).

use super::Then::{Fetched, Reused};
use super::{Bench, Fact, fact};

#[tokio::test]
async fn max_age_in_every_spelling() {
    const FACTS: &[Fact] = &[
        fact("max-age", "cache-control: max-age=3600", Reused),
        fact("before its end", "cache-control: max-age=3600", Reused).later(3598),
        fact("past its end", "cache-control: max-age=3600", Fetched).later(3601),
        fact("in capitals", "cache-control: MAX-AGE=3600", Reused),
        fact("in mixed case", "cache-control: mAx-AgE=3600", Reused),
        fact("the field in capitals", "CACHE-CONTROL: max-age=3600", Reused),
        fact("zero", "cache-control: max-age=0", Fetched),
        fact("zeros", "cache-control: max-age=000", Fetched),
        fact("leading zeros", "cache-control: max-age=003600", Reused),
        fact("quoted", "cache-control: max-age=\"3600\"", Reused),
        fact("in single quotes", "cache-control: max-age='3600'", Fetched),
        fact("negative", "cache-control: max-age=-3600", Fetched),
        fact("with a plus", "cache-control: max-age=+3600", Fetched),
        fact("decimal", "cache-control: max-age=3600.0", Fetched),
        fact("with a tail", "cache-control: max-age=3600a", Fetched),
        fact("with a head", "cache-control: max-age=a3600", Fetched),
        fact("a space before =", "cache-control: max-age =3600", Fetched),
        fact("a space after =", "cache-control: max-age= 3600", Fetched),
        fact("without a value", "cache-control: max-age", Fetched),
        fact("with an empty value", "cache-control: max-age=", Fetched),
        fact("2³¹-1", "cache-control: max-age=2147483647", Reused),
        fact("2³¹", "cache-control: max-age=2147483648", Reused),
        fact("more than 2³¹", "cache-control: max-age=2147483649", Reused),
        fact("more than 2⁶⁴", "cache-control: max-age=99999999999999999999999", Reused),
        fact("after an extension", "cache-control: foo=bar, max-age=3600", Reused),
        fact("before an extension", "cache-control: max-age=3600, foo", Reused),
        fact("in a quoted extension", "cache-control: foo=\"max-age=3600\"", Fetched),
        fact("behind a quoted extension", "cache-control: foo=\"a,b\", max-age=3600", Reused),
        fact("zero hidden in quotes", "cache-control: foo=\"max-age=0, a\", max-age=3600", Reused),
        fact("another name that ends so", "cache-control: x-max-age=3600", Fetched),
        fact("empty members", "cache-control: , ,max-age=3600, ,", Reused),
        fact("tabs", "cache-control: foo,\tmax-age=3600\t,bar", Reused),
        fact("on its second line", "cache-control: foo\ncache-control: max-age=3600", Reused),
        fact("twice the same", "cache-control: max-age=3600, max-age=3600", Reused),
        fact("twice, zero first", "cache-control: max-age=0, max-age=3600", Fetched),
        fact("twice, zero last", "cache-control: max-age=3600, max-age=0", Fetched),
        fact("twice on two lines", "cache-control: max-age=3600\ncache-control: max-age=1", Fetched).later(2),
    ];
    let bench = Bench::new().await;
    bench.hold(FACTS).await;
    bench.finish().await;
}

#[tokio::test]
async fn s_maxage_then_max_age_then_expires() {
    const FACTS: &[Fact] = &[
        fact("s-maxage", "cache-control: s-maxage=3600", Reused),
        fact("s-maxage past its end", "cache-control: s-maxage=3600", Fetched).later(3601),
        fact("s-maxage in capitals", "cache-control: S-MAXAGE=3600", Reused),
        fact("over a shorter max-age", "cache-control: s-maxage=3600, max-age=1", Reused).later(10),
        fact("over a longer max-age", "cache-control: max-age=3600, s-maxage=1", Fetched).later(10),
        fact("zero over max-age", "cache-control: max-age=3600, s-maxage=0", Fetched),
        fact("unreadable over max-age", "cache-control: max-age=3600, s-maxage=x", Fetched),
        fact("over Expires", "cache-control: s-maxage=3600\nexpires: {i-60}\ndate: {i+0}", Reused),
        fact(
            "max-age over an Expires that is past",
            "cache-control: max-age=3600\nexpires: {i-60}\ndate: {i+0}",
            Reused,
        ),
        fact(
            "max-age over a later Expires",
            "cache-control: max-age=1\nexpires: {i+3600}\ndate: {i+0}",
            Fetched,
        )
        .later(10),
        fact("an unreadable max-age over Expires", "cache-control: max-age=x\nexpires: {i+3600}", Fetched),
        fact("max-age over Expires: 0", "cache-control: max-age=3600\nexpires: 0", Reused),
    ];
    let bench = Bench::new().await;
    bench.hold(FACTS).await;
    bench.finish().await;
}

#[tokio::test]
async fn expires_in_every_form_of_a_date() {
    const FACTS: &[Fact] = &[
        fact("Expires", "expires: {i+3600}\ndate: {i+0}", Reused),
        fact("past its end", "expires: {i+3600}\ndate: {i+0}", Fetched).later(3601),
        fact("without Date", "expires: {i+3600}", Reused),
        fact("in the past", "expires: {i-3600}\ndate: {i+0}", Fetched),
        fact("the present", "expires: {i+0}\ndate: {i+0}", Fetched),
        fact("counted from a Date that is behind", "expires: {i+60}\ndate: {i-30}", Fetched).later(70),
        fact("counted from a Date ahead of us", "expires: {i+3700}\ndate: {i+3600}", Fetched).later(120),
        fact("zero", "expires: 0", Fetched),
        fact("-1", "expires: -1", Fetched),
        fact("a number", "expires: 3600", Fetched),
        fact("empty", "expires: ", Fetched),
        fact("far away", "expires: Thu, 18 Aug 2050 02:01:18 GMT", Reused),
        fact("RFC 850", "expires: {r+3600}", Reused),
        fact("RFC 850 in 2049", "expires: Wednesday, 18-Aug-49 02:01:18 GMT", Reused),
        fact("RFC 850, a year long gone", "expires: Thursday, 18-Aug-94 02:01:18 GMT", Fetched),
        fact("asctime", "expires: {a+3600}", Reused),
        fact("another weekday", "expires: Fri, 18 Aug 2050 02:01:18 GMT", Reused),
        fact("in small letters", "expires: thu, 18 aug 2050 02:01:18 GMT", Reused),
        fact("the zone in small letters", "expires: {i+3600|GMT>gmt}", Reused),
        fact("UTC", "expires: {i+3600|GMT>UTC}", Fetched),
        fact("another zone", "expires: {i+3600|GMT>AEST}", Fetched),
        fact("an offset", "expires: {i+3600|GMT>+0000}", Fetched),
        fact("no zone", "expires: {i+3600| GMT>}", Fetched),
        fact("a year of two digits", "expires: Thu, 18 Aug 50 02:01:18 GMT", Fetched),
        fact("dashes in the IMF form", "expires: Thu, 18-Aug-2050 02:01:18 GMT", Fetched),
        fact("periods in the time", "expires: Thu, 18 Aug 2050 02.01.18 GMT", Fetched),
        fact("no comma", "expires: Thu 18 Aug 2050 02:01:18 GMT", Fetched),
        fact("two spaces", "expires: Thu, 18  Aug 2050 02:01:18 GMT", Fetched),
        fact("two spaces before the time", "expires: Thu, 18 Aug 2050  02:01:18 GMT", Fetched),
        fact("an hour of one digit", "expires: Thu, 18 Aug 2050 2:01:18 GMT", Fetched),
        fact("no seconds", "expires: Thu, 18 Aug 2050 02:01 GMT", Fetched),
        fact("a month that is none", "expires: Thu, 18 Foo 2050 02:01:18 GMT", Fetched),
        fact("the 32nd", "expires: Thu, 32 Aug 2050 02:01:18 GMT", Fetched),
        fact("twice", "expires: {i+3600}\nexpires: {i+7200}", Fetched),
        fact("quoted", "expires: \"{i+3600}\"", Fetched),
    ];
    let bench = Bench::new().await;
    bench.hold(FACTS).await;
    bench.finish().await;
}

#[tokio::test]
async fn age_in_every_form() {
    const FACTS: &[Fact] = &[
        fact("less than the lifetime", "cache-control: max-age=3600\nage: 1800", Reused),
        fact("counts", "cache-control: max-age=3600\nage: 1800", Fetched).later(1801),
        fact("more than the lifetime", "cache-control: max-age=3600\nage: 12000", Fetched),
        fact("as much as the lifetime", "cache-control: max-age=3600\nage: 3600", Fetched),
        fact("with Expires", "expires: {i+3600}\ndate: {i+0}\nage: 7200", Fetched),
        fact("0", "cache-control: max-age=3600\nage: 0", Reused),
        fact("00", "cache-control: max-age=3600\nage: 00", Reused),
        fact("leading zeros", "cache-control: max-age=3600\nage: 0012000", Fetched),
        fact("2³¹", "cache-control: max-age=3600\nage: 2147483648", Fetched),
        fact("more than 2⁶⁴", "cache-control: max-age=3600\nage: 99999999999999999999", Fetched),
        fact("negative", "cache-control: max-age=3600\nage: -7200", Reused),
        fact("decimal", "cache-control: max-age=3600\nage: 7200.0", Reused),
        fact("letters", "cache-control: max-age=3600\nage: abc", Reused),
        fact("empty", "cache-control: max-age=3600\nage: ", Reused),
        fact("a parameter", "cache-control: max-age=3600\nage: 7200;foo=bar", Fetched),
        fact("a second member", "cache-control: max-age=3600\nage: 0, 7200", Reused),
        fact("a larger first member", "cache-control: max-age=3600\nage: 7200, 0", Fetched),
        fact("a second line", "cache-control: max-age=3600\nage: 7200\nage: 0", Fetched),
        fact("a larger second line", "cache-control: max-age=3600\nage: 0\nage: 7200", Reused),
        fact("an old Date", "cache-control: max-age=3600\ndate: {i-7200}", Fetched),
        fact("an old Date that leaves some", "cache-control: max-age=3600\ndate: {i-1800}", Reused),
        fact("an old Date counts", "cache-control: max-age=3600\ndate: {i-1800}", Fetched).later(1805),
        fact("a Date ahead", "cache-control: max-age=3600\ndate: {i+600}", Reused),
        fact("an unreadable Date", "cache-control: max-age=3600\ndate: yesterday", Reused),
        fact("an old Date in RFC 850 form", "cache-control: max-age=3600\ndate: {r-7200}", Fetched),
        fact("an old Date in asctime form", "cache-control: max-age=3600\ndate: {a-7200}", Fetched),
        fact("Age beats a new Date", "cache-control: max-age=3600\ndate: {i+0}\nage: 7200", Fetched),
        fact("an old Date beats a small Age", "cache-control: max-age=3600\ndate: {i-7200}\nage: 1", Fetched),
    ];
    let bench = Bench::new().await;
    bench.hold(FACTS).await;
    bench.finish().await;
}

#[tokio::test]
async fn a_lifetime_is_guessed_from_last_modified_for_statuses_that_allow_it() {
    const LONG_UNCHANGED: &str = "last-modified: {i-100000}\ndate: {i+0}";
    let bench = Bench::new().await;
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        let reused = fact("guessed", LONG_UNCHANGED, Reused).status(status).later(9_000);
        let validated =
            fact("a tenth and no more", LONG_UNCHANGED, super::Then::Validated).status(status).later(11_000);
        bench.hold(&[reused, validated]).await;
    }
    for status in [201, 202, 302, 303, 307, 400, 402, 403, 500, 502, 503, 504, 299, 499, 599] {
        let never = fact("never guessed", LONG_UNCHANGED, Fetched).status(status);
        let public = "last-modified: {i-100000}\ndate: {i+0}\ncache-control: public";
        let allowed = fact("guessed where public", public, Reused).status(status);
        bench.hold(&[never, allowed]).await;
    }
    bench
        .hold(&[
            fact("without Last-Modified", "date: {i+0}", Fetched),
            fact("Last-Modified ahead", "date: {i+0}\nlast-modified: {i+100}", super::Then::Validated),
            fact("an unreadable Last-Modified", "last-modified: then", Fetched),
            fact(
                "explicit zero wins",
                "cache-control: max-age=0\nlast-modified: {i-100000}",
                super::Then::Validated,
            ),
            fact("in RFC 850 form", "last-modified: {r-100000}\ndate: {i+0}", Reused),
            fact("in asctime form", "last-modified: {a-100000}\ndate: {i+0}", Reused),
        ])
        .await;
    bench.finish().await;
}

#[tokio::test]
async fn cdn_cache_control_takes_the_place_of_cache_control() {
    const FACTS: &[Fact] = &[
        fact("fresh by it", "cdn-cache-control: max-age=3600", Reused),
        fact("over max-age=0", "cdn-cache-control: max-age=3600\ncache-control: max-age=0", Reused),
        fact("over no-store", "cdn-cache-control: max-age=3600\ncache-control: no-store", Reused),
        fact("over no-cache", "cdn-cache-control: max-age=3600\ncache-control: no-cache", Reused),
        fact("over private", "cdn-cache-control: max-age=3600\ncache-control: private", Reused),
        fact("over an Expires that is past", "cdn-cache-control: max-age=3600\nexpires: 0", Reused),
        fact("a shorter one counts", "cdn-cache-control: max-age=1\ncache-control: max-age=3600", Fetched)
            .later(5),
        fact("zero", "cdn-cache-control: max-age=0\ncache-control: max-age=3600", Fetched),
        fact("no-store", "cdn-cache-control: no-store\ncache-control: max-age=3600", Fetched),
        fact("private", "cdn-cache-control: private\ncache-control: max-age=3600", Fetched),
        fact("no-cache", "cdn-cache-control: no-cache\ncache-control: max-age=3600", Fetched),
        fact("Age counts", "cdn-cache-control: max-age=3600\nage: 7200", Fetched),
        fact("empty is absent", "cdn-cache-control: \ncache-control: max-age=3600", Reused),
        fact("garbage is absent", "cdn-cache-control: &&&&&\ncache-control: max-age=3600", Reused),
        fact("garbage makes nothing fresh", "cdn-cache-control: max-age=3600, &&&&&", Fetched),
        fact(
            "a quoted age is absent",
            "cdn-cache-control: max-age=\"3600\"\ncache-control: max-age=1",
            Fetched,
        )
        .later(5),
        fact(
            "a decimal age is absent",
            "cdn-cache-control: max-age=3600.5\ncache-control: max-age=1",
            Fetched,
        )
        .later(5),
        fact(
            "a negative age is stale",
            "cdn-cache-control: max-age=-1\ncache-control: max-age=3600",
            Fetched,
        ),
        fact("an unknown member counts for nothing", "cdn-cache-control: foo, max-age=3600", Reused),
        fact("parameters are ignored", "cdn-cache-control: max-age=3600;foo=bar", Reused),
        fact("on two lines", "cdn-cache-control: foo\ncdn-cache-control: max-age=3600", Reused),
        fact(
            "names are in small letters",
            "cdn-cache-control: MAX-AGE=3600\ncache-control: max-age=0",
            Fetched,
        ),
        fact("the last of two counts", "cdn-cache-control: max-age=0, max-age=3600", Reused),
        fact("no-store=?0 forbids nothing", "cdn-cache-control: max-age=3600, no-store=?0", Reused),
        fact(
            "Surrogate-Control is another's",
            "surrogate-control: max-age=3600\ncache-control: max-age=0",
            Fetched,
        ),
    ];
    let bench = Bench::new().await;
    bench.hold(FACTS).await;
    let target = bench.target();
    bench.answer(&target, 200, "cdn-cache-control: max-age=60", "v1");
    bench.get(&target, "").await.expect(200).with("cdn-cache-control", "max-age=60");
    bench.get(&target, "").await.expect(200).cache("hit").with("cdn-cache-control", "max-age=60");
    bench.finish().await;
}

#[tokio::test]
async fn age_is_told_and_the_origins_date_and_expires_are_kept() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.answer(&target, 200, "cache-control: max-age=3600\nage: 30\ndate: {i-100}\nexpires: {i+500}", "v1");
    let fetched = bench.get(&target, "").await.expect(200);
    let (date, expires) =
        (fetched.header("date").unwrap().to_owned(), fetched.header("expires").unwrap().to_owned());
    bench.later(50);
    let stored =
        bench.get(&target, "").await.expect(200).cache("hit").with("date", &date).with("expires", &expires);
    let age: u64 = stored.header("age").unwrap().parse().unwrap();
    assert!((150..153).contains(&age), "{age}");
    assert_eq!(stored.headers("age").len(), 1);
    assert_eq!(stored.headers("date").len(), 1);
    let parsed = vanne::cache::date::parse(date.as_bytes()).unwrap();
    let age_of_date = bench.now().since(parsed).as_secs();
    assert!((150..153).contains(&age_of_date), "the origin's Date, not ours: {date}");
    bench.finish().await;
}

#[tokio::test]
async fn an_answer_without_a_date_gets_one_when_it_arrives() {
    let bench = Bench::new().await;
    let target = bench.target();
    bench.answer(&target, 200, "cache-control: max-age=3600", "v1");
    let first = bench.get(&target, "").await.expect(200);
    let date = first.header("date").expect("a Date").to_owned();
    bench.later(100);
    bench.get(&target, "").await.expect(200).cache("hit").with("date", &date);
    bench.finish().await;
}
