//! A mistake in the configuration: what is wrong, where, and what would be right.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file as a whole.
    Whole,
    /// At these bytes of the file.
    File(Range<usize>),
    /// In an environment variable or a flag, by its name.
    Outside(&'static str),
}

/// The name and the place of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Its keys joined by dots, positions in lists in brackets: `upstreams.api.servers[0]`. Of a flag or a variable: its name.
    pub path: String,
    /// Where it stands.
    pub place: Place,
}

/// One mistake.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// The line, from 1; `None` when it is not in the file or concerns the whole of it.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: Option<usize>,
    /// The setting, as keys joined by dots; empty for a mistake of syntax.
    pub path: String,
    /// What is wrong. Never holds the value of a variable.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    #[serde(skip)]
    place: Place,
    #[serde(skip)]
    label: Option<String>,
    #[serde(skip)]
    also: Option<(Range<usize>, String)>,
    /// What stands at its place in the file is not shown.
    #[serde(skip)]
    secret: bool,
}

impl Problem {
    /// A mistake at a spot.
    pub fn at(spot: &Spot, message: impl Into<String>) -> Self {
        Self {
            line: None,
            column: None,
            path: spot.path.clone(),
            message: message.into(),
            help: None,
            place: spot.place.clone(),
            label: None,
            also: None,
            secret: false,
        }
    }

    /// A mistake at a spot, its message led by the name of the setting.
    pub fn of(spot: &Spot, what: impl std::fmt::Display) -> Self {
        Self::at(spot, format!("{}: {what}", spot.path))
    }

    /// Says what would be right.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Hides what stands at its place: it may be a password.
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Writes a few words beside the caret.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Shows a second place that has to do with it.
    pub fn also(mut self, other: &Spot, label: impl Into<String>) -> Self {
        if let Place::File(span) = &other.place {
            self.also = Some((span.clone(), label.into()));
        }
        self
    }

    /// Says `name` in place of `value` wherever it stands.
    pub(super) fn hide(&mut self, value: &str, name: &str) {
        self.message = self.message.replace(value, name);
        for text in [&mut self.help, &mut self.label].into_iter().flatten() {
            *text = text.replace(value, name);
        }
        if let Some((_, label)) = &mut self.also {
            *label = label.replace(value, name);
        }
    }

    /// Where it comes among the others: what concerns the whole file, then the file's order, then what is outside.
    fn order(&self) -> (u8, usize) {
        match &self.place {
            Place::Whole => (0, 0),
            Place::File(span) => (1, span.start),
            Place::Outside(_) => (2, 0),
        }
    }
}

/// Every mistake of one configuration, in the order of the file.
#[derive(Debug, Clone)]
pub struct Problems {
    file: String,
    text: String,
    list: Vec<Problem>,
}

impl Problems {
    /// Puts mistakes in order and finds their lines. `file` is the name to show, `text` what the file holds.
    pub(super) fn new(file: &str, text: &str, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(Problem::order);
        for problem in &mut list {
            if let Place::File(span) = &problem.place {
                let (line, column) = line_and_column(text, span.start);
                (problem.line, problem.column) = (Some(line), Some(column));
            }
        }
        let mut text = mask(text);
        for problem in list.iter().filter(|problem| problem.secret) {
            if let Place::File(span) = &problem.place {
                text = blank(&text, span);
            }
        }
        Self { file: file.to_owned(), text, list }
    }

    /// The mistakes, in the order of the file.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// Every mistake with its line of the file and a caret, and a closing line that counts them.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.list {
            out.push_str(&renderer.render(&[self.group(problem)]));
            out.push_str("\n\n");
        }
        let plural = if self.list.len() == 1 { "" } else { "s" };
        out.push_str(&format!("{} error{plural} in {}\n", self.list.len(), self.file));
        out
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let group = Level::ERROR.primary_title(problem.message.as_str());
        let group = match &problem.place {
            Place::Whole => group.element(Origin::path(self.file.as_str())),
            Place::File(span) => group.element(self.snippet(problem, span)),
            Place::Outside(_) => Group::with_title(group),
        };
        match &problem.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }

    fn snippet<'a>(
        &'a self,
        problem: &'a Problem,
        span: &Range<usize>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let here = AnnotationKind::Primary.span(first_line(&self.text, span)).label(problem.label.as_deref());
        let there = problem.also.iter().map(|(span, label)| {
            AnnotationKind::Context.span(first_line(&self.text, span)).label(label.as_str())
        });
        Snippet::source(self.text.as_str()).path(self.file.as_str()).annotation(here).annotations(there)
    }
}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

/// The part of a span on its first line: a value of many lines would bury its message under itself.
fn first_line(text: &str, span: &Range<usize>) -> Range<usize> {
    let end = text
        .get(span.clone())
        .and_then(|part| part.find(['\n', '\r']))
        .map_or(span.end, |length| span.start + length);
    span.start..end
}

fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// Hides the user and password of every address in `text`, byte for byte, so that spans stay right. Lines of the file end up in
/// terminals, CI logs and bug reports; a password must not.
fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(['"', '\'', '\n', '\r', ' ', '\t']).unwrap_or(after.len());
        let secret = after[..end].rfind('@').unwrap_or(0);
        out.push_str(&"*".repeat(secret));
        rest = &after[secret..];
    }
    out.push_str(rest);
    out
}

/// Hides what stands within quotes at `span`, byte for byte.
fn blank(text: &str, span: &Range<usize>) -> String {
    let Some(part) = text.get(span.clone()) else { return text.to_owned() };
    let hidden: String = part
        .chars()
        .map(|c| if matches!(c, '"' | '\'' | '\n' | '\r') { c.to_string() } else { "*".repeat(c.len_utf8()) })
        .collect();
    [&text[..span.start], &hidden, &text[span.end..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_without_moving_anything() {
        let text = "users = [\"al\u{e9}:x\"]";
        assert_eq!(blank(text, &(9..17)), "users = [\"*******\"]".replace("*******", "******"));
        assert_eq!(blank(text, &(9..17)).len(), text.len());
    }

    #[test]
    fn a_password_in_an_address_is_hidden_without_moving_anything() {
        for (text, masked) in [
            ("url = \"redis://u:p@h:1\"\nx = 1", "url = \"redis://***@h:1\"\nx = 1"),
            ("url = 'redis://:p@ss@h'", "url = 'redis://*****@h'"),
            ("url = \"redis://h\" # mail me@x", "url = \"redis://h\" # mail me@x"),
            ("url = \"${A:-redis://:pé@h}\"", "url = \"${A:-redis://****@h}\""),
            ("url = \"redis://:p@h", "url = \"redis://**@h"),
        ] {
            assert_eq!(mask(text), masked);
            assert_eq!(mask(text).len(), text.len());
        }
    }

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        for (text, at, expected) in
            [("ab", 0, (1, 1)), ("a\nbc", 3, (2, 2)), ("é=x", 3, (1, 3)), ("", 0, (1, 1))]
        {
            assert_eq!(line_and_column(text, at), expected);
        }
    }
}
