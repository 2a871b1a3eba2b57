//! `${NAME}`, `${NAME:-default}`, `${file:PATH}` and `$$` in text values.
//!
//! They are put in after TOML has been parsed, so that no variable can add a key, and spans still point at what was written.

/// The environment: where variables are looked up.
pub trait Env {
    /// The value of a variable; `None` when it is not set or not UTF-8.
    fn get(&self, name: &str) -> Option<String>;
}

impl Env for std::collections::HashMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        self.get(name).cloned()
    }
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnv;

impl Env for SystemEnv {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// A text with its variables put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// What it says.
    pub text: String,
    /// Whether there is a variable in it: what it says may be a secret and is never shown.
    pub has_variable: bool,
    /// The names and values that the environment gave.
    pub taken: Vec<(String, String)>,
}

/// Why a text's variables could not be put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VariableError {
    /// The variable is not set and has no default.
    NotSet(String),
    /// `${` without its `}`.
    Open,
    /// What stands between `${` and `}` is not the name of a variable.
    Name(String),
    /// A default that holds a variable itself.
    Nested,
    /// A file that cannot be read, and why.
    File(String, String),
}

/// The longest file that is read for a value or a list, in bytes.
const LONGEST_FILE: u64 = 16 * 1024 * 1024;

/// Reads a file that the configuration names: a plain one of some length, so that no device and no pipe holds the start up.
///
/// # Errors
/// Why it cannot be read, in words.
pub fn read_file(path: &std::path::Path) -> Result<String, String> {
    let about = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is not a file".to_owned());
    }
    if about.len() > LONGEST_FILE {
        return Err(format!("it is larger than {LONGEST_FILE} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Puts the variables of `text` in. As in a shell, the default of `${NAME:-default}` also counts when the variable is empty.
///
/// # Errors
/// The first variable that cannot be put in.
pub fn expand(text: &str, env: &dyn Env) -> Result<Expanded, VariableError> {
    let mut out =
        Expanded { text: String::with_capacity(text.len()), has_variable: false, taken: Vec::new() };
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.text.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = after.find('}').ok_or(VariableError::Open)?;
            put_in(&after[..end], env, &mut out)?;
            rest = &after[end + 1..];
        } else {
            out.text.push('$');
        }
    }
    out.text.push_str(rest);
    Ok(out)
}

/// Adds the value of `NAME` or `NAME:-default`.
fn put_in(inner: &str, env: &dyn Env, out: &mut Expanded) -> Result<(), VariableError> {
    if let Some(path) = inner.strip_prefix("file:") {
        return put_file_in(inner, path, out);
    }
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if !is_name(name) {
        return Err(VariableError::Name(name.to_owned()));
    }
    if default.is_some_and(|default| default.contains("${")) {
        return Err(VariableError::Nested);
    }
    out.has_variable = true;
    match (env.get(name).filter(|value| default.is_none() || !value.is_empty()), default) {
        (Some(value), _) => {
            out.text.push_str(&value);
            out.taken.push((name.to_owned(), value));
        }
        (None, Some(default)) => out.text.push_str(default),
        (None, None) => return Err(VariableError::NotSet(name.to_owned())),
    }
    Ok(())
}

/// Adds what a file holds, without the line ends at its end: that is how secrets are mounted into containers.
fn put_file_in(inner: &str, path: &str, out: &mut Expanded) -> Result<(), VariableError> {
    let text = read_file(path.as_ref()).map_err(|why| VariableError::File(path.to_owned(), why))?;
    let value = text.trim_end_matches(['\r', '\n']);
    out.has_variable = true;
    out.text.push_str(value);
    out.taken.push((inner.to_owned(), value.to_owned()));
    Ok(())
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn variables_are_put_in_as_a_shell_would() {
        let env: HashMap<String, String> =
            [("HOST", "h"), ("EMPTY", ""), ("ODD", "${HOST}")].map(|(k, v)| (k.into(), v.into())).into();
        for (text, expected) in [
            ("plain", Ok("plain")),
            ("${HOST}", Ok("h")),
            ("a${HOST}b${HOST}", Ok("ahbh")),
            ("${NONE:-x}", Ok("x")),
            ("${NONE:-}", Ok("")),
            ("${EMPTY:-x}", Ok("x")),
            ("${EMPTY}", Ok("")),
            ("$$", Ok("$")),
            ("$${HOST}", Ok("${HOST}")),
            ("$5 and $", Ok("$5 and $")),
            ("${ODD}", Ok("${HOST}")),
            ("${NONE:-a:-b}", Ok("a:-b")),
            ("${NONE}", Err(VariableError::NotSet("NONE".into()))),
            ("${HOST", Err(VariableError::Open)),
            ("${}", Err(VariableError::Name("".into()))),
            ("${HO ST}", Err(VariableError::Name("HO ST".into()))),
            ("${1A}", Err(VariableError::Name("1A".into()))),
            ("${NONE:-${HOST}}", Err(VariableError::Nested)),
        ] {
            assert_eq!(expand(text, &env).map(|e| e.text), expected.map(String::from), "{text}");
        }
    }

    #[test]
    fn a_text_remembers_what_the_environment_gave() {
        let env: HashMap<String, String> = [("A".into(), "x".into())].into();
        let facts = |text| expand(text, &env).map(|e| (e.has_variable, e.taken));
        assert_eq!(facts("${A}"), Ok((true, vec![("A".into(), "x".into())])));
        assert_eq!(facts("${B:-x}"), Ok((true, vec![])));
        assert_eq!(facts("$$x"), Ok((false, vec![])));
    }
}
