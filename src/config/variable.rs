//! `${NAME}`, `${NAME:-default}` and `$$` in text values.
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
    /// Whether any of it came from a variable: such a text may be a secret and is never shown.
    pub from_variable: bool,
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
}

/// Puts the variables of `text` in. As in a shell, the default of `${NAME:-default}` also counts when the variable is empty.
///
/// # Errors
/// The first variable that cannot be put in.
pub fn expand(text: &str, env: &dyn Env) -> Result<Expanded, VariableError> {
    let mut out = Expanded { text: String::with_capacity(text.len()), from_variable: false };
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.text.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = after.find('}').ok_or(VariableError::Open)?;
            out.text.push_str(&value_of(&after[..end], env)?);
            out.from_variable = true;
            rest = &after[end + 1..];
        } else {
            out.text.push('$');
        }
    }
    out.text.push_str(rest);
    Ok(out)
}

fn value_of(inner: &str, env: &dyn Env) -> Result<String, VariableError> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if !is_name(name) {
        return Err(VariableError::Name(name.to_owned()));
    }
    match default {
        Some(default) if default.contains("${") => Err(VariableError::Nested),
        Some(default) => Ok(env.get(name).filter(|v| !v.is_empty()).unwrap_or_else(|| default.to_owned())),
        None => env.get(name).ok_or_else(|| VariableError::NotSet(name.to_owned())),
    }
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
    fn a_text_remembers_that_it_came_from_a_variable() {
        let env = HashMap::new();
        assert!(expand("${A:-x}", &env).is_ok_and(|e| e.from_variable));
        assert!(expand("$$x", &env).is_ok_and(|e| !e.from_variable));
    }
}
