//! What a key's type must say of itself, and how keys are described.

use serde_json::{Value as Json, json};

use super::problem::Problem;
use super::read::{Node, Reader};

/// A key's type: how its value is read and described.
pub trait Setting: Sized {
    /// Reads a value; `None` after having reported why not.
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self>;

    /// What a value must look like, as JSON Schema draft-07.
    fn schema() -> Json;

    /// What the value is made of, for the reference.
    fn shape() -> Shape {
        Shape::Value
    }
}

/// A key's type that is written as one text.
pub trait FromText: Sized {
    /// What it is called: "a duration".
    fn what() -> String;

    /// A right value, as it is written between quotes.
    const EXAMPLE: &'static str;

    /// A regular expression of what is accepted, for editors.
    const PATTERN: &'static str = ".*";

    /// The value is never shown: it may hold a password.
    const SECRET: bool = false;

    /// What is written is not even shown in its line of the file: it may be the secret itself, misspelled.
    const HIDDEN: bool = false;

    /// Reads the text.
    ///
    /// # Errors
    /// What would be right; `None` when the example says it.
    fn from_text(text: &str) -> Result<Self, Option<String>>;

    /// What a value must look like, as JSON Schema draft-07.
    fn text_schema() -> Json {
        json!({ "type": "string", "pattern": format!("{}|\\$\\{{", Self::PATTERN) })
    }
}

impl<T: FromText> Setting for T {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let written = reader.text(node, &T::what(), &format!("\"{}\"", T::EXAMPLE))?;
        match T::from_text(&written.text) {
            Ok(value) => Some(value),
            Err(help) => {
                let help = help.unwrap_or_else(|| format!("write it like \"{}\"", T::EXAMPLE));
                let shown = node.shown(&written, T::SECRET);
                let problem = Problem::of(&node.spot, format!("{shown} is not {}", T::what())).help(help);
                reader.report(if T::HIDDEN && !written.has_variable { problem.secret() } else { problem });
                None
            }
        }
    }

    fn schema() -> Json {
        T::text_schema()
    }
}

/// What a value is made of.
pub enum Shape {
    /// Something without keys of its own.
    Value,
    /// One table.
    Table(Section),
    /// Tables by name.
    Named(Section),
    /// Tables in a list.
    Each(Section),
}

/// The keys of a table.
pub struct Section {
    /// What the table is for.
    pub about: String,
    /// Its keys, in the order of the reference.
    pub keys: Vec<Key>,
}

/// A key as it is described.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub doc: String,
    /// What it is when it is not written.
    pub default: Fallback,
    /// Another right value, as TOML.
    pub example: &'static str,
    /// What a value must look like, as JSON Schema draft-07.
    pub schema: fn() -> Json,
    /// What the value is made of.
    pub shape: fn() -> Shape,
}

/// What a key is when it is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This value, as TOML.
    Value(&'static str),
    /// Nothing, which has a meaning of its own.
    Absent,
    /// A mistake.
    Required,
}

impl Fallback {
    /// Reads what the list of keys says: the word `absent`, the word `required`, or a value.
    pub fn from_written(text: &'static str) -> Self {
        match text {
            "absent" => Self::Absent,
            "required" => Self::Required,
            value => Self::Value(value),
        }
    }
}
