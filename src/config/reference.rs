//! The reference and the JSON Schema, written from the list of keys.

use serde_json::{Map, Value as Json, json};

use super::file::{File, root};
use super::setting::{Fallback, Key, Section, Setting, Shape};

const HEAD: &str = "\
# Every setting with its meaning and its default. Lines that begin with `#` and no space are examples of settings that are not
# set unless they are written.
#
";

/// Every key with its doc and its default, as a TOML file that loads.
pub fn reference() -> String {
    let section = root();
    let mut out = format!("#:schema ./vanne.schema.json\n\n{HEAD}");
    comment(&mut out, &section.about);
    for key in &section.keys {
        table(&mut out, key, "", false);
    }
    out
}

/// What a configuration file must look like, as JSON Schema draft-07: the newest that the editors' TOML plugins read.
pub fn schema() -> String {
    let mut schema = File::schema();
    if let Json::Object(members) = &mut schema {
        members.insert("$schema".into(), "http://json-schema.org/draft-07/schema#".into());
        members.insert("title".into(), "Vanne".into());
    }
    format!("{schema:#}\n")
}

/// The schema of a table.
pub fn section_schema(section: &Section) -> Json {
    let properties: Map<String, Json> =
        section.keys.iter().map(|key| (key.name.to_owned(), key_schema(key))).collect();
    let required: Vec<&str> =
        section.keys.iter().filter(|key| key.default == Fallback::Required).map(|key| key.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": section.about.replace('\n', " "),
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn key_schema(key: &Key) -> Json {
    let mut schema = (key.schema)();
    schema["description"] = key.doc.replace('\n', " ").into();
    if let Fallback::Value(text) = key.default
        && let Some(default) = toml_to_json(text)
    {
        schema["default"] = default;
    }
    if let Some(example) = toml_to_json(key.example) {
        schema["examples"] = json!([example]);
    }
    schema
}

fn toml_to_json(text: &str) -> Option<Json> {
    let table: toml::Table = toml::from_str(&format!("it = {text}")).ok()?;
    serde_json::to_value(table.get("it")?).ok()
}

/// A key that is a table, with a heading of its own. `off`: every line is an example.
fn table(out: &mut String, key: &Key, parent: &str, off: bool) {
    let here = if parent.is_empty() { key.name.to_owned() } else { format!("{parent}.{}", key.name) };
    let (section, heading) = match (key.shape)() {
        Shape::Value => return,
        Shape::Table(section) => (section, format!("[{here}]")),
        Shape::Named(section) => {
            let name = if key.name == "listen" { "web" } else { "api" };
            (section, format!("[{here}.{name}]"))
        }
        Shape::Each(section) => (section, format!("[[{here}]]")),
    };
    let path = heading.trim_matches(['[', ']']).to_owned();
    let tables = matches!(key.default, Fallback::Value(text) if text.starts_with(['{', '[']));
    // By default there is none of these, and one of defaults alone would guard nothing.
    let off = off || !tables || ["limits", "access", "auth", "cors"].contains(&here.as_str());
    out.push('\n');
    comment(out, &key.doc);
    line(out, &heading, off);
    for key in section.keys.iter().filter(|key| matches!((key.shape)(), Shape::Value)) {
        out.push('\n');
        comment(out, &key.doc);
        setting(out, key, &path, off);
    }
    for key in &section.keys {
        table(out, key, &path, off);
    }
}

fn setting(out: &mut String, key: &Key, path: &str, off: bool) {
    // A route needs someone who answers, which no default can name.
    let needed = key.default == Fallback::Required || (path == "routes" && key.name == "upstream");
    match key.default {
        // A long list comes in several lines, of which a comment takes one.
        Fallback::Value(default) => line(out, &format!("{} = {}", key.name, default.replace('\n', " ")), off),
        _ => line(out, &format!("{} = {}", key.name, key.example), off || !needed),
    }
}

fn line(out: &mut String, text: &str, off: bool) {
    let mark = if off { "#" } else { "" };
    out.push_str(&format!("{mark}{text}\n"));
}

fn comment(out: &mut String, text: &str) {
    for line in text.lines() {
        out.push_str(&format!("# {line}\n"));
    }
}
