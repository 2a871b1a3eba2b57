use proptest::prelude::*;

use super::*;

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn rule(hosts: &[&str], path: &str, methods: &[&str]) -> Match {
    Match::parse(&texts(hosts), path, &texts(methods)).unwrap()
}

fn table(rules: &[(&[&str], &str, &[&str])]) -> Table {
    Table::new(rules.iter().map(|(hosts, path, methods)| rule(hosts, path, methods)).collect()).unwrap()
}

#[test]
fn an_exact_host_beats_a_longer_wildcard_beats_a_wildcard_beats_any() {
    let table = table(&[
        (&[], "/*", &[]),
        (&["*.example.com"], "/*", &[]),
        (&["*.b.example.com"], "/*", &[]),
        (&["a.b.example.com"], "/*", &[]),
    ]);
    for (host, winner) in [
        ("a.b.example.com", 3),
        ("c.b.example.com", 2),
        ("d.c.b.example.com", 2),
        ("b.example.com", 1),
        ("x.example.com", 1),
        ("example.com", 0),
        ("badexample.com", 0),
        ("", 0),
    ] {
        assert_eq!(table.find(host, "/", &Method::GET), Some(winner), "{host}");
    }
}

#[test]
fn a_host_whose_rules_do_not_fit_leaves_the_request_to_wildcards_and_then_to_any() {
    let table = table(&[
        (&["a.example.com"], "/only", &["GET"]),
        (&["*.example.com"], "/below", &[]),
        (&[], "/*", &[]),
    ]);
    for (path, method, winner) in [
        ("/only", Method::GET, 0),
        ("/only", Method::POST, 2),
        ("/below", Method::GET, 1),
        ("/else", Method::GET, 2),
    ] {
        assert_eq!(table.find("a.example.com", path, &method), Some(winner), "{method} {path}");
    }
}

#[test]
fn an_exact_path_beats_parameters_beat_the_deepest_prefix() {
    let table = table(&[
        (&[], "/*", &[]),
        (&[], "/users/*", &[]),
        (&[], "/users/{id}/*", &[]),
        (&[], "/users/{id}", &[]),
        (&[], "/users/me", &[]),
        (&[], "/{kind}/me", &[]),
    ]);
    for (path, winner) in [
        ("/users/me", 4),
        ("/users/7", 3),
        ("/orders/me", 5),
        ("/users/7/posts", 2),
        ("/users/", 1),
        ("/users//x", 1),
        ("/users", 0),
        ("/", 0),
        ("*", 0),
    ] {
        assert_eq!(table.find("h", path, &Method::GET), Some(winner), "{path}");
    }
}

#[test]
fn naming_the_method_beats_not_naming_it_and_comes_after_the_path() {
    let table = table(&[
        (&[], "/a/*", &[]),
        (&[], "/a/*", &["POST"]),
        (&[], "/*", &["POST"]),
        (&[], "/a/b", &["GET"]),
    ]);
    for (method, path, winner) in [
        (Method::POST, "/a/x", Some(1)),
        (Method::GET, "/a/x", Some(0)),
        (Method::POST, "/a/b", Some(1)),
        (Method::GET, "/a/b", Some(3)),
        (Method::POST, "/c", Some(2)),
        (Method::GET, "/c", None),
    ] {
        assert_eq!(table.find("h", path, &method), winner, "{method} {path}");
    }
}

#[test]
fn naming_get_takes_head_and_naming_head_does_not_take_get() {
    let get = table(&[(&[], "/", &["GET"])]);
    assert_eq!(get.find("h", "/", &Method::HEAD), Some(0));
    let head = table(&[(&[], "/", &["HEAD"])]);
    assert_eq!(head.find("h", "/", &Method::GET), None);
    let both = table(&[(&[], "/", &["HEAD"]), (&[], "/", &["GET"])]);
    assert_eq!(both.find("h", "/", &Method::HEAD), Some(0));
    assert_eq!(both.find("h", "/", &Method::GET), Some(1));
}

#[test]
fn of_rules_that_are_alike_the_one_written_first_wins() {
    let table = table(&[(&[], "/", &["GET", "POST"]), (&[], "/", &["GET", "PUT"])]);
    assert_eq!(table.find("h", "/", &Method::GET), Some(0));
    assert_eq!(table.find("h", "/", &Method::PUT), Some(1));
}

#[test]
fn extension_methods_are_methods() {
    let table = table(&[(&[], "/query", &["POST", "QUERY"])]);
    assert_eq!(table.find("h", "/query", &Method::from_bytes(b"QUERY").unwrap()), Some(0));
    assert_eq!(table.find("h", "/query", &Method::from_bytes(b"query").unwrap()), None);
}

#[test]
fn a_method_that_no_routed_request_can_have_is_refused_with_what_would_be_right() {
    for (text, hint) in [
        ("get", "write \"GET\""),
        ("Post", "write \"POST\""),
        ("", "or leave the methods out"),
        ("GET POST", "or leave the methods out"),
        ("TRACE", "refused before"),
        ("connect", "refused before"),
    ] {
        let errors = Match::parse(&[], "/", &texts(&[text])).unwrap_err();
        assert!(errors[0].to_string().contains(hint), "{text}: {}", errors[0]);
    }
}

#[test]
fn every_mistake_of_a_match_is_told_at_once() {
    let errors = Match::parse(&texts(&["a:1", "ok", "b/c"]), "x", &texts(&["get", "PUT", ""])).unwrap_err();
    let kinds: Vec<&str> = errors
        .iter()
        .map(|error| match error {
            RouteError::Host(_) => "host",
            RouteError::Path(_) => "path",
            RouteError::Method(_) => "method",
            RouteError::Unreachable { .. } => "unreachable",
        })
        .collect();
    assert_eq!(kinds, ["host", "host", "path", "method", "method"]);
}

#[test]
fn a_rule_is_unreachable_when_another_takes_all_its_requests() {
    type Rule<'a> = (&'a [&'a str], &'a str, &'a [&'a str]);
    for (first, second) in [
        ((&[][..], "/", &[][..]), (&[][..], "/", &[][..])),
        ((&[], "/a/{x}", &[]), (&[], "/a/{y}", &[])),
        ((&["a", "b"], "/", &[]), (&["B."], "/", &[])),
        ((&["*.a"], "/", &[]), (&["*.A"], "/", &[])),
        ((&[], "/", &["GET", "PUT"]), (&[], "/", &["PUT"])),
        ((&[], "/", &["GET"]), (&[], "/", &["HEAD"])),
    ] as [(Rule<'_>, Rule<'_>); 6]
    {
        let rules = vec![rule(first.0, first.1, first.2), rule(second.0, second.1, second.2)];
        let errors = Table::new(rules).unwrap_err();
        assert_eq!(errors, [RouteError::Unreachable { rule: 1, by: 0 }], "{second:?} after {first:?}");
    }
}

#[test]
fn a_rule_is_reachable_when_any_request_is_left_to_it() {
    type Rule<'a> = (&'a [&'a str], &'a str, &'a [&'a str]);
    for (first, second) in [
        // More general, but the narrower one wins although it is written later.
        ((&[][..], "/*", &[][..]), (&[][..], "/a", &[][..])),
        ((&[], "/{x}", &[]), (&[], "/a", &[])),
        ((&[], "/", &[]), (&[], "/", &["GET"])),
        ((&[], "/", &[]), (&["a"], "/", &[])),
        ((&["*.a"], "/", &[]), (&["x.a"], "/", &[])),
        // Narrower: the rest is left.
        ((&["a"], "/", &[]), (&["a", "b"], "/", &[])),
        ((&["a"], "/", &[]), (&[], "/", &[])),
        ((&[], "/", &["GET"]), (&[], "/", &["GET", "POST"])),
        ((&[], "/", &["GET"]), (&[], "/", &[])),
        ((&[], "/", &["HEAD"]), (&[], "/", &["GET"])),
        ((&["*.b.a"], "/", &[]), (&["*.a"], "/", &[])),
    ] as [(Rule<'_>, Rule<'_>); 11]
    {
        let rules = vec![rule(first.0, first.1, first.2), rule(second.0, second.1, second.2)];
        assert!(Table::new(rules).is_ok(), "{second:?} after {first:?}");
    }
}

#[test]
fn every_unreachable_rule_is_told_at_once_with_the_first_that_hides_it() {
    let same = || rule(&[], "/a", &[]);
    let errors = Table::new(vec![same(), same(), rule(&[], "/b", &[]), same()]).unwrap_err();
    assert_eq!(
        errors,
        [RouteError::Unreachable { rule: 1, by: 0 }, RouteError::Unreachable { rule: 3, by: 0 }]
    );
}

#[test]
fn a_match_is_shown_as_a_person_would_say_it() {
    for (hosts, path, methods, shown) in [
        (&[][..], "/*", &[][..], "/*"),
        (&["API.example.com"], "/users/{id}", &["GET", "POST", "GET"], "GET,POST api.example.com/users/{id}"),
        (&["b", "*.a"], "/", &[], "b,*.a/"),
    ] as [(&[&str], &str, &[&str], &str); 3]
    {
        assert_eq!(rule(hosts, path, methods).to_string(), shown);
    }
    assert_eq!(table(&[(&[], "/x", &["PUT"])]).rules()[0].to_string(), "PUT /x");
}

#[test]
fn an_empty_table_has_no_winner() {
    assert_eq!(Table::default().find("h", "/", &Method::GET), None);
}

const HOSTS: [&str; 5] = ["a.test", "*.a.test", "*.b.a.test", "x.b.a.test", "*.test"];
const PATHS: [&str; 9] = ["/", "/*", "/u", "/u/*", "/u/{i}", "/{k}/7", "/u/{i}/*", "/u/7", "/{k}/*"];
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "QUERY"];
const ASKED_HOSTS: [&str; 6] = ["a.test", "b.a.test", "x.b.a.test", "y.b.a.test", "c.test", ""];
const ASKED_PATHS: [&str; 8] = ["/", "/u", "/u/", "/u/7", "/u/8", "/v/7", "/u/7/x", "*"];

fn any_rule() -> impl Strategy<Value = Match> {
    (
        proptest::sample::subsequence(&HOSTS[..], 0..=2),
        proptest::sample::select(&PATHS[..]),
        proptest::sample::subsequence(&METHODS[..], 0..=3),
    )
        .prop_map(|(hosts, path, methods)| rule(&hosts, path, &methods))
}

/// The documented order, told naively: every rule is asked, the best claim wins.
fn winner(rules: &[Match], host: &str, path: &str, method: &Method) -> Option<usize> {
    let claim = |rule: &Match| {
        let any = rule.hosts.is_empty().then_some(usize::MAX);
        let named = rule.hosts.iter().filter_map(|pattern| match pattern {
            Host::Exact(name) => (name == host).then_some(0),
            Host::Below(suffix) => host.strip_suffix(suffix)?.ends_with('.').then_some(1000 - suffix.len()),
        });
        let by_host = named.chain(any).min()?;
        (rule.path.matches(path) && rule.takes(method)).then_some(by_host)
    };
    (0..rules.len())
        .filter_map(|i| Some((claim(&rules[i])?, i)))
        .min_by(|a, b| {
            let (left, right) = (&rules[a.1], &rules[b.1]);
            let methods = left.methods.is_empty().cmp(&right.methods.is_empty());
            a.0.cmp(&b.0).then(left.path.order(&right.path)).then(methods).then(a.1.cmp(&b.1))
        })
        .map(|(_, i)| i)
}

proptest! {
    #[test]
    fn the_table_finds_whom_the_stated_order_names(rules in proptest::collection::vec(any_rule(), 0..8)) {
        let table = Table::indexed(rules.clone());
        for host in ASKED_HOSTS {
            for path in ASKED_PATHS {
                for method in METHODS.iter().map(|m| Method::from_bytes(m.as_bytes()).unwrap()) {
                    let found = table.find(host, path, &method);
                    prop_assert_eq!(found, winner(&rules, host, path, &method), "{} {} {}", method, host, path);
                }
            }
        }
    }

    #[test]
    fn a_rule_called_unreachable_never_wins(rules in proptest::collection::vec(any_rule(), 2..8)) {
        let Err(errors) = Table::new(rules.clone()) else { return Ok(()) };
        let table = Table::indexed(rules);
        for error in errors {
            let RouteError::Unreachable { rule, by } = error else { panic!("{error}") };
            prop_assert!(by < rule);
            for host in ASKED_HOSTS {
                for path in ASKED_PATHS {
                    for method in METHODS.iter().map(|m| Method::from_bytes(m.as_bytes()).unwrap()) {
                        prop_assert_ne!(table.find(host, path, &method), Some(rule));
                    }
                }
            }
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(host in ".*", path in "/?.*", method in ".*") {
        let _ = Match::parse(&[host], &path, &[method]);
    }
}
