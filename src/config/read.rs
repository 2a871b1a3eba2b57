//! Values of TOML → the types of the keys, gathering problems on the way.
//!
//! A wrong value leaves its key [`State::Wrong`] and reading goes on. What is wrong is left out of every later check, so that one
//! mistake is never reported twice.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem, Spot};
use super::setting::{Fallback, Setting, Shape};
use super::suggest::nearest;
use super::variable::{Env, Expanded, VariableError, expand};

/// The value of a key and where it stands.
#[derive(Debug, Clone)]
pub struct Set<T> {
    /// The value, if there is one.
    pub state: State<T>,
    /// Where it is written; where its table is, when it is not.
    pub spot: Spot,
    /// Whether it is written, rather than a default.
    pub written: bool,
}

/// Whether a key has a value.
#[derive(Debug, Clone)]
pub enum State<T> {
    /// It is not written and has no default.
    Absent,
    /// It is a mistake that has been reported.
    Wrong,
    /// It has one.
    Is(T),
}

impl<T> Set<T> {
    /// The value, if there is a right one.
    pub fn value(&self) -> Option<&T> {
        match &self.state {
            State::Is(value) => Some(value),
            State::Absent | State::Wrong => None,
        }
    }

    /// `None` when it is wrong, `Some(None)` when it is not written.
    pub fn optional(&self) -> Option<Option<&T>> {
        match &self.state {
            State::Is(value) => Some(Some(value)),
            State::Absent => Some(None),
            State::Wrong => None,
        }
    }

    /// Whether it is not written and has no default.
    pub fn is_absent(&self) -> bool {
        matches!(self.state, State::Absent)
    }
}

impl<T: Setting> Set<T> {
    /// A key that is not written: `fallback` in a table at `table`.
    pub fn unwritten(name: &str, fallback: Fallback, table: &Spot, reader: &mut Reader<'_>) -> Self {
        let spot = Spot { path: join(&table.path, name), place: table.place.clone() };
        let state = match fallback {
            Fallback::Absent => State::Absent,
            Fallback::Required => {
                reader.report(Problem::of(table, format!("`{name}` is missing")).help(T::missing_help(name)));
                State::Wrong
            }
            Fallback::Value(text) => match DeValue::parse(text) {
                Ok(value) => state_of(T::read(&Node::foreign(value.get_ref(), &spot), reader)),
                Err(_) => State::Wrong,
            },
        };
        Self { state, spot, written: false }
    }

    /// A value that a flag or an environment variable gives.
    pub fn outside(name: &'static str, text: String, reader: &mut Reader<'_>) -> Self {
        let spot = Spot { path: name.to_owned(), place: Place::Outside(name) };
        let value = DeValue::String(Cow::Owned(text.replace('$', "$$")));
        let state = state_of(T::read(&Node::foreign(&value, &spot), reader));
        Self { state, spot, written: true }
    }
}

fn state_of<T>(value: Option<T>) -> State<T> {
    value.map_or(State::Wrong, State::Is)
}

/// The help of a key that must be written.
trait MissingHelp {
    fn missing_help(name: &str) -> String;
}

impl<T: Setting> MissingHelp for T {
    fn missing_help(name: &str) -> String {
        match T::shape() {
            Shape::Value => format!("add a line `{name} = …` to this table"),
            Shape::Table(_) | Shape::Named(_) | Shape::Each(_) => format!("add a table `{name}`"),
        }
    }
}

/// A value and its spot.
pub struct Node<'a> {
    /// The value as TOML has it.
    pub value: &'a DeValue<'a>,
    /// Where it stands.
    pub spot: Spot,
    /// It is not part of the file, but a default or a variable: its parts are shown where the whole is, since their own places are
    /// places in another text.
    foreign: bool,
}

impl<'a> Node<'a> {
    /// A value of the file.
    pub fn in_file(value: &'a Spanned<DeValue<'a>>, path: String) -> Self {
        Self { value: value.get_ref(), spot: Spot { path, place: Place::File(value.span()) }, foreign: false }
    }

    /// The file as a whole.
    pub fn root(value: &'a DeValue<'a>) -> Self {
        Self { value, spot: Spot { path: String::new(), place: Place::Whole }, foreign: false }
    }

    fn foreign(value: &'a DeValue<'a>, spot: &Spot) -> Self {
        Self { value, spot: spot.clone(), foreign: true }
    }

    fn part(&self, value: &'a Spanned<DeValue<'a>>, path: String) -> Self {
        if self.foreign {
            let spot = Spot { path, place: self.spot.place.clone() };
            return Self { value: value.get_ref(), spot, foreign: true };
        }
        Self::in_file(value, path)
    }

    /// The element `index` of a list.
    pub fn element(&self, index: usize, value: &'a Spanned<DeValue<'a>>) -> Node<'a> {
        self.part(value, format!("{}[{index}]", self.spot.path))
    }

    fn member(&self, name: &str, value: &'a Spanned<DeValue<'a>>) -> Node<'a> {
        self.part(value, join(&self.spot.path, name))
    }

    /// The spot of a key itself.
    fn key_spot(&self, key: &Spanned<Cow<'_, str>>) -> Spot {
        let place = if self.foreign { self.spot.place.clone() } else { Place::File(key.span()) };
        Spot { path: join(&self.spot.path, key.get_ref()), place }
    }

    /// The members of a table in the order of the file, whatever order the parser keeps them in.
    pub fn members(&self, table: &'a DeTable<'a>) -> Vec<(Spot, &'a str, Node<'a>)> {
        let mut members: Vec<_> = table.iter().collect();
        members.sort_by_key(|(key, _)| key.span().start);
        members
            .into_iter()
            .map(|(key, value)| (self.key_spot(key), &**key.get_ref(), self.member(key.get_ref(), value)))
            .collect()
    }

    /// The value in a message: as written, so that what a variable holds is never shown.
    pub fn shown(&self, written: &Expanded, secret: bool) -> String {
        match self.value {
            _ if secret => "the value".to_owned(),
            DeValue::String(text) if written.has_variable => format!("the value of \"{text}\""),
            _ => format!("\"{}\"", written.text.escape_debug()),
        }
    }
}

/// Joins the name of a table and of a key in it.
pub fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

/// Shorter values are numbers and words, which are no secrets, and whose replacement would garble messages.
const SHORTEST_SECRET: usize = 4;

/// What is found on the way through a file.
pub struct Reader<'e> {
    env: &'e dyn Env,
    problems: Vec<Problem>,
    /// The variables that texts took, with their values: none of the values may be told.
    taken: Vec<(String, String)>,
}

impl<'e> Reader<'e> {
    /// A reader that takes variables from `env`.
    pub fn new(env: &'e dyn Env) -> Self {
        Self { env, problems: Vec::new(), taken: Vec::new() }
    }

    /// Notes a mistake.
    pub fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Everything noted, with the values of variables replaced by their names: a message may quote any text, and any text may
    /// have come from a variable that holds a secret.
    pub fn into_problems(mut self) -> Vec<Problem> {
        for (name, value) in self.taken.iter().filter(|(_, value)| value.len() >= SHORTEST_SECRET) {
            self.problems.iter_mut().for_each(|problem| problem.hide(value, &format!("${{{name}}}")));
        }
        self.problems
    }

    /// Whether the configuration is right so far.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Notes that a value is not of the right type.
    pub fn mismatch(&mut self, node: &Node<'_>, expected: &str, example: &str) {
        let found = type_name(node.value);
        self.report(
            Problem::of(&node.spot, format!("expected {expected}, found {found}"))
                .help(format!("write it like {example}")),
        );
    }

    /// A text with its variables put in.
    pub fn text(&mut self, node: &Node<'_>, expected: &str, example: &str) -> Option<Expanded> {
        let DeValue::String(written) = node.value else {
            self.mismatch(node, expected, example);
            return None;
        };
        match expand(written, self.env) {
            Ok(expanded) => {
                self.taken.extend_from_slice(&expanded.taken);
                Some(expanded)
            }
            Err(error) => {
                self.report(variable_problem(&node.spot, &error, example.trim_matches('"')));
                None
            }
        }
    }

    /// A whole number from `min` to `max`; in a text only when a variable gives it.
    pub fn number(&mut self, node: &Node<'_>, min: u64, max: u64) -> Option<u64> {
        let expected = format!("a whole number from {min} to {max}");
        let example = max.min(min.max(3)).to_string();
        let (number, found) = match node.value {
            DeValue::Integer(number) => {
                (i128::from_str_radix(number.as_str(), number.radix()).ok(), number.to_string())
            }
            DeValue::String(text) if text.contains("${") => {
                let written = self.text(node, &expected, &example)?;
                (written.text.trim().parse().ok(), node.shown(&written, false))
            }
            _ => {
                self.mismatch(node, &expected, &example);
                return None;
            }
        };
        let fits = number.and_then(|n| u64::try_from(n).ok()).filter(|n| (min..=max).contains(n));
        if fits.is_none() {
            self.report(Problem::of(&node.spot, format!("expected {expected}, found {found}")));
        }
        fits
    }

    /// True or false; in a text only when a variable gives it.
    pub fn truth(&mut self, node: &Node<'_>) -> Option<bool> {
        match node.value {
            DeValue::Boolean(value) => Some(*value),
            DeValue::String(text) if text.contains("${") => {
                let written = self.text(node, "true or false", "true")?;
                let value = written.text.trim().parse().ok();
                if value.is_none() {
                    let shown = node.shown(&written, false);
                    self.report(Problem::of(&node.spot, format!("{shown} is not true or false")));
                }
                value
            }
            _ => {
                self.mismatch(node, "true or false", "true");
                None
            }
        }
    }

    /// Notes every member whose name is none of `known`.
    pub fn unknown_keys(&mut self, node: &Node<'_>, table: &DeTable<'_>, known: &[&str]) {
        for key in table.keys().filter(|key| !known.contains(&&**key.get_ref())) {
            let spot = node.key_spot(key);
            let help = match nearest(key.get_ref(), known.iter().copied()) {
                Some(name) => format!("a setting with a similar name: `{name}`"),
                None => format!("settings of this table: {}", known.join(", ")),
            };
            self.report(
                Problem::at(&spot, format!("unknown key `{}`", spot.path))
                    .label("not a setting of this table")
                    .help(help),
            );
        }
    }

    /// One key of a table.
    pub fn key<T: Setting>(
        &mut self,
        table: &Node<'_>,
        members: &DeTable<'_>,
        name: &'static str,
        fallback: Fallback,
    ) -> Set<T> {
        match members.get(name) {
            None => Set::unwritten(name, fallback, &table.spot, self),
            Some(value) => {
                let node = table.member(name, value);
                Set { state: state_of(T::read(&node, self)), spot: node.spot, written: true }
            }
        }
    }
}

fn variable_problem(spot: &Spot, error: &VariableError, example: &str) -> Problem {
    match error {
        VariableError::NotSet(name) => Problem::of(spot, format!("uses ${{{name}}}, which is not set"))
            .help(format!("set {name}, or give a default: \"${{{name}:-{example}}}\"")),
        VariableError::Open => Problem::of(spot, "a `${` without its `}`")
            .help("write a variable as ${NAME} or ${NAME:-default}, and a dollar sign before a brace as $$"),
        VariableError::Name(name) => Problem::of(spot, format!("`{name}` is not the name of a variable"))
            .help("names are letters, digits and _, like ${REDIS_URL}; a dollar sign before a brace is written $$"),
        VariableError::File(path, why) => {
            Problem::of(spot, format!("cannot read {path}: {why}")).help("write the path of a file as ${file:/run/secrets/NAME}")
        }
        VariableError::Nested => Problem::of(spot, "the default of a variable holds another variable")
            .help("give a plain default: \"${NAME:-default}\""),
    }
}

/// What an operator would call the type of a value.
fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
