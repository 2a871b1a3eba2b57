use proptest::prelude::*;

use super::*;

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn lines(map: &HeaderMap) -> Vec<(String, String)> {
    let mut lines: Vec<_> = map
        .iter()
        .map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
        .collect();
    lines.sort();
    lines
}

fn facts() -> RequestFacts<'static> {
    RequestFacts {
        client: "192.0.2.7".parse().unwrap(),
        peer: "192.0.2.7".parse().unwrap(),
        behind_trusted: false,
        https: false,
        host: "api.example.com:8080",
        port: 8080,
        version: "1.1",
        request_id: "id-1",
        via: "vanne",
        websocket: false,
    }
}

fn trusted() -> RequestFacts<'static> {
    RequestFacts { peer: "10.0.0.1".parse().unwrap(), behind_trusted: true, ..facts() }
}

fn sent(given: &[(&str, &str)], facts: &RequestFacts<'_>) -> HeaderMap {
    let mut fields = map(given);
    request(&mut fields, facts);
    fields
}

/// The values of one field, several lines shown apart.
fn value(fields: &HeaderMap, name: &str) -> Option<String> {
    let lines: Vec<_> = fields.get_all(name).iter().map(|v| v.to_str().unwrap()).collect();
    (!lines.is_empty()).then(|| lines.join(" | "))
}

/// What every request of [`facts`] is sent with, and these.
fn ours_and(more: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all = map(&[
        ("via", "1.1 vanne"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-host", "api.example.com:8080"),
        ("x-forwarded-port", "8080"),
        ("x-forwarded-proto", "http"),
        ("x-real-ip", "192.0.2.7"),
        ("x-request-id", "id-1"),
    ]);
    all.extend(map(more));
    lines(&all)
}

#[test]
fn a_request_says_who_asked_how_and_for_what() {
    assert_eq!(lines(&sent(&[], &facts())), ours_and(&[]));
}

#[test]
fn what_is_meant_for_the_instance_passes_untouched() {
    let given = [
        ("host", "api.example.com"),
        ("content-length", "5"),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
        ("authorization", "Bearer x"),
        ("cookie", "a=1; b=2"),
        ("expect", "100-continue"),
        ("traceparent", "00-1"),
        ("range", "bytes=0-1"),
        ("x-custom", "1"),
        ("x-custom", "2"),
    ];
    assert_eq!(lines(&sent(&given, &facts())), ours_and(&given));
}

#[test]
fn what_describes_one_hop_stays_behind() {
    let given = [
        ("connection", "close, X-One"),
        ("connection", "\"x-quoted\", x-two ,,"),
        ("x-one", "1"),
        ("X-Two", "2"),
        ("x-two", "3"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic x"),
        ("proxy-authenticate", "Basic"),
        ("te", "trailers, deflate"),
        ("trailer", "x-sum"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
    ];
    assert_eq!(lines(&sent(&given, &facts())), ours_and(&[]));
}

#[test]
fn a_client_cannot_have_removed_what_the_gateway_says() {
    let given = [
        (
            "connection",
            "close, host, content-length, cache-control, x-forwarded-for, x-real-ip, via, x-request-id",
        ),
        ("host", "api.example.com"),
        ("content-length", "5"),
        ("cache-control", "no-cache"),
    ];
    assert_eq!(lines(&sent(&given, &facts())), ours_and(&given[1..]));
    let chain = [
        ("connection", "X-Forwarded-For, Via, Forwarded"),
        ("x-forwarded-for", "192.0.2.7"),
        ("via", "1.1 cdn"),
    ];
    let fields = sent(&chain, &trusted());
    assert_eq!(value(&fields, "x-forwarded-for").as_deref(), Some("192.0.2.7, 10.0.0.1"));
    assert_eq!(value(&fields, "via").as_deref(), Some("1.1 cdn, 1.1 vanne"));
}

const LIES: [(&str, &str); 21] = [
    ("x-forwarded-for", "6.6.6.6"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "evil"),
    ("x-forwarded-port", "1"),
    ("x-forwarded-server", "evil"),
    ("x-forwarded-prefix", "/evil"),
    ("x-forwarded", "6.6.6.6"),
    ("x-real-ip", "6.6.6.6"),
    ("forwarded", "for=6.6.6.6;host=evil"),
    ("x-original-url", "/admin"),
    ("x-original-host", "evil"),
    ("x-rewrite-url", "/admin"),
    ("x-http-method-override", "DELETE"),
    ("x-method-override", "DELETE"),
    ("x-http-method", "DELETE"),
    ("x-host", "evil"),
    ("true-client-ip", "6.6.6.6"),
    ("cf-connecting-ip", "6.6.6.6"),
    ("front-end-https", "on"),
    ("x-url-scheme", "https"),
    ("x-request-id", "forged"),
];

#[test]
fn what_a_client_claims_about_itself_is_not_passed_on() {
    assert_eq!(lines(&sent(&LIES, &facts())), ours_and(&[]));
}

#[test]
fn a_trusted_proxys_claims_pass_and_its_chains_are_extended() {
    let fields = sent(&LIES, &trusted());
    for (name, expected) in [
        ("x-forwarded-for", "6.6.6.6, 10.0.0.1"),
        ("forwarded", "for=6.6.6.6;host=evil | for=10.0.0.1"),
        ("x-real-ip", "192.0.2.7"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "api.example.com:8080"),
        ("x-forwarded-port", "8080"),
        ("x-forwarded-prefix", "/evil"),
        ("cf-connecting-ip", "6.6.6.6"),
        ("x-request-id", "id-1"),
    ] {
        assert_eq!(value(&fields, name).as_deref(), Some(expected), "{name}");
    }
}

#[test]
fn a_trusted_chain_is_made_one_line() {
    for (given, expected) in [
        (&[][..], "10.0.0.1"),
        (&["192.0.2.7"], "192.0.2.7, 10.0.0.1"),
        (&["192.0.2.7", "10.0.0.2"], "192.0.2.7, 10.0.0.2, 10.0.0.1"),
        (&["", "192.0.2.7"], "192.0.2.7, 10.0.0.1"),
    ] {
        let given: Vec<_> = given.iter().map(|line| ("x-forwarded-for", *line)).collect();
        let fields = sent(&given, &trusted());
        assert_eq!(value(&fields, "x-forwarded-for").as_deref(), Some(expected), "{given:?}");
    }
}

#[test]
fn ipv6_is_quoted_where_the_grammar_asks_for_it_and_mapped_ipv4_is_ipv4() {
    let six = RequestFacts { peer: "2001:db8::1".parse().unwrap(), ..trusted() };
    let fields = sent(&[("forwarded", "for=192.0.2.7")], &six);
    assert_eq!(value(&fields, "x-forwarded-for").as_deref(), Some("2001:db8::1"));
    // RFC 7239 §6: an IPv6 address stands in brackets and so in quotes.
    assert_eq!(value(&fields, "forwarded").as_deref(), Some("for=192.0.2.7 | for=\"[2001:db8::1]\""));
    let mapped = RequestFacts { client: "::ffff:192.0.2.9".parse().unwrap(), ..facts() };
    assert_eq!(value(&sent(&[], &mapped), "x-forwarded-for").as_deref(), Some("192.0.2.9"));
    assert_eq!(value(&sent(&[], &mapped), "x-real-ip").as_deref(), Some("192.0.2.9"));
}

#[test]
fn the_port_is_the_one_the_client_spoke_to() {
    for (behind_trusted, https, host, port) in [
        (false, false, "api.example.com", "8080"),
        (false, false, "api.example.com:80", "8080"),
        (true, true, "api.example.com", "443"),
        (true, false, "api.example.com", "80"),
        (true, true, "api.example.com:8443", "8443"),
        (true, true, "[2001:db8::1]", "443"),
        (true, true, "[2001:db8::1]:444", "444"),
    ] {
        let facts = RequestFacts { behind_trusted, https, host, ..facts() };
        assert_eq!(value(&sent(&[], &facts), "x-forwarded-port").as_deref(), Some(port), "{host}");
    }
}

#[test]
fn the_scheme_is_the_clients() {
    let https = RequestFacts { https: true, ..facts() };
    assert_eq!(value(&sent(&[], &https), "x-forwarded-proto").as_deref(), Some("https"));
}

#[test]
fn a_request_without_host_claims_none() {
    let none = RequestFacts { host: "", version: "1.0", ..facts() };
    let fields = sent(&[("x-forwarded-host", "evil")], &none);
    assert_eq!(value(&fields, "x-forwarded-host"), None);
    assert_eq!(value(&fields, "via").as_deref(), Some("1.0 vanne"));
}

#[test]
fn names_that_some_servers_read_as_others_are_dropped() {
    let given =
        [("x_forwarded_for", "6.6.6.6"), ("content_length", "9"), ("x_a", "1"), ("proxy", "http://evil")];
    assert_eq!(lines(&sent(&given, &facts())), ours_and(&[]));
    let fields = sent(&given, &trusted());
    assert!(given.iter().all(|(name, _)| !fields.contains_key(*name)));
}

#[test]
fn cookie_crumbs_become_one_line() {
    let crumbs = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", ""), ("cookie", "c=3")];
    assert_eq!(value(&sent(&crumbs, &facts()), "cookie").as_deref(), Some("a=1; b=2; c=3"));
    assert_eq!(value(&sent(&crumbs[..1], &facts()), "cookie").as_deref(), Some("a=1"));
}

#[test]
fn only_http2_may_ask_for_trailers() {
    let http2 = RequestFacts { version: "2", ..facts() };
    assert_eq!(value(&sent(&[("te", "trailers")], &http2), "te").as_deref(), Some("trailers"));
    assert_eq!(value(&sent(&[("te", "gzip")], &http2), "te"), None);
    assert_eq!(value(&sent(&[("te", "trailers")], &facts()), "te"), None);
    assert_eq!(value(&sent(&[], &http2), "via").as_deref(), Some("2 vanne"));
}

#[test]
fn a_websocket_keeps_its_handshake_and_nothing_else() {
    let handshake = [
        ("connection", "keep-alive, Upgrade, x-secret"),
        ("upgrade", "WebSocket"),
        ("x-secret", "1"),
        ("keep-alive", "1"),
        ("sec-websocket-key", "dGhl"),
        ("sec-websocket-version", "13"),
    ];
    let websocket = RequestFacts { websocket: true, ..facts() };
    let expected = ours_and(&[
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhl"),
        ("sec-websocket-version", "13"),
    ]);
    assert_eq!(lines(&sent(&handshake, &websocket)), expected);
    assert!(!sent(&handshake, &facts()).contains_key("upgrade"));
}

#[test]
fn a_websocket_is_asked_for_in_exactly_one_way() {
    let good = [("connection", "keep-alive, upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "x")];
    let with = |more: &[(&str, &str)]| map(&[&good[..], more].concat());
    let without = |name: &str| map(&good.into_iter().filter(|(n, _)| *n != name).collect::<Vec<_>>());
    assert!(is_websocket(&with(&[]), &Method::GET, true));
    assert!(is_websocket(&with(&[("content-length", "0")]), &Method::GET, true));
    assert!(!is_websocket(&with(&[]), &Method::POST, true));
    assert!(!is_websocket(&with(&[]), &Method::GET, false));
    for name in ["connection", "upgrade", "sec-websocket-key"] {
        assert!(!is_websocket(&without(name), &Method::GET, true), "without {name}");
    }
    for more in [
        ("upgrade", "h2c"),
        ("upgrade", "websocket"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
    ] {
        assert!(!is_websocket(&with(&[more]), &Method::GET, true), "{more:?}");
    }
    for upgrade in ["h2c", "websocket, h2c", "h2c, websocket", "websocket/13", ""] {
        let fields = map(&[good[0], ("upgrade", upgrade), good[2]]);
        assert!(!is_websocket(&fields, &Method::GET, true), "{upgrade}");
    }
    let unnamed = map(&[("connection", "x-upgrade"), good[1], good[2]]);
    assert!(!is_websocket(&unnamed, &Method::GET, true));
}

#[test]
fn an_answer_leaves_its_hop_behind() {
    let mut fields = map(&[
        ("connection", "keep-alive, x-internal, content-length"),
        ("x-internal", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authenticate", "Basic"),
        ("proxy-authentication-info", "x"),
        ("transfer-encoding", "chunked"),
        ("trailer", "x-sum"),
        ("te", "x"),
        ("upgrade", "h2c"),
        ("content-length", "5"),
        ("content-type", "text/plain"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("x_internal", "1"),
    ]);
    response(&mut fields, false);
    let kept = [
        ("content-length", "5"),
        ("content-type", "text/plain"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("x_internal", "1"),
    ];
    assert_eq!(lines(&fields), lines(&map(&kept)));
}

#[test]
fn an_upgrades_answer_keeps_its_protocol() {
    let given = [
        ("connection", "Upgrade, x-a"),
        ("upgrade", "websocket"),
        ("x-a", "1"),
        ("sec-websocket-accept", "x"),
    ];
    let mut fields = map(&given);
    response(&mut fields, true);
    let kept = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x")];
    assert_eq!(lines(&fields), lines(&map(&kept)));
    let mut plain = map(&[("connection", "close")]);
    response(&mut plain, true);
    assert!(plain.is_empty());
}

#[test]
fn each_hop_by_hop_name_is_told_once() {
    let fields = map(&[("connection", "te, x-a, X-A"), ("te", "trailers"), ("x-a", "1"), ("x-b", "2")]);
    assert_eq!(nominated(&fields), ["te", "x-a"]);
    assert_eq!(hop_by_hop(&fields), ["te", "x-a", "connection"]);
    assert!(hop_by_hop(&map(&[("x-b", "2")])).is_empty());
}

#[test]
fn via_names_every_hop_in_order() {
    assert_eq!(via(&map(&[]), "1.1", "vanne"), "1.1 vanne");
    assert_eq!(
        via(&map(&[("via", "1.0 a"), ("via", "2 b, 1.1 c")]), "1.1", "vanne"),
        "1.0 a, 2 b, 1.1 c, 1.1 vanne"
    );
}

#[test]
fn a_request_id_is_believed_when_trusted_and_safe() {
    let long = "a".repeat(65);
    for (id, safe) in [
        ("abc-123._~Z", true),
        (&long[1..], true),
        (&long, false),
        ("", false),
        ("a b", false),
        ("a\"b", false),
        ("a,b", false),
        ("a\tb", false),
    ] {
        let fields = map(&[("x-request-id", id)]);
        assert_eq!(trusted_request_id(&fields, true), safe.then_some(id), "{id}");
        assert_eq!(trusted_request_id(&fields, false), None, "{id}");
    }
    assert_eq!(trusted_request_id(&map(&[("x-request-id", "a"), ("x-request-id", "b")]), true), None);
    assert_eq!(trusted_request_id(&map(&[]), true), None);
}

#[test]
fn the_list_of_claims_is_in_the_order_it_is_searched_in() {
    assert!(CLAIMS.is_sorted());
}

proptest! {
    #[test]
    fn whatever_connection_names_the_gateways_own_fields_are_sent(
        options in proptest::collection::vec("[a-zA-Z-]{0,16}|x-forwarded-(for|host|proto|port)|Via|X-Real-IP|, ,", 0..8),
        raw in proptest::collection::vec(0x20_u8..=0x7e, 0..20),
    ) {
        let mut fields = HeaderMap::new();
        fields.append(CONNECTION, HeaderValue::from_str(&options.join(",")).unwrap());
        fields.append(CONNECTION, HeaderValue::from_bytes(&raw).unwrap());
        fields.append("content-length", HeaderValue::from_static("5"));
        request(&mut fields, &facts());
        prop_assert_eq!(lines(&fields), ours_and(&[("content-length", "5")]));
    }

    #[test]
    fn an_answer_is_clean_after_one_pass(
        named in proptest::sample::subsequence(&["x-a", "x-b", "connection", "upgrade", "close"][..], 0..=5),
        upgrade in any::<bool>(),
    ) {
        let options = named.join(", ");
        let mut fields = map(&[("connection", &options), ("x-a", "1"), ("x-b", "2"), ("upgrade", "websocket")]);
        response(&mut fields, upgrade);
        for name in ["x-a", "x-b"] {
            prop_assert_eq!(fields.contains_key(name), !named.contains(&name));
        }
        let once = fields.clone();
        response(&mut fields, upgrade);
        prop_assert_eq!(fields, once);
    }
}
