//! The readers of foreign bytes, each with what must hold of whatever it reads. Run by cargo-fuzz (fuzz_targets/) and, over the corpus and
//! random changes of it, by every test run (tests/fuzz.rs).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use vanne::balance::ewma::Meter;
use vanne::balance::{Candidate, Choice, HashOn, Method as Way, Picker, Room};
use vanne::base::clock::MonoTime;
use vanne::base::dice::Dice;
use vanne::base::fields::Pairs;
use vanne::cache::{date, directive, range, record, vary};
use vanne::config::{Overrides, Source, load};
use vanne::forward::edit;
use vanne::guard::chunks::Chunks;
use vanne::guard::client::TrustedProxies;
use vanne::guard::rate::KeyBy;
use vanne::guard::request::{Head, Limits, accept};
use vanne::guard::{access, auth, cors};

/// Reads the bytes, and panics when what must hold does not.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its corpus.
pub const ALL: &[(&str, Target)] = &[
    ("chunks", chunks),
    ("request", request),
    ("client", client),
    ("cache_control", cache_control),
    ("vary", varying),
    ("range", ranges),
    ("record", stored),
    ("config", configuration),
    ("ward", ward),
    ("lists", lists),
    ("edits", edits),
    ("balance", balance),
];

/// Chunked content: what is written anew means the same, however the input was cut.
pub fn chunks(input: &[u8]) {
    let (mut whole, mut out) = (Chunks::default(), BytesMut::new());
    let all = whole.read(input, &mut out);
    let (mut cut, mut pieces, mut read) = (Chunks::default(), BytesMut::new(), Ok(0));
    for byte in input {
        read = read.and_then(|count| Ok(count + cut.read(&[*byte], &mut pieces)?));
    }
    assert_eq!(all, read);
    assert_eq!(whole.is_done(), cut.is_done());
    if whole.is_done() {
        let (mut again, mut same) = (Chunks::default(), BytesMut::new());
        assert_eq!(again.read(&out, &mut same), Ok(out.len()));
        assert!(again.is_done());
        assert_eq!(content(&out), content(&pieces));
    }
}

/// The content of chunks in their plainest form.
fn content(mut chunks: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(end) = chunks.windows(2).position(|pair| pair == b"\r\n") {
        let size =
            std::str::from_utf8(&chunks[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.expect("a plain size");
        content.extend_from_slice(&chunks[end + 2..end + 2 + size]);
        chunks = &chunks[end + 2 + size + 2..];
        if size == 0 {
            break;
        }
    }
    content
}

/// A request head (`METHOD TARGET`, then fields, a line each): what is taken is clean, and is taken again unchanged.
pub fn request(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let Some((method, target)) = lines.next().and_then(|line| split(line, b' ')) else { return };
    let Ok(method) = Method::from_bytes(method) else { return };
    let fields = fields(lines);
    let fields = Pairs(&fields);
    let limits = Limits { max_fields: 100, max_head: 32 * 1024, max_body: 0 };
    let head = |target, fields| Head {
        method: &method,
        target,
        http2: false,
        http10: false,
        authority: None,
        fields,
        field_count: 1,
        size: input.len(),
    };
    let Ok(accepted) = accept(&head(target, &fields), &limits) else { return };
    assert!(accepted.path.starts_with('/') || accepted.path == "*");
    let query = accepted.query.as_deref();
    let target = query.map_or(accepted.path.to_string(), |query| format!("{}?{query}", accepted.path));
    assert!(target.bytes().all(|byte| byte.is_ascii_graphic()), "{target:?}");
    assert!(accepted.path.split('/').all(|segment| segment != ".." && segment != "."), "{target:?}");
    let host = accepted.port.map_or(accepted.host.to_string(), |port| format!("{}:{port}", accepted.host));
    let clean = [("host", host.as_bytes())];
    let clean = Pairs(&clean);
    let again = accept(&head(target.as_bytes(), &clean), &limits).expect("taken once, taken again");
    assert_eq!(
        (&again.host, again.port, &again.path, &again.query),
        (&accepted.host, accepted.port, &accepted.path, &accepted.query)
    );
}

/// X-Forwarded-For: whoever is found is an address in its one form.
pub fn client(input: &[u8]) {
    let fields = fields(input.split(|byte| *byte == b'\n'));
    let trusted = TrustedProxies { networks: vec!["10.0.0.0/8".parse().expect("a network")], field: None };
    let found = trusted.client([10, 0, 0, 1].into(), false, &Pairs(&fields));
    assert_eq!(found.addr, found.addr.to_canonical());
}

/// Cache-Control and its kin on both sides.
pub fn cache_control(input: &[u8]) {
    let fields = fields(input.split(|byte| *byte == b'\n'));
    directive::request(&Pairs(&fields));
    directive::response(&Pairs(&fields), &[http::HeaderName::from_static("cdn-cache-control")]);
    if let Some(at) = date::parse(input) {
        assert_eq!(date::parse(date::format(at).as_bytes()), Some(at));
    }
}

/// Vary, and the values it names.
pub fn varying(input: &[u8]) {
    let fields = fields(input.split(|byte| *byte == b'\n'));
    if let vary::Vary::Fields(names) = vary::of_response(&Pairs(&fields)) {
        let variant = vary::of_request(&names, &Pairs(&fields), Default::default());
        assert_eq!(variant.0.len(), names.len());
        assert_eq!(variant, vary::of_request(&names, &Pairs(&fields), Default::default()));
    }
}

/// Ranges lie within the content, in order.
pub fn ranges(input: &[u8]) {
    let fields = [("range", input)];
    for length in [0, 1, 10, u64::MAX] {
        let parts = match range::select(&Pairs(&fields), &HeaderMap::new(), length) {
            range::Selection::One(part) => vec![part],
            range::Selection::Several(parts) => parts,
            range::Selection::Whole | range::Selection::Unsatisfiable => continue,
        };
        assert!(
            parts.iter().all(|part| part.first <= part.last && part.last < length),
            "{parts:?} of {length}"
        );
        assert!(parts.windows(2).all(|pair| pair[0].last < pair[1].first), "{parts:?}");
    }
}

/// Stored bytes: what reads is written the same.
pub fn stored(input: &[u8]) {
    if let Ok(stored) = record::decode(Bytes::copy_from_slice(input)) {
        assert!(record::decode(record::encode(&stored).into()).is_ok());
    }
}

/// What stands before a route, from a request's fields: credentials are names and passwords, pages are told of themselves alone.
pub fn ward(input: &[u8]) {
    let fields = fields(input.split(|byte| *byte == b'\n'));
    let fields = Pairs(&fields);
    if let Some(given) = auth::credentials(&fields) {
        assert!(
            !given.name.is_empty() && !given.name.contains(':') && !given.name.chars().any(char::is_control)
        );
    }
    let sites = ["https://app.test", "https://*.app.test:8443"];
    let rules = cors::Rules {
        origins: cors::Origins::These(sites.iter().filter_map(|site| cors::Origin::parse(site)).collect()),
        methods: vec![Method::PUT],
        headers: cors::Names::Any,
        expose: Vec::new(),
        credentials: true,
        max_age: std::time::Duration::from_secs(1),
    };
    for (name, value) in rules.answer(&fields).into_iter().chain(rules.preflight(&fields)) {
        if name == "access-control-allow-origin" {
            let origin = value.to_str().expect("a site");
            let own = origin == "https://app.test"
                || (origin.starts_with("https://")
                    && origin.ends_with(".app.test:8443")
                    && !origin[8..].contains('/'));
            assert!(own, "{origin:?}");
        }
    }
    cors::preflight(&Method::OPTIONS, &fields);
    let client = std::net::IpAddr::from([192, 0, 2, 1]);
    for key in [KeyBy::Address, KeyBy::Token, KeyBy::All, KeyBy::Cookie("a".into())] {
        assert_eq!(key.key(client, &fields), key.key(client, &fields));
    }
}

/// Files of networks and of users, and sites: what reads can be used.
pub fn lists(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(networks) = access::read_list(text) {
        let denied = access::Access::new(&[], &networks);
        assert!(networks.iter().all(|network| !denied.allows(network.addr())));
        let allowed = access::Access::new(&networks, &[]);
        assert!(networks.iter().all(|network| allowed.allows(network.addr())));
    }
    let _ = auth::Users::of_lines(text.lines());
    for line in text.lines() {
        if let Some(site @ cors::Origin::Exact(_)) = cors::Origin::parse(line) {
            assert!(site.is(line) && !site.is("null") && !site.is("*"));
        }
    }
}

/// The value of a field with variables (the first line) and what they stand for (the second): whatever comes out is one value on one line.
pub fn edits(input: &[u8]) {
    let mut lines = input.splitn(2, |byte| *byte == b'\n').map(std::str::from_utf8);
    let (Some(Ok(value)), Some(Ok(fact))) = (lines.next(), lines.next()) else { return };
    let Ok(template) = edit::Template::parse(value) else { return };
    let facts = edit::Facts {
        client: [192, 0, 2, 1].into(),
        host: fact,
        method: "GET",
        path: fact,
        request_id: fact,
        route: fact,
        https: false,
        user: Some(fact),
    };
    let name = http::HeaderName::from_static("x-own");
    let edits = edit::Edits { set: vec![(name, template)], ..edit::Edits::default() };
    for change in edits.changes(&facts) {
        if let edit::Change::Set(_, value) = change {
            assert!(
                !value.is_empty() && !value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
            );
        }
    }
}

/// A configuration: a plan, or problems that can be shown.
pub fn configuration(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let source = Source { name: "vanne.toml".into(), text: text.to_owned() };
    let environment = std::collections::HashMap::<String, String>::new();
    if let Err(problems) = load(&source, &environment, &Overrides::default()) {
        assert!(!problems.to_string().is_empty());
    }
}

/// Fields as a parser leaves them, from lines `name: value`.
fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<(&'a str, &'a [u8])> {
    let field = |line: &'a [u8]| {
        let (name, value) = split(line, b':')?;
        Some((std::str::from_utf8(name).ok()?, value.trim_ascii()))
    };
    lines.filter_map(field).collect()
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == at)?;
    Some((&text[..at], &text[at + 1..]))
}

/// A fleet as bytes tell it: who is chosen may be, and nobody is chosen only when nobody may be.
pub fn balance(input: &[u8]) {
    let Some((&[way, size, seed], orders)) = input.split_first_chunk::<3>() else { return };
    let decay = Duration::from_secs(1);
    let ways = [
        Way::RoundRobin,
        Way::LeastConn,
        Way::IpHash,
        Way::ConsistentHash { on: HashOn::Client, load: 0 },
        Way::ConsistentHash { on: HashOn::Client, load: 100 },
        Way::P2c { decay },
        Way::Random,
    ];
    let size = 1 + usize::from(size) % 9;
    let endpoints: Vec<_> = (0..size).map(|i| (format!("10.0.0.{i}:80"), i as u32 % 4)).collect();
    let picker = Picker::new(&ways[usize::from(way) % ways.len()], &endpoints);
    let mut dice = Dice::seeded(seed.into());
    let mut fleet: Vec<Candidate> = endpoints
        .iter()
        .map(|(_, weight)| Candidate { weight: *weight, up: true, ..Candidate::default() })
        .collect();
    for (turn, order) in orders.chunks_exact(2).enumerate() {
        let (now, value) = (MonoTime::from_millis(turn as u64 * 100), order[1]);
        let it = &mut fleet[usize::from(order[0] >> 4) % size];
        match order[0] % 8 {
            0 => it.up = value % 2 == 0,
            1 => it.weight = u32::from(value).pow(4),
            2 => it.backup = value % 2 == 0,
            3 => it.room = [Room::Free, Room::Overflow, Room::Full][usize::from(value) % 3],
            4 => it.meter = it.meter.with(now, Duration::from_micros(1 << (value % 40)), decay),
            5 => (it.in_flight, it.meter) = (u32::from(value).pow(4), Meter::default()),
            _ => {}
        }
        let tried: Vec<usize> =
            (0..size).filter(|i| value >> (i % 8) & 1 == 1 && order[0] % 8 == 6).collect();
        let (bound, key) = (Some(usize::from(value) % 16), (value % 3 > 0).then_some(u64::from(value)));
        let choice = &mut Choice { candidates: &fleet, tried: &tried, bound, key, now, dice: &mut dice };
        may_be(picker.pick(choice), &fleet, &tried);
    }
}

fn may_be(chosen: Option<usize>, fleet: &[Candidate], tried: &[usize]) {
    let left = |i: &usize| fleet[*i].weight > 0 && !tried.contains(i);
    let up = |backup| (0..fleet.len()).filter(left).any(|i| fleet[i].up && fleet[i].backup == backup);
    let (primary, backup) = (up(false), up(true));
    let among = |c: &Candidate| (c.up && c.backup != primary) || !(primary || backup);
    let may = |i: &usize| left(i) && among(&fleet[*i]) && fleet[*i].room != Room::Full;
    match chosen {
        Some(chosen) => assert!(may(&chosen), "{chosen} of {fleet:?}, tried {tried:?}"),
        None => assert!(!(0..fleet.len()).any(|i| may(&i)), "nobody of {fleet:?}, tried {tried:?}"),
    }
}
