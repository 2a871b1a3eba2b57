//! Several values: lists, tables by name.

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::is_name_byte;
use super::number::Statuses;
use crate::config::problem::{Problem, Spot};
use crate::config::read::{Node, Reader};
use crate::config::setting::{Fallback, Section, Setting, Shape};

/// Values in a list; wrong ones have been reported and left out.
#[derive(Debug, Clone, Default)]
pub struct List<T> {
    /// The right ones, each with its spot.
    pub items: Vec<(Spot, T)>,
    /// Whether none was left out.
    pub complete: bool,
}

impl<T> List<T> {
    /// The values without their spots; `None` when one was wrong.
    pub fn all(&self) -> Option<impl Iterator<Item = &T>> {
        self.complete.then(|| self.items.iter().map(|(_, item)| item))
    }
}

impl<T: Setting> Setting for List<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Array(elements) = node.value else {
            let example = match T::shape() {
                Shape::Table(_) => format!("[[{}]]", node.spot.path),
                _ => "[ … ], in brackets".to_owned(),
            };
            reader.mismatch(node, "a list", &example);
            return None;
        };
        let mut list = Self { items: Vec::new(), complete: true };
        for (index, element) in elements.iter().enumerate() {
            let node = node.element(index, element);
            match T::read(&node, reader) {
                Some(item) => list.items.push((node.spot, item)),
                None => list.complete = false,
            }
        }
        Some(list)
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema() })
    }

    fn shape() -> Shape {
        match T::shape() {
            Shape::Table(section) => Shape::Each(section),
            _ => Shape::Value,
        }
    }
}

/// One value, or several in a list.
#[derive(Debug, Clone, Default)]
pub struct OneOrMany<T>(pub List<T>);

impl<T: Setting> Setting for OneOrMany<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if node.value.is_array() {
            return List::read(node, reader).map(Self);
        }
        let one = T::read(node, reader)?;
        Some(Self(List { items: vec![(node.spot.clone(), one)], complete: true }))
    }

    fn schema() -> Json {
        json!({ "anyOf": [T::schema(), { "type": "array", "items": T::schema() }] })
    }
}

/// Tables by name, in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct Named<T> {
    /// Each name with its spot and its table.
    pub items: Vec<(Spot, String, T)>,
    /// Whether none was left out.
    pub complete: bool,
}

impl<T> Named<T> {
    /// The position of a name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.items.iter().position(|(_, known, _)| known == name)
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.items.iter().map(|(_, name, _)| name.as_str())
    }
}

impl<T: Setting> Setting for Named<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Table(table) = node.value else {
            reader.mismatch(node, "tables by name", &format!("[{}.NAME]", node.spot.path));
            return None;
        };
        let mut named = Self { items: Vec::new(), complete: true };
        for (spot, name, member) in node.members(table) {
            if !is_table_name(name) {
                reader.report(
                    Problem::at(&spot, format!("\"{}\" is not a name for a table", name.escape_debug()))
                        .help("use letters, digits, `-`, `_` and `.`: names become labels of metrics"),
                );
            }
            match T::read(&member, reader) {
                Some(item) => named.items.push((spot, name.to_owned(), item)),
                None => named.complete = false,
            }
        }
        Some(named)
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }

    fn shape() -> Shape {
        match T::shape() {
            Shape::Table(section) => Shape::Named(section),
            _ => Shape::Value,
        }
    }
}

/// A table, or the word `off`.
#[derive(Debug, Clone)]
pub enum OrOff<T> {
    /// Off.
    Off,
    /// On, so.
    On(T),
}

impl<T: Setting> Setting for OrOff<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let expected = "a table or \"off\"";
        match node.value {
            DeValue::Table(_) => return T::read(node, reader).map(Self::On),
            DeValue::String(_) if reader.text(node, expected, "off")?.text == "off" => {
                return Some(Self::Off);
            }
            _ => reader.mismatch(node, expected, &short_table(T::shape())),
        }
        None
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": "off" }, T::schema()] })
    }

    fn shape() -> Shape {
        T::shape()
    }
}

/// A table with the one key that most needs a value.
fn short_table(shape: Shape) -> String {
    let Shape::Table(Section { keys, .. }) = shape else { return "{ … }".to_owned() };
    let one = |default| keys.iter().find(|key| key.default == default);
    let key = one(Fallback::Required).or(one(Fallback::Absent)).or(keys.first());
    key.map_or_else(|| "{ }".to_owned(), |key| format!("{{ {} = {} }}", key.name, key.example))
}

/// Values by status.
#[derive(Debug, Clone, Default)]
pub struct ByStatus<T>(pub List<((u16, u16), T)>);

impl<T: Setting> Setting for ByStatus<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let DeValue::Table(table) = node.value else {
            reader.mismatch(node, "a table of statuses", "{ \"404\" = \"10s\", \"500-599\" = \"1s\" }");
            return None;
        };
        let mut list = List { items: Vec::new(), complete: true };
        for (spot, key, member) in node.members(table) {
            let statuses = Statuses::<200, 599>::from_key(key, &spot, reader);
            let value = T::read(&member, reader);
            match (statuses, value) {
                (Some(Statuses(low, high)), Some(value)) => list.items.push((spot, ((low, high), value))),
                _ => list.complete = false,
            }
        }
        Some(Self(list))
    }

    fn schema() -> Json {
        json!({
            "type": "object",
            "additionalProperties": false,
            "patternProperties": { "^[2-5][0-9]{2}(-[2-5][0-9]{2})?$": T::schema() },
        })
    }
}

fn is_table_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_name_byte)
}
