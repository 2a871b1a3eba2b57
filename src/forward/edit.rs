//! Fields that the operator sets, adds and removes, and the variables that may stand in their values.
//!
//! No value can end a line or begin another: it is made of what the guard took and put together as one field value, and what does not read as one leaves
//! no field at all.

use std::net::IpAddr;

use http::header::{
    AGE, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, EXPECT, FORWARDED, HOST, VARY, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    HOP_BY_HOP, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REAL_IP,
    X_REQUEST_ID, connection_options,
};
use crate::base::fields::Fields;

/// What a variable stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// The address of the client.
    ClientIp,
    /// The host that was asked for, without its port.
    Host,
    /// The method.
    Method,
    /// The path, as it was routed.
    Path,
    /// The request's id.
    RequestId,
    /// The route's name.
    Route,
    /// `http` or `https`, as the client used it.
    Scheme,
    /// The name of the user that `auth` knows; empty without one.
    User,
}

/// Every variable and how it is written.
pub const VARIABLES: [(&str, Variable); 8] = [
    ("client_ip", Variable::ClientIp),
    ("host", Variable::Host),
    ("method", Variable::Method),
    ("path", Variable::Path),
    ("request_id", Variable::RequestId),
    ("route", Variable::Route),
    ("scheme", Variable::Scheme),
    ("user", Variable::User),
];

/// What the variables of one request stand for.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The address of the client.
    pub client: IpAddr,
    /// The host that was asked for.
    pub host: &'a str,
    /// The method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// Whether the client used https.
    pub https: bool,
    /// The user's name.
    pub user: Option<&'a str>,
}

/// A value with variables in it. It may hold a secret, so `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Why a text is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAValue {
    /// It holds what no field may: controls, line ends.
    Characters,
    /// There is no variable of this name.
    Variable(String),
}

impl Template {
    /// Reads `{name}` as a variable, and braces around anything but a name as they stand.
    ///
    /// # Errors
    /// When it cannot be the value of a field, or names no variable that there is.
    pub fn parse(text: &str) -> Result<Self, NotAValue> {
        if HeaderValue::from_str(text).is_err() || text.is_empty() {
            return Err(NotAValue::Characters);
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, after) = (&rest[..at], &rest[at + 1..]);
            plain.push_str(before);
            let name = after.split('}').next().filter(|name| name.len() < after.len() && is_name(name));
            let Some(name) = name else {
                plain.push('{');
                rest = after;
                continue;
            };
            let known = VARIABLES.iter().find(|(known, _)| *known == name);
            let (_, variable) = known.ok_or_else(|| NotAValue::Variable(name.to_owned()))?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Variable(*variable));
            rest = &after[name.len() + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// Whether a variable stands in it.
    pub fn names(&self, variable: Variable) -> bool {
        self.0.contains(&Part::Variable(variable))
    }

    /// The value for one request; `None` when it is empty or cannot be one.
    fn value(&self, facts: &Facts<'_>) -> Option<HeaderValue> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Variable(variable) => facts.put(*variable, &mut text),
            }
        }
        if text.is_empty() { None } else { HeaderValue::from_str(&text).ok() }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

impl Facts<'_> {
    fn put(&self, variable: Variable, out: &mut String) {
        use std::fmt::Write as _;
        // Writing into text does not fail.
        let _ = match variable {
            Variable::ClientIp => write!(out, "{}", self.client.to_canonical()),
            Variable::Host => out.write_str(self.host),
            Variable::Method => out.write_str(self.method),
            Variable::Path => out.write_str(self.path),
            Variable::RequestId => out.write_str(self.request_id),
            Variable::Route => out.write_str(self.route),
            Variable::Scheme => out.write_str(if self.https { "https" } else { "http" }),
            Variable::User => out.write_str(self.user.unwrap_or_default()),
        };
    }
}

/// What an operator wants changed in the fields of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edits {
    /// Fields that are gone.
    pub remove: Vec<HeaderName>,
    /// Fields that stand alone under their name.
    pub set: Vec<(HeaderName, Template)>,
    /// Lines that stand beside those that came.
    pub add: Vec<(HeaderName, Template)>,
}

/// One change of a message's fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Every line of this name goes.
    Remove(HeaderName),
    /// This line stands in place of those that came.
    Set(HeaderName, HeaderValue),
    /// This line stands beside them.
    Add(HeaderName, HeaderValue),
    /// This line stands where there is none.
    Default(HeaderName, HeaderValue),
    /// `Vary` names this field, too.
    Vary(HeaderName),
}

/// Changes in the order they are made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes(pub Vec<Change>);

impl Edits {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// The changes for one request: removals first, then what is set, then what is added. A value that comes out empty removes the field, so that what
    /// stands in its name is never the sender's own.
    pub fn changes(&self, facts: &Facts<'_>) -> impl Iterator<Item = Change> {
        let removed = self.remove.iter().cloned().map(Change::Remove);
        let set = self.set.iter().map(|(name, template)| match template.value(facts) {
            Some(value) => Change::Set(name.clone(), value),
            None => Change::Remove(name.clone()),
        });
        let added = self
            .add
            .iter()
            .filter_map(|(name, template)| Some(Change::Add(name.clone(), template.value(facts)?)));
        removed.chain(set).chain(added).collect::<Vec<_>>().into_iter()
    }
}

impl Changes {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the changes of an answer.
    pub fn apply(&self, fields: &mut HeaderMap) {
        for change in &self.0 {
            match change {
                Change::Remove(name) => drop(fields.remove(name)),
                Change::Set(name, value) => drop(fields.insert(name, value.clone())),
                Change::Add(name, value) => drop(fields.append(name, value.clone())),
                Change::Default(name, value) => drop(fields.entry(name).or_insert_with(|| value.clone())),
                Change::Vary(name) => {
                    if !varies(fields, name) {
                        fields.append(VARY, HeaderValue::from(name.clone()));
                    }
                }
            }
        }
    }

    /// Makes the changes of a request before anything is asked of it, so that its key, `Vary` and the instance see the same. Credentials are only
    /// taken away here: those of the operator make no answer private, so the cache must not see them. A client cannot have a field removed by
    /// naming it in `Connection`.
    pub fn before(&self, fields: &mut HeaderMap) {
        self.disown(fields);
        for change in &self.0 {
            match change {
                Change::Set(name, _) if *name == AUTHORIZATION => drop(fields.remove(name)),
                Change::Remove(name) => drop(fields.remove(name)),
                Change::Set(name, value) => drop(fields.insert(name, value.clone())),
                Change::Add(name, value) => drop(fields.append(name, value.clone())),
                Change::Default(..) | Change::Vary(_) => {}
            }
        }
    }

    /// What stands in the request whatever forwarding took away.
    pub fn after(&self, fields: &mut HeaderMap) {
        for change in &self.0 {
            if let Change::Set(name, value) = change {
                fields.insert(name, value.clone());
            }
        }
    }

    /// Takes the names of our fields out of `Connection`.
    fn disown(&self, fields: &mut HeaderMap) {
        let ours = |option: &[u8]| {
            self.0.iter().any(|change| match change {
                Change::Set(name, _) | Change::Add(name, _) => {
                    option.eq_ignore_ascii_case(name.as_str().as_bytes())
                }
                _ => false,
            })
        };
        if !connection_options(fields).any(ours) {
            return;
        }
        let rest: Vec<&[u8]> = connection_options(fields).filter(|option| !ours(option)).collect();
        match HeaderValue::from_bytes(&rest.join(&b", "[..])) {
            Ok(rest) if !rest.is_empty() => drop(fields.insert(CONNECTION, rest)),
            _ => drop(fields.remove(CONNECTION)),
        }
    }
}

/// Whether `Vary` names this field, or everything.
pub fn varies(fields: &HeaderMap, name: &HeaderName) -> bool {
    let members = fields.get_all(VARY).into_iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    members
        .map(<[u8]>::trim_ascii)
        .any(|member| member == b"*" || member.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

/// A request's fields with the changes in them, where nothing is copied: what [`Changes::before`] makes of them.
pub struct Edited<'a> {
    /// The fields as they came.
    pub fields: &'a dyn Fields,
    /// The changes.
    pub changes: &'a Changes,
}

impl Fields for Edited<'_> {
    fn each<'a>(&'a self, name: &str, visit: &mut dyn FnMut(&'a [u8])) {
        // The last change that takes the place of what was before; what is added after it stands beside it.
        let mut from = 0;
        let mut came = true;
        for (at, change) in self.changes.0.iter().enumerate() {
            if let Change::Remove(own) | Change::Set(own, _) = change
                && own.as_str().eq_ignore_ascii_case(name)
            {
                (from, came) = (at, false);
            }
        }
        if came {
            self.fields.each(name, visit);
        }
        for change in &self.changes.0[from..] {
            if let Change::Set(own, value) | Change::Add(own, value) = change
                && own.as_str().eq_ignore_ascii_case(name)
                && !(*own == AUTHORIZATION && matches!(change, Change::Set(..)))
            {
                visit(value.as_bytes());
            }
        }
    }
}

/// Why the operator may not edit a field of a request; `None`: it may be edited.
pub fn not_in_requests(name: &HeaderName) -> Option<&'static str> {
    const OURS: [HeaderName; 8] = [
        X_FORWARDED_FOR,
        X_FORWARDED_PROTO,
        X_FORWARDED_HOST,
        X_FORWARDED_PORT,
        X_REAL_IP,
        X_REQUEST_ID,
        FORWARDED,
        VIA,
    ];
    if *name == HOST {
        return Some("write `host` in the upstream");
    }
    framing(name).or_else(|| OURS.contains(name).then_some("the gateway sets it itself"))
}

/// Why the operator may not edit a field of an answer; `None`: it may be edited.
pub fn not_in_answers(name: &HeaderName) -> Option<&'static str> {
    const OURS: [HeaderName; 6] = [
        X_REQUEST_ID,
        VIA,
        AGE,
        VARY,
        HeaderName::from_static("cache-status"),
        HeaderName::from_static("proxy-status"),
    ];
    framing(name)
        .or_else(|| OURS.contains(name).then_some("the gateway sets it itself, and caches rely on it"))
}

fn framing(name: &HeaderName) -> Option<&'static str> {
    let framing = HOP_BY_HOP.contains(name) || [CONTENT_LENGTH, CONTENT_RANGE, EXPECT].contains(name);
    framing.then_some("it frames the message or concerns one connection alone, which is the gateway's affair")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fields::Pairs;

    fn facts() -> Facts<'static> {
        Facts {
            client: "::ffff:192.0.2.1".parse().unwrap(),
            host: "a.test",
            method: "GET",
            path: "/a%0Ab",
            request_id: "r-1",
            route: "all",
            https: true,
            user: Some("alice"),
        }
    }

    fn value(text: &str) -> Option<String> {
        Template::parse(text).unwrap().value(&facts()).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn variables_stand_for_what_is_known_of_the_request() {
        for (text, expected) in [
            ("plain", "plain"),
            ("{client_ip}", "192.0.2.1"),
            ("{scheme}://{host}{path}", "https://a.test/a%0Ab"),
            ("<{user}> {route}/{method}; {request_id}", "<alice> all/GET; r-1"),
            ("{\"group\":\"{host}\"}", "{\"group\":\"a.test\"}"),
            ("{", "{"),
            ("{}", "{}"),
            ("a{b", "a{b"),
            ("{ host }", "{ host }"),
        ] {
            assert_eq!(value(text).as_deref(), Some(expected), "{text}");
        }
        let nobody = Facts { user: None, ..facts() };
        assert_eq!(Template::parse("{user}").unwrap().value(&nobody), None);
    }

    #[test]
    fn what_cannot_be_a_value_is_refused() {
        assert_eq!(Template::parse("{clent_ip}"), Err(NotAValue::Variable("clent_ip".into())));
        for wrong in ["a\r\nb: c", "a\nb", "a\0", "", "\u{7f}"] {
            assert_eq!(Template::parse(wrong), Err(NotAValue::Characters), "{wrong:?}");
        }
    }

    #[test]
    fn no_fact_can_end_a_line() {
        let hostile = Facts { user: Some("a\r\nX-Admin: 1"), ..facts() };
        assert_eq!(Template::parse("{user}").unwrap().value(&hostile), None);
        let edits = Edits {
            set: vec![(HeaderName::from_static("x-user"), Template::parse("{user}").unwrap())],
            ..Edits::default()
        };
        let changes: Vec<_> = edits.changes(&hostile).collect();
        assert_eq!(changes, [Change::Remove(HeaderName::from_static("x-user"))], "never the client's own");
    }

    fn name(text: &'static str) -> HeaderName {
        HeaderName::from_static(text)
    }

    fn val(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    fn shown(fields: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<String> =
            fields.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn changes_of_an_answer_remove_set_add_default_and_vary() {
        let mut fields = HeaderMap::new();
        for (n, v) in [("server", "x"), ("x-a", "1"), ("x-a", "2"), ("x-b", "1"), ("vary", "Accept")] {
            fields.append(name(n), val(v));
        }
        Changes(vec![
            Change::Remove(name("server")),
            Change::Set(name("x-a"), val("3")),
            Change::Add(name("x-b"), val("2")),
            Change::Default(name("x-b"), val("9")),
            Change::Default(name("x-c"), val("1")),
            Change::Vary(name("origin")),
            Change::Vary(name("origin")),
            Change::Vary(name("accept")),
        ])
        .apply(&mut fields);
        assert_eq!(shown(&fields), ["vary: Accept", "vary: origin", "x-a: 3", "x-b: 1", "x-b: 2", "x-c: 1"]);
        let mut all = HeaderMap::new();
        all.insert(VARY, val("*"));
        Changes(vec![Change::Vary(name("origin"))]).apply(&mut all);
        assert_eq!(shown(&all), ["vary: *"]);
    }

    fn request_changes() -> Changes {
        Changes(vec![
            Change::Remove(name("x-gone")),
            Change::Set(name("x-tenant"), val("ours")),
            Change::Set(name("authorization"), val("Bearer ours")),
            Change::Add(name("x-more"), val("2")),
        ])
    }

    const CAME: [(&str, &[u8]); 6] = [
        ("x-gone", b"1"),
        ("x-tenant", b"theirs"),
        ("authorization", b"Bearer theirs"),
        ("x-more", b"1"),
        ("x-other", b"1"),
        ("connection", b"close, X-Tenant, x-other"),
    ];

    #[test]
    fn a_request_is_changed_before_it_is_judged_and_keeps_what_was_set() {
        let mut fields = HeaderMap::new();
        for (n, v) in CAME {
            fields.append(name(n), HeaderValue::from_bytes(v).unwrap());
        }
        let changes = request_changes();
        changes.before(&mut fields);
        assert_eq!(
            shown(&fields),
            ["connection: close, x-other", "x-more: 1", "x-more: 2", "x-other: 1", "x-tenant: ours"]
        );
        fields.remove("x-tenant");
        changes.after(&mut fields);
        assert_eq!(fields["x-tenant"], "ours");
        assert_eq!(fields["authorization"], "Bearer ours");
        assert_eq!(fields.get_all("x-more").iter().count(), 2, "added once");
    }

    #[test]
    fn the_view_without_copies_reads_as_the_changed_fields_do() {
        let pairs = Pairs(&CAME);
        let changes = request_changes();
        let view = Edited { fields: &pairs, changes: &changes };
        let mut fields = HeaderMap::new();
        for (n, v) in CAME {
            fields.append(name(n), HeaderValue::from_bytes(v).unwrap());
        }
        changes.before(&mut fields);
        for n in ["x-gone", "x-tenant", "authorization", "x-more", "x-other", "absent"] {
            assert_eq!(view.joined(n), fields.joined(n), "{n}");
        }
    }

    #[test]
    fn framing_and_what_the_gateway_says_itself_are_not_edited() {
        for n in [
            "host",
            "connection",
            "transfer-encoding",
            "content-length",
            "te",
            "upgrade",
            "x-forwarded-for",
            "via",
        ] {
            assert!(not_in_requests(&name(n)).is_some(), "{n}");
        }
        for n in
            ["connection", "transfer-encoding", "content-length", "trailer", "vary", "age", "x-request-id"]
        {
            assert!(not_in_answers(&name(n)).is_some(), "{n}");
        }
        for n in ["authorization", "x-forwarded-prefix", "cookie", "accept-encoding"] {
            assert!(not_in_requests(&name(n)).is_none(), "{n}");
        }
        for n in ["server", "cache-control", "set-cookie", "access-control-allow-origin"] {
            assert!(not_in_answers(&name(n)).is_none(), "{n}");
        }
    }
}
