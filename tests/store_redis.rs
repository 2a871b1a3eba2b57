//! The store over a real Redis, and over one that lies.
#![cfg(feature = "server")]

mod redis_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use redis_support::*;
use tokio::sync::Notify;
use vanne::base::clock::Clock;
use vanne::cache::record::{Stored, Variants, encode};
use vanne::cache::status::Tier;
use vanne::observe::metrics::Metrics;
use vanne::store::Absent;
use vanne::store::redis::RedisTier;

// What one gateway stores, all have.

#[tokio::test]
async fn what_one_gateway_stores_another_finds_and_keeps_in_memory() {
    let redis = Redis::start();
    let (one, two) = (Gateway::over(&redis.url()), Gateway::over(&redis.url()));
    let key = key("/a");
    let entry = answer(&key, "hello", &one.clock);
    one.until_up().await;
    one.put(&key, &entry);
    one.tier.flush().await;
    let found = two.lookup(&key).await;
    assert_eq!(found.tier, Tier::Redis);
    assert_eq!(**found.entry.as_ref().unwrap(), entry);
    let again = two.store.peek(&key, &HeaderMap::new());
    assert_eq!((text(&again).as_deref(), again.tier), (Some("hello"), Tier::Memory));
    assert_eq!((found.slot, again.slot), (key.hash(), key.hash()));
}

#[tokio::test]
async fn what_is_stored_nowhere_is_absent_without_trouble() {
    let redis = Redis::start();
    let found = Gateway::over(&redis.url()).lookup(&key("/a")).await;
    assert!(found.entry.is_none());
    assert_eq!((found.tier, found.absent, found.trouble), (Tier::Redis, Absent::Nothing, None));
}

#[tokio::test]
async fn an_answer_is_seen_at_once_by_who_stored_it_even_without_memory() {
    let redis = Redis::start();
    for gateway in [Gateway::over(&redis.url()), Gateway::bare(&redis.url())] {
        gateway.until_up().await;
        redis.pause();
        let key = key("/a");
        gateway.put(&key, &answer(&key, "mine", &gateway.clock));
        assert_eq!(text(&gateway.store.peek(&key, &HeaderMap::new())).as_deref(), Some("mine"));
        gateway.put(&key, &answer_for(&key, "de", "meins", &gateway.clock));
        assert_eq!(text(&gateway.lookup_for(&key, "de").await).as_deref(), Some("meins"));
        redis.resume();
        gateway.tier.flush().await;
    }
}

#[tokio::test]
async fn a_newer_answer_replaces_an_older() {
    let redis = Redis::start();
    let (one, two) = (Gateway::over(&redis.url()), Gateway::bare(&redis.url()));
    let key = key("/a");
    one.put(&key, &answer(&key, "old", &one.clock));
    one.put(&key, &answer(&key, "new", &one.clock));
    assert_eq!(text(&one.lookup(&key).await).as_deref(), Some("new"));
    one.tier.flush().await;
    assert_eq!(text(&two.lookup(&key).await).as_deref(), Some("new"));
}

#[tokio::test]
async fn entries_outlive_the_gateway_that_stored_them() {
    let redis = Redis::start();
    let key = key("/a");
    let one = Gateway::over(&redis.url());
    one.put(&key, &answer(&key, "kept", &one.clock));
    one.tier.flush().await;
    drop(one);
    assert_eq!(text(&Gateway::over(&redis.url()).lookup(&key).await).as_deref(), Some("kept"));
}

#[tokio::test]
async fn a_dropped_tier_still_writes_what_was_queued() {
    let redis = Redis::start();
    let (one, two) = (Gateway::over(&redis.url()), Gateway::bare(&redis.url()));
    let key = key("/a");
    one.put(&key, &answer(&key, "kept", &one.clock));
    drop(one);
    until_found(&two, &key, "kept").await;
}

async fn until_found(gateway: &Gateway, key: &vanne::cache::key::Key, body: &str) {
    for _ in 0..1000 {
        if text(&gateway.lookup(key).await).as_deref() == Some(body) {
            return;
        }
    }
    panic!("never found {body}");
}

// Variants.

#[tokio::test]
async fn each_request_gets_its_own_variant() {
    let redis = Redis::start();
    let (one, two) = (Gateway::over(&redis.url()), Gateway::over(&redis.url()));
    let key = key("/a");
    one.put(&key, &answer_for(&key, "de", "hallo", &one.clock));
    one.put(&key, &answer_for(&key, "fr", "salut", &one.clock));
    one.tier.flush().await;
    for gateway in [&one, &two, &two] {
        for (language, body) in [("de", Some("hallo")), ("fr", Some("salut")), ("it", None)] {
            let found = gateway.lookup_for(&key, language).await;
            assert_eq!(text(&found).as_deref(), body, "{language}");
            assert_eq!(found.trouble, None);
            assert_eq!(found.absent == Absent::OtherVariant, body.is_none(), "{language}");
        }
    }
    let slots = [two.lookup_for(&key, "de").await.slot, two.lookup_for(&key, "it").await.slot, key.hash()];
    assert!(slots[0] != slots[1] && slots[1] != slots[2] && slots[0] != slots[2]);
}

#[tokio::test]
async fn a_variant_costs_one_round_trip_once_the_varying_fields_are_known() {
    let redis = Redis::start();
    let (one, two) = (Gateway::over(&redis.url()), Gateway::over(&redis.url()));
    let key = key("/a");
    for language in ["de", "fr"] {
        one.put(&key, &answer_for(&key, language, language, &one.clock));
    }
    one.tier.flush().await;
    two.lookup_for(&key, "de").await;
    let _: String = redis.ask(&[b"CONFIG", b"RESETSTAT"]).await;
    assert_eq!(text(&two.lookup_for(&key, "fr").await).as_deref(), Some("fr"));
    let stats: String = redis.ask(&[b"INFO", b"commandstats"]).await;
    assert!(stats.contains("cmdstat_mget:calls=1,") && !stats.contains("cmdstat_get:"), "{stats}");
}

#[tokio::test]
async fn when_other_fields_choose_the_old_variants_are_gone() {
    let redis = Redis::start();
    let (one, two) = (Gateway::over(&redis.url()), Gateway::bare(&redis.url()));
    let key = key("/a");
    let mut other = answer_for(&key, "de", "by encoding", &one.clock);
    other.record.vary = vec!["accept-encoding".parse().unwrap()];
    other.record.variant = vanne::cache::vary::of_request(
        &other.record.vary,
        &HeaderMap::new(),
        vanne::cache::VaryRules::default(),
    );
    one.put(&key, &answer_for(&key, "de", "by language", &one.clock));
    one.put(&key, &other);
    one.put(&key, &answer_for(&key, "fr", "again by language", &one.clock));
    one.tier.flush().await;
    for gateway in [&one, &two] {
        assert_eq!(text(&gateway.lookup_for(&key, "de").await), None);
        assert_eq!(text(&gateway.lookup_for(&key, "fr").await).as_deref(), Some("again by language"));
    }
}

#[tokio::test]
async fn variants_stored_by_different_gateways_stand_side_by_side() {
    let redis = Redis::start();
    let (one, two) = (Gateway::over(&redis.url()), Gateway::over(&redis.url()));
    let key = key("/a");
    // Neither knows of the other's when it stores.
    one.put(&key, &answer_for(&key, "de", "hallo", &one.clock));
    one.tier.flush().await;
    two.put(&key, &answer_for(&key, "fr", "salut", &two.clock));
    two.tier.flush().await;
    for gateway in [&one, &two] {
        for (language, body) in [("de", "hallo"), ("fr", "salut")] {
            assert_eq!(text(&gateway.lookup_for(&key, language).await).as_deref(), Some(body));
        }
    }
}

#[tokio::test]
async fn all_that_lies_under_a_key_has_one_hash_tag() {
    let redis = Redis::start();
    let one = Gateway::over(&redis.url());
    let key = key("/a");
    one.put(&key, &answer_for(&key, "de", "hallo", &one.clock));
    one.put(&key, &answer_for(&key, "fr", "salut", &one.clock));
    one.tier.flush().await;
    let names = redis.names().await;
    assert_eq!(names.len(), 3);
    assert!(names.contains(&name_of(&key)));
    for name in names {
        let rest = name.strip_prefix(&name_of(&key)).unwrap();
        let parts: Vec<usize> = rest.split(':').map(str::len).collect();
        assert!(rest.is_empty() || parts == [0, 16, 32], "{name}");
    }
}

// Lifetimes.

#[tokio::test]
async fn every_key_expires_no_later_than_its_use() {
    let redis = Redis::start();
    let one = Gateway::over(&redis.url());
    let (a, b) = (key("/a"), key("/b"));
    one.put(&a, &answer(&a, "plain", &one.clock));
    one.put(&b, &answer_for(&b, "de", "hallo", &one.clock));
    one.tier.flush().await;
    let names = redis.names().await;
    assert_eq!(names.len(), 3);
    for name in names {
        let left: i64 = redis.ask(&[b"PTTL", name.as_bytes()]).await;
        assert!((1..=60_000).contains(&left), "{name}: {left}");
    }
}

#[tokio::test]
async fn a_marker_lives_as_long_as_its_longest_variant() {
    let redis = Redis::start();
    let key = key("/a");
    let one = Gateway::over(&redis.url());
    for (seconds, at_least) in [(10, 0), (600, 500_000), (20, 500_000)] {
        let mut entry = answer_for(&key, &seconds.to_string(), "x", &one.clock);
        entry.record.lifetime = Duration::from_secs(seconds);
        one.put(&key, &entry);
        one.tier.flush().await;
        let left: i64 = redis.ask(&[b"PTTL", name_of(&key).as_bytes()]).await;
        assert!((at_least..=600_000).contains(&left), "{left}");
    }
}

#[tokio::test]
async fn what_is_past_its_use_is_neither_stored_nor_served() {
    let redis = Redis::start();
    let one = Gateway::over(&redis.url());
    let (a, b) = (key("/a"), key("/b"));
    one.put(&a, &answer(&a, "short", &one.clock));
    one.tier.flush().await;
    one.clock.advance(Duration::from_secs(61));
    assert!(one.lookup(&a).await.entry.is_none());
    let mut past = answer(&b, "past", &one.clock);
    past.record.initial_age = Duration::from_secs(60);
    one.put(&b, &past);
    one.tier.flush().await;
    assert!(one.lookup(&b).await.entry.is_none());
    assert_eq!(redis.names().await, [name_of(&a)]);
}

#[tokio::test]
async fn a_lifetime_beyond_what_redis_can_count_is_cut() {
    let redis = Redis::start();
    let (one, two) = (Gateway::over(&redis.url()), Gateway::bare(&redis.url()));
    let key = key("/a");
    let mut entry = answer(&key, "eternal", &one.clock);
    entry.record.lifetime = Duration::MAX;
    one.put(&key, &entry);
    one.tier.flush().await;
    assert_eq!(text(&two.lookup(&key).await).as_deref(), Some("eternal"));
}

#[tokio::test]
async fn answers_too_large_are_not_kept() {
    let redis = Redis::start();
    let one = Gateway::over(&redis.url());
    let key = key("/a");
    one.put(&key, &answer(&key, &"x".repeat(1024 * 1024 + 1), &one.clock));
    one.tier.flush().await;
    assert!(one.lookup(&key).await.entry.is_none());
    one.put(&key, &answer(&key, &"x".repeat(1024 * 1024), &one.clock));
    one.tier.flush().await;
    assert!(one.store.peek(&key, &HeaderMap::new()).entry.is_some());
    assert!(Gateway::bare(&redis.url()).lookup(&key).await.entry.is_some());
}

// Not for sharing.

#[tokio::test]
async fn answers_not_for_sharing_are_known_as_such_for_a_time_and_until_one_is() {
    let redis = Redis::start();
    let one = Gateway::over(&redis.url());
    let key = key("/a");
    one.store.not_shared(&key, Duration::ZERO);
    assert_eq!(one.lookup(&key).await.absent, Absent::Nothing);
    one.store.not_shared(&key, Duration::from_secs(60));
    assert_eq!(one.lookup(&key).await.absent, Absent::NotShared);
    assert_eq!(one.store.peek(&key, &HeaderMap::new()).absent, Absent::NotShared);
    one.put(&key, &answer_for(&key, "de", "hallo", &one.clock));
    assert_eq!(one.lookup_for(&key, "fr").await.absent, Absent::OtherVariant);
}

// Invalidation.

#[tokio::test]
async fn what_was_invalidated_is_gone_for_all() {
    let redis = Redis::start();
    let (one, two) = (Gateway::over(&redis.url()), Gateway::bare(&redis.url()));
    let (a, b, c) = (key("/a"), key("/b"), key("/c"));
    one.put(&a, &answer(&a, "plain", &one.clock));
    one.put(&b, &answer_for(&b, "de", "hallo", &one.clock));
    one.put(&c, &answer(&c, "stays", &one.clock));
    one.tier.flush().await;
    one.store.invalidate(&a);
    one.store.invalidate(&b);
    for key in [&a, &b] {
        let found = one.lookup_for(key, "de").await;
        assert!(found.entry.is_none() && found.absent == Absent::Nothing);
    }
    one.tier.flush().await;
    for gateway in [&one, &two] {
        for key in [&a, &b] {
            let found = gateway.lookup_for(key, "de").await;
            assert!(found.entry.is_none() && found.absent == Absent::Nothing && found.trouble.is_none());
        }
        assert_eq!(text(&gateway.lookup(&c).await).as_deref(), Some("stays"));
    }
}

#[tokio::test]
async fn an_invalidation_takes_along_what_was_queued_before_it() {
    let redis = Redis::start();
    let one = Gateway::over(&redis.url());
    let key = key("/a");
    one.put(&key, &answer(&key, "plain", &one.clock));
    one.put(&key, &answer_for(&key, "de", "hallo", &one.clock));
    one.put(&key, &answer(&key, "plain", &one.clock));
    one.store.invalidate(&key);
    assert!(one.lookup(&key).await.entry.is_none());
    one.tier.flush().await;
    assert!(one.lookup(&key).await.entry.is_none());
    assert!(!redis.names().await.contains(&name_of(&key)));
}

#[tokio::test]
async fn what_is_stored_after_an_invalidation_stays_and_brings_no_old_variant_back() {
    let redis = Redis::start();
    let (one, two) = (Gateway::over(&redis.url()), Gateway::bare(&redis.url()));
    let key = key("/a");
    one.put(&key, &answer_for(&key, "de", "old", &one.clock));
    one.tier.flush().await;
    one.store.invalidate(&key);
    one.put(&key, &answer_for(&key, "fr", "new", &one.clock));
    one.tier.flush().await;
    for gateway in [&one, &two] {
        assert_eq!(text(&gateway.lookup_for(&key, "fr").await).as_deref(), Some("new"));
        assert_eq!(text(&gateway.lookup_for(&key, "de").await), None);
    }
}

#[tokio::test]
async fn a_gateway_that_missed_an_invalidation_does_not_bring_old_variants_back() {
    let redis = Redis::start();
    let (one, two) = (Gateway::over(&redis.url()), Gateway::over(&redis.url()));
    let key = key("/a");
    one.put(&key, &answer_for(&key, "de", "old", &one.clock));
    one.tier.flush().await;
    assert!(two.lookup_for(&key, "de").await.entry.is_some());
    // What another gateway's invalidation does in Redis, without the message that would tell of it.
    let _: i64 = redis.ask(&[b"DEL", name_of(&key).as_bytes()]).await;
    two.put(&key, &answer_for(&key, "fr", "new", &two.clock));
    two.tier.flush().await;
    let third = Gateway::bare(&redis.url());
    for gateway in [&two, &third] {
        assert_eq!(text(&gateway.lookup_for(&key, "fr").await).as_deref(), Some("new"));
        assert_eq!(text(&gateway.lookup_for(&key, "de").await), None);
    }
}

#[tokio::test]
async fn a_gateway_that_knows_the_varying_fields_still_sees_another_s_invalidation() {
    let redis = Redis::start();
    let (one, two) = (Gateway::over(&redis.url()), Gateway::over(&redis.url()));
    let key = key("/a");
    for language in ["de", "fr"] {
        one.put(&key, &answer_for(&key, language, language, &one.clock));
    }
    one.tier.flush().await;
    assert!(two.lookup_for(&key, "de").await.entry.is_some());
    one.store.invalidate(&key);
    one.tier.flush().await;
    let found = two.lookup_for(&key, "fr").await;
    assert!(found.entry.is_none() && found.absent == Absent::Nothing);
}

#[tokio::test]
async fn an_answer_whose_fetch_began_before_an_invalidation_is_not_kept() {
    let redis = Redis::start();
    let one = Gateway::over(&redis.url());
    let key = key("/a");
    let began = one.store.began(&key);
    one.store.invalidate(&key);
    one.store.put_since(&key, Arc::new(answer(&key, "before", &one.clock)), began);
    assert!(one.lookup(&key).await.entry.is_none());
    one.tier.flush().await;
    assert!(one.lookup(&key).await.entry.is_none());
    let began = one.store.began(&key);
    one.put(&key, &answer(&key, "meanwhile", &one.clock));
    one.store.put_since(&key, Arc::new(answer(&key, "after", &one.clock)), began);
    assert_eq!(text(&one.lookup(&key).await).as_deref(), Some("after"));
}

#[tokio::test]
async fn changes_to_other_keys_keep_no_answer_from_being_kept_or_shared() {
    let redis = Redis::start();
    let one = Gateway::over(&redis.url());
    let here = key("/a");
    let began = one.store.began(&here);
    for other in 0..4000 {
        one.store.invalidate(&key(&format!("/other/{other}")));
    }
    assert!(one.store.unchanged_since(&here, began), "who asks now may share the fetch");
    one.store.put_since(&here, Arc::new(answer(&here, "mine", &one.clock)), began);
    assert_eq!(text(&one.lookup(&here).await).as_deref(), Some("mine"));
    one.store.invalidate(&here);
    assert!(!one.store.unchanged_since(&here, began));
}

/// A Redis whose GET waits for leave and then gives what it gave before; also tells when one has come.
async fn stalling(value: Vec<u8>) -> (Fake, Arc<Notify>, Arc<Notify>) {
    let (asked, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (asked.clone(), leave.clone());
    let fake = Fake::start(move |words| match words[0].as_slice() {
        b"GET" => {
            tell.notify_one();
            Reply::Stall(wait.clone(), bulk(&value))
        }
        _ => Reply::Bytes(b":1\r\n".to_vec()),
    });
    (fake.await, asked, leave)
}

#[tokio::test]
async fn a_lookup_that_began_before_an_invalidation_does_not_bring_the_answer_back() {
    let key = key("/a");
    let (fake, asked, leave) = stalling(stored(&answer(&key, "old", &Clock::start()))).await;
    let one = Gateway::over(&fake.url);
    let store = one.store.clone();
    let asking = key.clone();
    let lookup = tokio::spawn(async move { store.lookup(&asking, &HeaderMap::new()).await });
    asked.notified().await;
    one.store.invalidate(&key);
    leave.notify_one();
    assert_eq!(lookup.await.unwrap().trouble, None);
    assert!(one.store.peek(&key, &HeaderMap::new()).entry.is_none());
}

#[tokio::test]
async fn a_lookup_that_began_before_a_newer_answer_does_not_replace_it() {
    let key = key("/a");
    let (fake, asked, leave) = stalling(stored(&answer(&key, "old", &Clock::start()))).await;
    let one = Gateway::over(&fake.url);
    let store = one.store.clone();
    let asking = key.clone();
    let lookup = tokio::spawn(async move { store.lookup(&asking, &HeaderMap::new()).await });
    asked.notified().await;
    one.put(&key, &answer(&key, "new", &one.clock));
    leave.notify_one();
    lookup.await.unwrap();
    assert_eq!(text(&one.store.peek(&key, &HeaderMap::new())).as_deref(), Some("new"));
}

#[tokio::test]
async fn a_removal_that_redis_refuses_is_made_again_and_until_then_redis_is_not_asked() {
    let key = key("/a");
    let value = bulk(&stored(&answer(&key, "old", &Clock::start())));
    let (removals, reads) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (seen, asked) = (removals.clone(), reads.clone());
    let fake = Fake::start(move |words| match words[0].as_slice() {
        b"GET" if asked.fetch_add(1, Ordering::SeqCst) < 1000 && seen.load(Ordering::SeqCst) < 2 => {
            Reply::Bytes(value.clone())
        }
        b"DEL" if seen.fetch_add(1, Ordering::SeqCst) == 0 => {
            Reply::Bytes(b"-READONLY You can't write against a read only replica.\r\n".to_vec())
        }
        b"DEL" => Reply::Bytes(b":1\r\n".to_vec()),
        _ => nil(),
    });
    let one = Gateway::over(&fake.await.url);
    assert!(one.lookup(&key).await.entry.is_some());
    one.store.invalidate(&key);
    one.tier.flush().await;
    assert!(one.lookup(&key).await.entry.is_none());
    assert_eq!(reads.load(Ordering::SeqCst), 1);
    until("the removal is made again", || removals.load(Ordering::SeqCst) == 2).await;
}

#[tokio::test]
async fn an_invalidation_made_while_redis_hangs_holds_when_it_is_back() {
    let redis = Redis::start();
    let one = Gateway::over(&redis.url());
    let key = key("/a");
    one.put(&key, &answer(&key, "old", &one.clock));
    one.tier.flush().await;
    redis.pause();
    one.store.invalidate(&key);
    one.tier.flush().await;
    redis.resume();
    one.until_up().await;
    for _ in 0..100 {
        assert!(one.lookup(&key).await.entry.is_none());
    }
    while redis.names().await.contains(&name_of(&key)) {
        assert!(one.lookup(&key).await.entry.is_none());
    }
}

// Damage.

#[tokio::test]
async fn a_damaged_value_is_a_miss_with_a_reason_and_is_removed() {
    let redis = Redis::start();
    let one = Gateway::bare(&redis.url());
    let key = key("/a");
    let good = stored(&answer(&key, "content", &one.clock));
    let mut flipped = good.clone();
    flipped[good.len() - 3] ^= 4;
    for bad in [&flipped[..], &good[..good.len() - 1], b"", b"hello", &[0; 100]] {
        let _: String = redis.ask(&[b"SET", name_of(&key).as_bytes(), bad]).await;
        let found = one.lookup(&key).await;
        assert!(found.entry.is_none());
        assert_eq!(found.trouble, Some("redis-damaged"));
        one.tier.flush().await;
        assert!(redis.names().await.is_empty());
    }
}

#[tokio::test]
async fn a_damaged_variant_is_a_miss_with_a_reason_and_is_removed() {
    let redis = Redis::start();
    let one = Gateway::bare(&redis.url());
    let key = key("/a");
    one.put(&key, &answer_for(&key, "de", "hallo", &one.clock));
    one.tier.flush().await;
    let names = redis.names().await;
    let variant = names.iter().find(|name| **name != name_of(&key)).unwrap();
    let _: i64 = redis.ask(&[b"SETRANGE", variant.as_bytes(), b"40", b"damage"]).await;
    let found = one.lookup_for(&key, "de").await;
    assert!(found.entry.is_none());
    assert_eq!((found.trouble, found.absent), (Some("redis-damaged"), Absent::OtherVariant));
    one.tier.flush().await;
    assert_eq!(redis.names().await, [name_of(&key)]);
}

#[tokio::test]
async fn a_damaged_marker_is_replaced_by_the_next_answer() {
    let redis = Redis::start();
    let (one, two) = (Gateway::over(&redis.url()), Gateway::bare(&redis.url()));
    let key = key("/a");
    one.put(&key, &answer_for(&key, "de", "hallo", &one.clock));
    one.tier.flush().await;
    // The checksum: what the script compares is untouched.
    let _: i64 = redis.ask(&[b"SETRANGE", name_of(&key).as_bytes(), b"6", b"\xff\xfe\xfd"]).await;
    two.put(&key, &answer_for(&key, "fr", "salut", &two.clock));
    two.tier.flush().await;
    let third = Gateway::bare(&redis.url());
    assert_eq!(text(&third.lookup_for(&key, "fr").await).as_deref(), Some("salut"));
}

#[tokio::test]
async fn another_key_s_answer_is_never_served_though_the_hashes_collide() {
    let redis = Redis::start();
    let one = Gateway::bare(&redis.url());
    let (mine, other) = (key("/mine"), key("/other"));
    let marker = Variants { key: other.shared_text(), names: Vec::new(), generation: 1 };
    for value in [stored(&answer(&other, "other's", &one.clock)), encode(&Stored::Variants(marker))] {
        let _: String = redis.ask(&[b"SET", name_of(&mine).as_bytes(), &value]).await;
        let found = one.lookup(&mine).await;
        assert!(found.entry.is_none() && found.trouble.is_none());
    }
}

#[tokio::test]
async fn another_request_s_variant_is_never_served_though_the_hashes_collide() {
    let redis = Redis::start();
    let one = Gateway::bare(&redis.url());
    let key = key("/a");
    one.put(&key, &answer_for(&key, "de", "hallo", &one.clock));
    one.tier.flush().await;
    let names = redis.names().await;
    let variant = names.iter().find(|name| **name != name_of(&key)).unwrap();
    let other = stored(&answer_for(&key, "fr", "salut", &one.clock));
    let _: String = redis.ask(&[b"SET", variant.as_bytes(), &other]).await;
    assert!(one.lookup_for(&key, "de").await.entry.is_none());
}

// Redis away.

#[tokio::test]
async fn an_absent_redis_delays_nothing_and_memory_serves() {
    let one = Gateway::over(&format!("redis://{}/", free_address()));
    let key = key("/a");
    for _ in 0..10 {
        let (found, took) = one.timed(&key).await;
        assert!(found.entry.is_none() && found.trouble.is_some());
        assert!(took < BUDGET + SLACK, "{took:?}");
    }
    assert!(!one.tier.is_up());
    one.put(&key, &answer(&key, "local", &one.clock));
    one.tier.flush().await;
    assert_eq!(text(&one.lookup(&key).await).as_deref(), Some("local"));
}

#[tokio::test]
async fn a_redis_that_dies_is_left_alone_and_used_again_when_back() {
    let mut redis = Redis::start();
    let one = Gateway::bare(&redis.url());
    let key = key("/a");
    one.until_up().await;
    redis.kill();
    let mut troubles = Vec::new();
    for _ in 0..20 {
        one.put(&key, &answer(&key, "lost", &one.clock));
        let (_, took) = one.timed(&key).await;
        assert!(took < BUDGET + SLACK, "{took:?}");
        one.tier.flush().await;
        troubles.extend(one.lookup(&key).await.trouble);
    }
    assert_eq!(troubles.last(), Some(&"redis-circuit-open"));
    redis.restart();
    let back = one.clock.mono();
    one.until_up().await;
    assert!(one.clock.mono().since(back) < Duration::from_secs(2));
    one.put(&key, &answer(&key, "again", &one.clock));
    one.tier.flush().await;
    let found = one.lookup(&key).await;
    assert_eq!((text(&found).as_deref(), found.trouble), (Some("again"), None));
}

#[tokio::test]
async fn a_redis_that_hangs_costs_a_few_budgets_and_is_used_again_when_it_wakes() {
    let redis = Redis::start();
    let one = Gateway::bare(&redis.url());
    let key = key("/a");
    one.put(&key, &answer(&key, "kept", &one.clock));
    one.tier.flush().await;
    redis.pause();
    let mut troubles = Vec::new();
    for _ in 0..10 {
        let (found, took) = one.timed(&key).await;
        assert!(took < BUDGET + SLACK, "{took:?}");
        troubles.extend(found.trouble);
    }
    assert_eq!(troubles[..5], ["redis-timeout"; 5]);
    assert_eq!(troubles[5..], ["redis-circuit-open"; 5]);
    redis.resume();
    let back = one.clock.mono();
    one.until_up().await;
    assert!(one.clock.mono().since(back) < Duration::from_secs(2));
    assert_eq!(text(&one.lookup(&key).await).as_deref(), Some("kept"));
}

#[tokio::test]
async fn every_way_to_lie_is_a_miss_with_a_reason_within_the_budget() {
    type Lie = fn() -> Reply;
    let lies: [(&str, Lie, &str); 12] = [
        ("hangs", || Reply::Hang, "redis-timeout"),
        ("closes", || Reply::Close(Vec::new()), "redis-connection"),
        ("half a reply, then hangs", || Reply::Bytes(b"$100\r\nabc".to_vec()), "redis-timeout"),
        ("half a reply, then closes", || Reply::Close(b"$100\r\nabc".to_vec()), "redis-connection"),
        ("garbage", || Reply::Bytes(b"\xff\x00garbage\r\n\r\n".to_vec()), "redis-connection"),
        (
            "another protocol",
            || Reply::Bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
            "redis-connection",
        ),
        (
            "loading",
            || Reply::Bytes(b"-LOADING Redis is loading the dataset in memory\r\n".to_vec()),
            "redis-loading",
        ),
        (
            "no permission",
            || Reply::Bytes(b"-NOAUTH Authentication required.\r\n".to_vec()),
            "redis-connection",
        ),
        ("a number", || Reply::Bytes(b":1\r\n".to_vec()), "redis-connection"),
        ("a list", || Reply::Bytes(b"*1\r\n$1\r\na\r\n".to_vec()), "redis-connection"),
        ("an endless length", || Reply::Bytes(b"$9223372036854775807\r\n".to_vec()), "redis-timeout"),
        ("not our value", || Reply::Bytes(bulk(b"hello")), "redis-damaged"),
    ];
    for (what, lie, trouble) in lies {
        let fake = Fake::start(move |words| match words[0].as_slice() {
            b"GET" => lie(),
            _ => Reply::Bytes(b":1\r\n".to_vec()),
        });
        let one = Gateway::over(&fake.await.url);
        one.until_up().await;
        let (found, took) = one.timed(&key("/a")).await;
        assert!(found.entry.is_none(), "{what}");
        assert_eq!(found.trouble, Some(trouble), "{what}");
        assert!(took < BUDGET + SLACK, "{what}: {took:?}");
    }
}

#[tokio::test]
async fn an_answer_to_another_question_is_not_served() {
    let (a, b) = (key("/a"), key("/b"));
    let value = bulk(&stored(&answer(&b, "b's", &Clock::start())));
    // One reply too many: from then on every answer is one question late.
    let fake = Fake::start(move |_| Reply::Bytes([&value[..], &value[..]].concat()));
    let one = Gateway::over(&fake.await.url);
    for _ in 0..10 {
        assert!(one.lookup(&a).await.entry.is_none());
    }
}

#[tokio::test]
async fn writes_that_redis_refuses_leave_memory_as_it_is() {
    let redis = Redis::with(&["--maxmemory", "1"]);
    let one = Gateway::over(&redis.url());
    let (a, b) = (key("/a"), key("/b"));
    one.put(&a, &answer(&a, "plain", &one.clock));
    one.put(&b, &answer_for(&b, "de", "hallo", &one.clock));
    one.tier.flush().await;
    assert!(redis.names().await.is_empty());
    // Redis knows nothing of the variants; that must not make memory forget them.
    assert!(one.lookup_for(&b, "fr").await.entry.is_none());
    assert_eq!(text(&one.lookup_for(&b, "de").await).as_deref(), Some("hallo"));
    assert_eq!(text(&one.lookup(&a).await).as_deref(), Some("plain"));
    assert!(one.lookup(&key("/c")).await.trouble.is_none());
}

#[tokio::test]
async fn both_reads_of_a_lookup_share_one_budget() {
    let key = key("/a");
    let marker = Variants { key: key.shared_text(), names: Vec::new(), generation: 1 };
    let value = bulk(&encode(&Stored::Variants(marker)));
    let first = name_of(&key);
    let fake = Fake::start(move |words| match words {
        [get, name] if get == b"GET" && *name == first.as_bytes() => Reply::Bytes(value.clone()),
        _ => Reply::Hang,
    });
    let one = Gateway::over(&fake.await.url);
    let (found, took) = one.timed(&key).await;
    assert_eq!((found.trouble, found.absent), (Some("redis-timeout"), Absent::OtherVariant));
    assert!(took < BUDGET + SLACK, "{took:?}");
}

// Ways to reach it.

#[tokio::test]
async fn a_password_and_a_database_are_used() {
    let redis = Redis::with(&["--requirepass", "s3cret"]);
    let url = format!("redis://:s3cret@{}/2", redis.addr());
    let (one, two) = (Gateway::over(&url), Gateway::over(&url));
    let key = key("/a");
    one.put(&key, &answer(&key, "hello", &one.clock));
    one.tier.flush().await;
    assert_eq!(text(&two.lookup(&key).await).as_deref(), Some("hello"));
    let names: Vec<String> = ask(&url, &[b"KEYS", b"*"]).await;
    assert!(names.contains(&name_of(&key)), "{names:?}");
    let wrong = Gateway::over(&format!("redis://:wrong@{}/2", redis.addr()));
    assert!(wrong.lookup(&key).await.trouble.is_some());
}

#[tokio::test]
async fn a_unix_socket_will_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let _redis = Redis::with(&["--unixsocket", path.to_str().unwrap()]);
    for scheme in ["redis+unix", "unix"] {
        let url = format!("{scheme}://{}", path.display());
        let (one, two) = (Gateway::over(&url), Gateway::over(&url));
        let key = key(scheme);
        one.put(&key, &answer(&key, "hello", &one.clock));
        one.tier.flush().await;
        assert_eq!(text(&two.lookup(&key).await).as_deref(), Some("hello"));
    }
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_refused_without_being_repeated() {
    for url in [
        "",
        "s3cret",
        "http://:s3cret@localhost/",
        "redis://:s3cret@localhost:99999/",
        "redis://:s3cret@localhost/database",
        "redis+sentinel://:s3cret@localhost",
    ] {
        let plan = plan(url);
        let metrics = Metrics::new(&plan).redis();
        let refused = RedisTier::new(plan.redis.as_ref().unwrap(), Arc::new(Clock::start()), metrics);
        let Err(why) = refused else { panic!("{url}") };
        assert!(why.starts_with("url: ") && !why.contains("s3cret"), "{why}");
    }
}

#[test]
fn a_lookup_may_move_between_threads() {
    fn is_send<T: Send>(
        _: impl FnOnce(&'static Gateway, &'static vanne::cache::key::Key, &'static HeaderMap) -> T,
    ) {
    }
    is_send(|gateway, key, fields| gateway.store.lookup(key, fields));
}
