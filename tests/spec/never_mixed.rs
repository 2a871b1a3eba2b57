//! Two virtual hosts, two users with tokens, two languages, one URL: whatever way an answer comes, it is the one made for who asked.

use crate::edge::Edge;
use crate::support::client::{Answer, Client};
use crate::support::gate::Gate;
use crate::support::origin::{Origin, Reply, Request, reply};
use crate::support::poll_until;
use crate::support::redis::Redis;

/// Askers of each kind who come at once.
const CROWD: usize = 6;
/// Each user has answers of their own: the token is part of the key.
const BY_TOKEN: &str = "[caches.api.key]\nheaders = [\"Authorization\"]";

/// Who asks: all that makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asker {
    host: &'static str,
    token: &'static str,
    language: &'static str,
}

fn askers() -> Vec<Asker> {
    let mut all = Vec::new();
    for host in ["one.example", "two.example"] {
        for token in ["Bearer anna", "Bearer berta"] {
            for language in ["de", "fr"] {
                all.push(Asker { host, token, language });
            }
        }
    }
    all
}

impl Asker {
    async fn ask(self, client: Client) -> Answer {
        let ask = client.get("/mine").host(self.host);
        ask.header("authorization", self.token).header("accept-language", self.language).send().await
    }

    /// What is made for this one and nobody else.
    fn own(self) -> String {
        format!("{} {} {}", self.host, self.token, self.language)
    }
}

/// What the origin makes of a request: it names who asked.
fn made_for(request: &Request, directives: &str) -> Reply {
    let said = |name| request.header(name).unwrap_or("nobody").to_owned();
    let body = format!("{} {} {}", said("host"), said("authorization"), said("accept-language"));
    reply(200).cache(directives).header("vary", "Accept-Language").body(body)
}

async fn origin(directives: &'static str) -> Origin {
    Origin::new().on_request("/mine", move |request| made_for(request, directives)).start().await
}

/// All ask, one after another, twice; each gets their own.
async fn all_get_their_own(edge: &Edge, expected: &str) {
    for asker in askers() {
        asker.ask(edge.client.clone()).await.expect(200).body(asker.own()).cache(expected);
    }
}

#[tokio::test]
async fn from_memory() {
    let origin = origin("max-age=600").await;
    let edge = Edge::serving(&origin).cache(BY_TOKEN).start().await;
    all_get_their_own(&edge, "stored").await;
    all_get_their_own(&edge, "vanne-mem; hit").await;
    edge.send_hits_the_long_way();
    all_get_their_own(&edge, "vanne-mem; hit").await;
    assert_eq!(origin.hits("/mine"), askers().len());
    edge.finish().await;
}

#[tokio::test]
async fn from_redis_through_another_gateway() {
    let redis = Redis::start().await;
    let origin = origin("max-age=600").await;
    let start = || Edge::serving(&origin).cache(BY_TOKEN).redis(&redis.url()).start_with_redis();
    let (one, two) = (start().await, start().await);
    all_get_their_own(&one, "stored").await;
    one.flush_redis().await;
    all_get_their_own(&two, "vanne-redis; hit").await;
    all_get_their_own(&two, "vanne-mem; hit").await;
    assert_eq!(origin.hits("/mine"), askers().len());
    one.finish().await;
    two.finish().await;
}

/// Many of each kind ask while the first fetch hangs; then everything is let go.
async fn crowd(cache: &str, directives: &'static str) -> (Vec<(Asker, Answer)>, Origin, Edge) {
    let gate = Gate::new("the first answers");
    let held = gate.clone();
    let origin = Origin::new()
        .on_request("/mine", move |request| made_for(request, directives).gate(&held))
        .start()
        .await;
    let edge = Edge::serving(&origin).cache(cache).start().await;
    let mut asked = Vec::new();
    for asker in askers().into_iter().cycle().take(askers().len() * CROWD) {
        asked.push((asker, tokio::spawn(asker.ask(edge.client.clone()))));
    }
    gate.arrived(1).await;
    let all = (askers().len() * CROWD) as f64;
    poll_until("all to be in flight", || async { edge.metric("vanne_requests_in_flight") == Some(all) })
        .await;
    gate.release();
    let mut answers = Vec::new();
    for (asker, answer) in asked {
        answers.push((asker, answer.await.expect("asked")));
    }
    (answers, origin, edge)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_many_share_a_fetch() {
    let (answers, origin, edge) = crowd(BY_TOKEN, "max-age=600").await;
    for (asker, answer) in answers {
        answer.expect(200).body(asker.own());
    }
    assert_eq!(origin.hits("/mine"), askers().len(), "one fetch for each kind, shared by all of it");
    edge.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_answers_to_tokens_are_not_for_sharing() {
    let (answers, origin, edge) = crowd("", "max-age=600").await;
    for (asker, answer) in answers {
        answer.expect(200).body(asker.own());
    }
    assert_eq!(origin.hits("/mine"), askers().len() * CROWD, "everybody's own fetch (RFC 9111 §3.5)");
    all_get_their_own(&edge, "fwd=uri-miss; detail=authorization").await;
    edge.finish().await;
}

/// An origin that says `public` says that the token makes no difference: then it is shared by all users, yet by hosts and languages apart.
#[tokio::test]
async fn where_the_origin_says_that_tokens_make_no_difference() {
    let origin = Origin::new()
        .on_request("/mine", |request| {
            let said = |name| request.header(name).unwrap_or("nobody").to_owned();
            let body = format!("{} {}", said("host"), said("accept-language"));
            reply(200).cache("public, max-age=600").header("vary", "Accept-Language").body(body)
        })
        .start()
        .await;
    let edge = Edge::serving(&origin).start().await;
    for asker in askers() {
        let own = format!("{} {}", asker.host, asker.language);
        asker.ask(edge.client.clone()).await.expect(200).body(own);
    }
    assert_eq!(origin.hits("/mine"), 4);
    edge.finish().await;
}
