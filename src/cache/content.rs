//! The content of a request as part of its key: for POST and QUERY (RFC 10008), where it is the question.
//!
//! Two questions have one key only when they are the same question: equal bytes, or, where the operator says that the content is JSON, equal
//! JSON. JSON is compared in a canonical form after RFC 8785: neither the order of an object's members nor spacing nor the spelling of strings and
//! numbers matters. Numbers are compared exactly, not as the doubles of that RFC: two different identifiers beyond 2⁵³ must never share
//! an answer. Content that is no JSON, or JSON that readers disagree about (a member twice, a lone surrogate), is taken by its bytes.
//!
//! Also decided here: whether an answer's own content allows it to be stored ([`StoreWhen`]).

use http::{HeaderName, Method, StatusCode};

use super::graphql;

/// How the content of a request enters its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentKey {
    /// How it is read.
    pub form: Form,
    /// It is GraphQL over HTTP: only what surely asks is answered from storage.
    pub graphql: bool,
    /// Larger content is not read into a key: the request passes the cache by. In bytes.
    pub most: u64,
    /// Request fields that count, beside those of the cache.
    pub headers: Vec<HeaderName>,
}

/// How the content of a request is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// By its bytes.
    Raw,
    /// As JSON.
    Json {
        /// Members that do not count.
        ignore: Vec<Pointer>,
        /// If there are any, the only members that count.
        only: Vec<Pointer>,
        /// Texts in which case and spacing do not count.
        fold: Vec<Pointer>,
    },
}

/// Whether an answer's own content allows it to be stored; what is empty asks nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreWhen {
    /// The statuses, as inclusive ranges.
    pub status: Vec<(u16, u16)>,
    /// Members that must be there, when the answer is JSON; an answer that is not JSON has none.
    pub present: Vec<Pointer>,
    /// Members that must not be there, or be null or false.
    pub absent: Vec<Pointer>,
    /// The least length in bytes.
    pub least: u64,
    /// What the content must end with, white space aside: the marker of a whole stream.
    pub ends_with: Option<String>,
}

/// A place in JSON (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// Whether requests of this method are questions whose content may be part of a key.
pub fn is_question(method: &Method) -> bool {
    method == Method::POST || method.as_str() == "QUERY"
}

impl Pointer {
    /// Reads a pointer: `/filters/lang`, or a bare name for a member of the whole.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text == "/" {
            return None;
        }
        let path = text.strip_prefix('/').unwrap_or(text);
        let steps = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"));
        Some(Self(steps.collect()))
    }
}

impl ContentKey {
    /// What of a request's content counts, as bytes that differ whenever it does. The first byte tells canonical JSON from raw bytes, so that
    /// neither can be mistaken for the other.
    pub fn canonical(&self, content: &[u8]) -> Vec<u8> {
        if let Form::Json { ignore, only, fold } = &self.form
            && let Some(mut json) = Json::parse(content)
        {
            for pointer in fold {
                json.at_mut(&pointer.0, &mut Json::fold);
            }
            for pointer in ignore {
                json.remove(&pointer.0);
            }
            let mut out = vec![b'j'];
            if only.is_empty() {
                json.write(&mut out);
            } else {
                for pointer in only {
                    match json.at(&pointer.0) {
                        Some(value) => value.write(&mut out),
                        None => out.push(b'-'),
                    }
                    out.push(b'\n');
                }
            }
            return out;
        }
        let mut out = Vec::with_capacity(content.len() + 1);
        out.push(b'r');
        out.extend_from_slice(content);
        out
    }
}

impl ContentKey {
    /// Whether a request with this content only asks, so that an answer from storage may serve it.
    pub fn only_asks(&self, content: &[u8]) -> bool {
        if !self.graphql {
            return true;
        }
        let json = Json::parse(content);
        match json.as_ref().and_then(|json| json.at(&["query".to_owned()])) {
            Some(Json::String(document)) => graphql::only_asks(document),
            _ => false,
        }
    }
}

impl StoreWhen {
    /// Whether the status is one to store.
    pub fn takes_status(&self, status: StatusCode) -> bool {
        let code = status.as_u16();
        self.status.is_empty() || self.status.iter().any(|(low, high)| (*low..=*high).contains(&code))
    }

    /// Whether the content is one to store.
    pub fn takes_content(&self, content: &[u8]) -> bool {
        if (content.len() as u64) < self.least {
            return false;
        }
        if let Some(end) = &self.ends_with
            && !content.trim_ascii_end().ends_with(end.trim_ascii_end().as_bytes())
        {
            return false;
        }
        if self.present.is_empty() && self.absent.is_empty() {
            return true;
        }
        let Some(json) = Json::parse(content) else { return self.present.is_empty() };
        let says = |pointer: &Pointer| {
            json.at(&pointer.0).is_some_and(|value| !matches!(value, Json::Null | Json::False))
        };
        self.present.iter().all(|pointer| json.at(&pointer.0).is_some()) && !self.absent.iter().any(says)
    }

    /// Whether the content must be looked at.
    pub fn asks_content(&self) -> bool {
        self.least > 0 || self.ends_with.is_some() || !self.present.is_empty() || !self.absent.is_empty()
    }
}

/// JSON with its numbers as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Json {
    Null,
    False,
    True,
    /// In its one spelling: see [`canonical_number`].
    Number(String),
    String(String),
    Array(Vec<Json>),
    /// In the order of the members' names.
    Object(Vec<(String, Json)>),
}

/// Deeper content is taken by its bytes: reading it would need as much stack as a client likes.
const DEEPEST: usize = 64;

impl Json {
    /// Reads JSON (RFC 8259); `None` for anything that readers could take differently.
    fn parse(content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        let mut reader = Reader { rest: text };
        let value = reader.value(0)?;
        reader.skip_space();
        reader.rest.is_empty().then_some(value)
    }

    fn at(&self, path: &[String]) -> Option<&Self> {
        let Some((step, rest)) = path.split_first() else { return Some(self) };
        match self {
            Self::Object(members) => members.iter().find(|(name, _)| name == step)?.1.at(rest),
            Self::Array(items) => items.get(step.parse::<usize>().ok()?)?.at(rest),
            _ => None,
        }
    }

    fn at_mut(&mut self, path: &[String], change: &mut dyn FnMut(&mut Self)) {
        let Some((step, rest)) = path.split_first() else { return change(self) };
        let next = match self {
            Self::Object(members) => {
                members.iter_mut().find(|(name, _)| name == step).map(|(_, value)| value)
            }
            Self::Array(items) => step.parse::<usize>().ok().and_then(|i| items.get_mut(i)),
            _ => None,
        };
        if let Some(next) = next {
            next.at_mut(rest, change);
        }
    }

    fn remove(&mut self, path: &[String]) {
        let Some((last, parents)) = path.split_last() else { return };
        self.at_mut(parents, &mut |parent| {
            if let Self::Object(members) = parent {
                members.retain(|(name, _)| name != last);
            }
        });
    }

    fn fold(&mut self) {
        if let Self::String(text) = self {
            let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
            *text = words.join(" ");
        }
    }

    /// Writes it without spaces, strings escaped as little as may be (RFC 8785 §3.2).
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::False => out.extend_from_slice(b"false"),
            Self::True => out.extend_from_slice(b"true"),
            Self::Number(number) => out.extend_from_slice(number.as_bytes()),
            Self::String(text) => write_string(text, out),
            Self::Array(items) => {
                out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_string(name, out);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > DEEPEST {
            return None;
        }
        self.skip_space();
        match self.rest.bytes().next()? {
            b'n' => self.take("null").map(|()| Json::Null),
            b'f' => self.take("false").map(|()| Json::False),
            b't' => self.take("true").map(|()| Json::True),
            b'"' => self.string().map(Json::String),
            b'[' => self.array(depth),
            b'{' => self.object(depth),
            _ => self.number(),
        }
    }

    fn array(&mut self, depth: usize) -> Option<Json> {
        self.take("[")?;
        let mut items = Vec::new();
        self.skip_space();
        if self.take("]").is_some() {
            return Some(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_space();
            if self.take("]").is_some() {
                return Some(Json::Array(items));
            }
            self.take(",")?;
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.take("{")?;
        let mut members: Vec<(String, Json)> = Vec::new();
        self.skip_space();
        if self.take("}").is_some() {
            return Some(Json::Object(members));
        }
        loop {
            self.skip_space();
            let name = self.string()?;
            self.skip_space();
            self.take(":")?;
            members.push((name, self.value(depth + 1)?));
            self.skip_space();
            if self.take("}").is_some() {
                break;
            }
            self.take(",")?;
        }
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        // Of a member that is there twice one reader takes the first and another the last.
        let twice = members.windows(2).any(|pair| pair[0].0 == pair[1].0);
        (!twice).then_some(Json::Object(members))
    }

    fn string(&mut self) -> Option<String> {
        self.take("\"")?;
        let mut out = String::new();
        loop {
            let end = self.rest.find(['"', '\\'])?;
            let (plain, rest) = self.rest.split_at(end);
            if plain.bytes().any(|b| b < 0x20) {
                return None;
            }
            out.push_str(plain);
            self.rest = rest;
            if self.take("\"").is_some() {
                return Some(out);
            }
            self.take("\\")?;
            out.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Option<char> {
        let kind = self.rest.chars().next()?;
        self.rest = &self.rest[kind.len_utf8()..];
        Some(match kind {
            '"' | '\\' | '/' => kind,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.unicode(),
            _ => return None,
        })
    }

    /// Four hex digits, or two such escapes for a character beyond the first plane; a lone half of such a pair is nothing all readers accept.
    fn unicode(&mut self) -> Option<char> {
        let first = self.hex()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        self.take("\\u")?;
        let second = self.hex().filter(|second| (0xdc00..0xe000).contains(second))?;
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.rest.get(..4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let code = u32::from_str_radix(digits, 16).ok()?;
        self.rest = &self.rest[4..];
        Some(code)
    }

    fn number(&mut self) -> Option<Json> {
        let end = self
            .rest
            .find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'))
            .unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        canonical_number(text).map(Json::Number)
    }
}

/// The one spelling of a number (RFC 8259 §6): its digits without leading and trailing zeros, and the power of ten they count. Exact: `1.0`, `1`
/// and `10e-1` are one, and no two different numbers are.
fn canonical_number(text: &str) -> Option<String> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            (mantissa, exponent.strip_prefix('+').unwrap_or(exponent).parse::<i64>().ok()?)
        }
        None => (text, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if whole.is_empty() || leading_zero || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    let trimmed = significant.trim_end_matches('0');
    if trimmed.is_empty() {
        return Some("0".into());
    }
    let dropped = i64::try_from(significant.len() - trimmed.len()).ok()?;
    let power = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(dropped)?;
    let sign = if negative { "-" } else { "" };
    Some(if power == 0 { format!("{sign}{trimmed}") } else { format!("{sign}{trimmed}e{power}") })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pointers(texts: &[&str]) -> Vec<Pointer> {
        texts.iter().map(|text| Pointer::parse(text).unwrap()).collect()
    }

    fn json(ignore: &[&str], only: &[&str], fold: &[&str]) -> ContentKey {
        let form = Form::Json { ignore: pointers(ignore), only: pointers(only), fold: pointers(fold) };
        ContentKey { form, graphql: false, most: 1 << 20, headers: Vec::new() }
    }

    #[test]
    fn the_same_question_has_one_key_however_it_is_spelled() {
        let key = json(&[], &[], &[]);
        for (one, other) in [
            (r#"{"a":1,"b":[true,null]}"#, "{ \"b\" : [ true , null ] ,\r\n\t\"a\":1 }"),
            (r#"{"q":"é\n/"}"#, r#"{"q":"\u00E9\u000a\/"}"#),
            (r#"{"q":"😀"}"#, r#"{"q":"\ud83d\ude00"}"#),
            ("1", "1.0"),
            ("1", "10e-1"),
            ("-0", "0.000"),
            ("100", "1E+2"),
            ("0.001", "1e-3"),
        ] {
            assert_eq!(key.canonical(one.as_bytes()), key.canonical(other.as_bytes()), "{one} {other}");
        }
    }

    #[test]
    fn two_questions_never_share_one() {
        let key = json(&[], &[], &[]);
        let questions = [
            "1",
            "2",
            "-1",
            "10",
            "\"1\"",
            "[1]",
            "[[1]]",
            "{}",
            "[]",
            "null",
            "false",
            "true",
            "\"\"",
            "{\"\":1}",
            "[1,2]",
            "[12]",
            "{\"a\":\"b\"}",
            "{\"a\":[\"b\"]}",
            "{\"ab\":\"\"}",
            "9007199254740993",
            "9007199254740992",
            "0.1",
            "0.10000000000000001",
            "{\"a\":1,\"a\":2}",
            "{\"a\":2,\"a\":1}",
            "\"\\ud800\"",
            "not json",
            "",
            " ",
        ];
        for (i, one) in questions.iter().enumerate() {
            for other in &questions[i + 1..] {
                assert_ne!(key.canonical(one.as_bytes()), key.canonical(other.as_bytes()), "{one} {other}");
            }
        }
    }

    #[test]
    fn what_is_no_json_counts_by_its_bytes() {
        let key = json(&[], &[], &[]);
        for text in [
            "{",
            "[1,]",
            "01",
            "1.",
            ".5",
            "+1",
            "nul",
            "{\"a\" 1}",
            "{'a':1}",
            "\"\t\"",
            "\"\\x\"",
            "1 2",
            "\u{feff}1",
        ] {
            assert_eq!(key.canonical(text.as_bytes()), [b"r", text.as_bytes()].concat(), "{text}");
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert_eq!(key.canonical(deep.as_bytes())[0], b'r');
    }

    #[test]
    fn members_that_do_not_count_do_not() {
        let key = json(&["request_id", "/client/version"], &[], &[]);
        let one = br#"{"q":"x","request_id":1,"client":{"version":2,"lang":"de"}}"#;
        let other = br#"{"client":{"lang":"de","version":9},"q":"x"}"#;
        assert_eq!(key.canonical(one), key.canonical(other));
        let third = br#"{"client":{"lang":"fr"},"q":"x"}"#;
        assert_ne!(key.canonical(one), key.canonical(third));
    }

    #[test]
    fn only_the_named_members_count_when_some_are_named() {
        let key = json(&[], &["q", "/filters/0"], &[]);
        assert_eq!(
            key.canonical(br#"{"q":1,"x":2,"filters":["a","b"]}"#),
            key.canonical(br#"{"filters":["a"],"q":1}"#)
        );
        assert_ne!(
            key.canonical(br#"{"q":1,"filters":["a"]}"#),
            key.canonical(br#"{"q":1,"filters":["b"]}"#)
        );
        assert_ne!(key.canonical(br#"{"q":1}"#), key.canonical(br#"{"q":1,"filters":["-"]}"#));
        assert_ne!(key.canonical(br#"{"q":1}"#), key.canonical(br#"{"filters":[1]}"#));
    }

    #[test]
    fn case_and_spacing_do_not_count_where_the_operator_says_so() {
        let key = json(&[], &[], &["q"]);
        assert_eq!(key.canonical(br#"{"q":" What  IS it? "}"#), key.canonical(br#"{"q":"what is it?"}"#));
        assert_ne!(key.canonical(br#"{"q":"a","t":"B"}"#), key.canonical(br#"{"q":"a","t":"b"}"#));
    }

    #[test]
    fn an_answers_content_says_whether_it_is_stored() {
        let when = StoreWhen {
            status: vec![(200, 299)],
            present: pointers(&["answer"]),
            absent: pointers(&["error"]),
            least: 5,
            ends_with: None,
        };
        assert!(when.takes_status(StatusCode::OK) && !when.takes_status(StatusCode::BAD_REQUEST));
        for (content, stored) in [
            (r#"{"answer":1}"#, true),
            (r#"{"answer":1,"error":null}"#, true),
            (r#"{"answer":1,"error":"x"}"#, false),
            (r#"{"other":1}"#, false),
            ("no json at all", false),
            ("{}", false),
        ] {
            assert_eq!(when.takes_content(content.as_bytes()), stored, "{content}");
        }
        let stream = StoreWhen { ends_with: Some("data: [DONE]".into()), ..StoreWhen::default() };
        assert!(stream.takes_content(b"data: a\n\ndata: [DONE]\n\n"));
        assert!(!stream.takes_content(b"data: a\n\n"));
        assert!(StoreWhen::default().takes_content(b"") && !StoreWhen::default().asks_content());
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_key(content: Vec<u8>) {
            json(&["a"], &[], &["q"]).canonical(&content);
        }

        #[test]
        fn what_another_reader_takes_as_equal_has_one_key(number in any::<i64>(), text in ".{0,20}", flag: bool) {
            let value = serde_json::json!({ "n": number, "t": text, "l": [flag, null] });
            let compact = serde_json::to_vec(&value).unwrap();
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            let key = json(&[], &[], &[]);
            prop_assert_eq!(key.canonical(&compact), key.canonical(&pretty));
            prop_assert_eq!(key.canonical(&compact)[0], b'j');
        }
    }
}
