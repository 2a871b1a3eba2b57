//! What an operator sees of what is stored, and how it gets there before anybody asks: `vanne cache get | ls | stats | warm`.

use serde_json::Value;

use crate::support::client::Client;
use crate::support::gate::Gate;
use crate::support::origin::{Origin, reply};
use crate::support::process::{Process, Program};
use crate::support::redis::Redis;
use crate::support::{free_address, poll_until};

const TOKEN: &str = "0123456789abcdef";

/// A gateway as a process, and the file it runs with.
struct Place {
    file: String,
    client: Client,
    admin: Client,
    process: Process,
}

impl Place {
    async fn before(origin: &Origin, redis: Option<&Redis>) -> Self {
        let (web, admin, instance) = (free_address(), free_address(), origin.address());
        let redis = redis
            .map_or(String::new(), |redis| format!("[redis]\nurl = \"{}\"\ntimeout = \"5s\"\n", redis.url()));
        let text = format!(
            "[listen.web]\naddr = \"{web}\"\n[admin]\naddr = \"{admin}\"\ntoken = \"{TOKEN}\"\n[log]\naccess = \"off\"\n{redis}\
             [upstreams.api]\nservers = [\"{instance}\"]\n[caches.api]\n[[routes]]\nupstream = \"api\"\ncache = \"api\"\n"
        );
        let process = Program::gateway(&text).ready_at(admin).start().await;
        let file = process.folder().join("vanne.toml").to_str().expect("a path in UTF-8").to_owned();
        let admin = Client::new(admin);
        if !redis.is_empty() {
            poll_until("Redis to be in use", || async {
                admin.get("/metrics").send().await.text().contains("vanne_redis_up 1")
            })
            .await;
        }
        Self { file, client: Client::new(web).with_host("shop.test"), admin, process }
    }

    /// Runs `vanne cache …` to its end: its exit code, and what it wrote to standard output and error.
    async fn cache(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut program = Program::new(env!("CARGO_BIN_EXE_vanne")).arg("cache");
        for argument in arguments {
            program = program.arg(argument);
        }
        let mut process = program.arg("-c").arg(&self.file).start().await;
        let code = process.wait().await.code().expect("it was not killed");
        process.wait_for_ends().await;
        (code, process.stdout(), process.stderr())
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.cache(&[arguments, &["--json"]].concat()).await;
        assert_eq!(code, 0, "{out}{err}");
        serde_json::from_str(&out).unwrap_or_else(|wrong| panic!("{wrong}: {out}"))
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.process.folder().join(name);
        std::fs::write(&path, text).expect("a writable folder");
        path.to_str().expect("a path in UTF-8").to_owned()
    }
}

async fn shop() -> Origin {
    Origin::new()
        .on_request("*", |request| {
            let language = request.header("accept-language").unwrap_or("none").to_owned();
            match request.path() {
                "/broken" => reply(500),
                "/mine" => reply(200).cache("private").body("mine"),
                "/language" => {
                    reply(200).cache("max-age=600").header("vary", "Accept-Language").body(language)
                }
                _ => reply(200).cache("max-age=600").header("cache-tag", "shop, all").body("0123456789"),
            }
        })
        .start()
        .await
}

#[tokio::test]
async fn one_stored_answer_is_shown_with_its_head_and_tiers() {
    let redis = Redis::start().await;
    let origin = shop().await;
    let place = Place::before(&origin, Some(&redis)).await;
    let (code, _, err) = place.cache(&["get", "http://shop.test/a?x=1"]).await;
    assert_eq!((code, err.trim()), (1, "vanne: nothing is stored there"));
    place.client.get("/a?x=1").send().await.expect(200);
    poll_until("Redis to hold it", || async { redis.keys("*}").await.len() == 1 }).await;

    let looked = place.json(&["get", "http://shop.test/a?x=1"]).await;
    let entries = looked["entries"].as_array().expect("entries");
    assert_eq!(entries.iter().map(|e| e["tier"].as_str().unwrap()).collect::<Vec<_>>(), ["memory", "redis"]);
    for entry in entries {
        assert_eq!(entry["url"], "http://shop.test/a?x=1");
        assert_eq!(
            (&entry["status"], &entry["size"], &entry["state"]),
            (&200.into(), &10.into(), &"fresh".into())
        );
        assert_eq!(entry["tags"], serde_json::json!(["shop", "all"]));
        assert!(entry["ttl"].as_i64().unwrap() > 500 && entry["age"].as_u64().unwrap() < 60, "{entry}");
        assert_eq!(entry["fields"]["cache-control"][0], "max-age=600");
    }
    let (_, text, _) = place.cache(&["get", "http://shop.test/a?x=1"]).await;
    assert!(
        text.contains("memory of api: 200, fresh") && text.contains("redis of api: 200, fresh"),
        "{text}"
    );

    let (code, ..) = place.cache(&["purge", "--tag", "shop"]).await;
    assert_eq!(code, 0);
    let looked = place.json(&["get", "http://shop.test/a?x=1"]).await;
    assert!(looked["entries"].as_array().unwrap().iter().all(|entry| entry["state"] == "purged"), "{looked}");
    let (code, ..) = place.cache(&["get", "http://shop.test/a"]).await;
    assert_eq!(code, 1, "another URL");
}

#[tokio::test]
async fn of_several_answers_that_of_the_request_is_shown() {
    let origin = shop().await;
    let place = Place::before(&origin, None).await;
    place.client.get("/language").header("accept-language", "de").send().await.expect(200);
    let looked = place.json(&["get", "http://shop.test/language", "-H", "Accept-Language: de"]).await;
    assert_eq!(looked["vary"], serde_json::json!(["accept-language"]));
    assert_eq!(looked["entries"][0]["variant"]["accept-language"], "de");
    let (code, text, _) = place.cache(&["get", "http://shop.test/language"]).await;
    assert!(code == 1 && text.contains("varies by accept-language"), "{text}");
    place.client.get("/mine").send().await.expect(200);
    let (_, text, _) = place.cache(&["get", "http://shop.test/mine"]).await;
    assert!(text.contains("not for sharing"), "{text}");
}

#[tokio::test]
async fn what_memory_holds_is_listed_by_prefix_and_bounded() {
    let origin = shop().await;
    let place = Place::before(&origin, None).await;
    for target in ["/img/1", "/img/2", "/img/3", "/other"] {
        place.client.get(target).send().await.expect(200);
    }
    let urls = |listed: &Value| -> Vec<String> {
        let entries = listed["entries"].as_array().expect("entries");
        entries.iter().map(|entry| entry["url"].as_str().unwrap().to_owned()).collect()
    };
    let listed = place.json(&["ls", "shop.test/img/"]).await;
    assert_eq!((listed["tier"].as_str(), listed["more"].as_bool()), (Some("memory"), Some(false)));
    let img = ["http://shop.test/img/1", "http://shop.test/img/2", "http://shop.test/img/3"];
    assert_eq!(urls(&listed), img);
    assert_eq!(urls(&place.json(&["ls"]).await).len(), 4);
    assert_eq!(urls(&place.json(&["ls", "https://shop.test/"]).await).len(), 0);
    let listed = place.json(&["ls", "--limit", "2"]).await;
    assert_eq!((urls(&listed).len(), listed["more"].as_bool()), (2, Some(true)));
    let (_, text, _) = place.cache(&["ls", "http://shop.test/o"]).await;
    assert!(text.starts_with("STATUS") && text.contains("http://shop.test/other"), "{text}");
}

#[tokio::test]
async fn figures_are_shown_for_each_tier() {
    let redis = Redis::start().await;
    let origin = shop().await;
    let place = Place::before(&origin, Some(&redis)).await;
    for target in ["/a", "/a", "/b"] {
        place.client.get(target).send().await.expect(200);
    }
    let stats = place.json(&["stats"]).await;
    let cache = &stats["caches"][0];
    assert_eq!((&cache["name"], &cache["entries"]), (&"api".into(), &2.into()));
    assert_eq!((&cache["memory_hits"], &cache["redis_misses"]), (&1.into(), &2.into()));
    assert_eq!((&cache["stored"], &cache["evicted"]), (&2.into(), &0.into()));
    assert_eq!(stats["redis"]["up"], true);
    assert!(stats["redis"]["keys"].as_u64().is_some_and(|keys| keys > 0), "{stats}");
    assert!(stats["redis"]["used_memory"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");
    let (_, text, _) = place.cache(&["stats"]).await;
    assert!(text.contains("memory") && text.contains("redis: up"), "{text}");
}

#[tokio::test]
async fn what_is_stored_is_shown_to_those_with_the_token_alone() {
    let origin = shop().await;
    let place = Place::before(&origin, None).await;
    for (method, path) in
        [("GET", "/api/v1/cache/stats"), ("POST", "/api/v1/cache/get"), ("POST", "/api/v1/cache/ls")]
    {
        place.admin.request(method, path).body("{}").send().await.expect(401);
        let wrong = place.admin.request(method, path).header("authorization", "Bearer 0123456789abcdeX");
        wrong.body("{}").send().await.expect(401);
    }
    let right = |path: &str, body: &str| {
        let authorization = format!("Bearer {TOKEN}");
        place.admin.request("POST", path).header("authorization", &authorization).body(body).send()
    };
    right("/api/v1/cache/get", "{\"url\":\"nonsense\"}").await.expect(400);
    right("/api/v1/cache/ls", "{\"what\":1}").await.expect(400);
    right("/api/v1/cache/ls", "{}").await.expect(200);
}

#[tokio::test]
async fn a_list_is_fetched_before_anybody_asks() {
    let origin = shop().await;
    let place = Place::before(&origin, None).await;
    let list = place.write("list.txt", "# the shop\nhttp://shop.test/1\n\n/2\nhttp://shop.test/1\n/mine\n");
    let tally = place.json(&["warm", "--list", &list, "--host", "shop.test"]).await;
    let count = |tally: &Value, name: &str| tally[name].as_u64().unwrap_or(u64::MAX);
    let all = ["asked", "stored", "hit", "not_stored", "failed"];
    assert_eq!(all.map(|name| count(&tally, name)), [3, 2, 0, 1, 0], "{tally}");
    for target in ["/1", "/2"] {
        place.client.get(target).send().await.expect(200).cache("hit");
    }
    let tally = place.json(&["warm", "--list", &list, "--host", "shop.test"]).await;
    assert_eq!(all.map(|name| count(&tally, name)), [3, 0, 2, 1, 0], "{tally}");

    let list = place.write("list.txt", "http://shop.test/broken\nhttp://shop.test/3\n");
    let (code, out, err) = place.cache(&["warm", "--list", &list]).await;
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("1 stored") && out.contains("http://shop.test/broken: answered 500"), "{out}");
    assert!(err.contains("1 of 2 failed"), "{err}");
    let list = place.write("list.txt", "/without-a-host\n");
    assert_eq!(place.cache(&["warm", "--list", &list]).await.0, 2);
    assert_eq!(place.cache(&["warm"]).await.0, 2, "nothing to fetch");
}

#[tokio::test]
async fn a_sitemap_and_an_access_log_are_fetched() {
    let origin = shop().await;
    let place = Place::before(&origin, None).await;
    let map = |names: &[&str]| {
        let urls = names.iter().map(|n| format!("<url><loc>http://shop.test/{n}</loc></url>"));
        format!("<urlset>{}</urlset>", urls.collect::<String>())
    };
    let index = "<sitemapindex><sitemap><loc>http://shop.test/one.xml</loc></sitemap>\
                 <sitemap><loc>http://shop.test/two.xml</loc></sitemap></sitemapindex>";
    origin.set("/sitemap.xml", reply(200).body(index));
    origin.set("/one.xml", reply(200).body(map(&["m1", "m2?a=1&amp;b=2"])));
    origin.set("/two.xml", reply(200).chunk(map(&["m3"])));
    let tally = place.json(&["warm", "--sitemap", "http://shop.test/sitemap.xml"]).await;
    assert_eq!((&tally["asked"], &tally["stored"]), (&3.into(), &3.into()), "{tally}");
    place.client.get("/m2?a=1&b=2").send().await.expect(200).cache("hit");

    let line = |target: &str| {
        format!("{{\"method\":\"GET\",\"host\":\"shop.test\",\"target\":\"{target}\",\"status\":200}}\n")
    };
    let log = place.write("access.log", &[line("/l1"), line("/l2"), line("/l2")].concat());
    let tally = place.json(&["warm", "--log", &log, "--limit", "1"]).await;
    assert_eq!(&tally["asked"], 1);
    place.client.get("/l2").send().await.expect(200).cache("hit");
}

#[tokio::test]
async fn warming_is_bounded_in_width_and_rate() {
    let gate = Gate::new("the answers");
    let inner = gate.clone();
    let origin = Origin::new()
        .on_request("*", move |_| reply(200).cache("max-age=600").body("v").gate(&inner))
        .start()
        .await;
    let place = Place::before(&origin, None).await;
    let list =
        place.write("list.txt", &(0..9).map(|n| format!("http://shop.test/{n}\n")).collect::<String>());
    let warming = async {
        let tally = place.json(&["warm", "--list", &list, "--concurrency", "3"]).await;
        assert_eq!(&tally["stored"], 9);
    };
    let watching = async {
        gate.arrived(3).await;
        let metrics = place.admin.get("/metrics").send().await.text();
        assert!(metrics.contains("vanne_requests_in_flight 3\n"), "three at once");
        gate.release();
    };
    tokio::join!(warming, watching);
    let tally = place.json(&["warm", "--list", &list, "--rate", "20"]).await;
    assert!(tally["seconds"].as_f64().unwrap() >= 0.35, "{tally}");
}

#[tokio::test]
async fn an_answer_that_lies_in_redis_in_pieces_is_seen_there() {
    let redis = Redis::start().await;
    let size = 700 * 1024;
    let origin =
        Origin::new().on("/large", reply(200).cache("max-age=600").body(vec![b'x'; size])).start().await;
    let one = Place::before(&origin, Some(&redis)).await;
    one.client.get("/large").send().await.expect(200);
    poll_until("it to be in Redis", || async { !redis.keys("*:p[0-9]*").await.is_empty() }).await;
    poll_until("it to be seen there", || async {
        let looked = one.json(&["get", "http://shop.test/large"]).await;
        let entries = looked["entries"].as_array().expect("a list").clone();
        entries.iter().any(|entry| entry["tier"] == "redis" && entry["size"] == size)
    })
    .await;
}
