//! How tables of keys and choices of words are declared.

/// Declares a table of keys. Each key is written once: its doc, its type, its default and another right value (both as TOML; `absent` and
/// `required` stand for a default that is none). From this come the reader, the reference and the schema.
macro_rules! table {
    ($(#[doc = $about:literal])+ $name:ident {
        $($(#[doc = $doc:literal])+ $key:ident: $kind:ty = $default:tt, or $example:tt;)+
    }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $key: $crate::config::read::Set<$kind>,)+
        }

        impl $name {
            fn names() -> Vec<&'static str> {
                vec![$(stringify!($key).trim_start_matches("r#")),+]
            }

            /// The keys as they are described.
            pub fn section() -> $crate::config::setting::Section {
                use $crate::config::setting::{Fallback, Key, Section, Setting};
                Section {
                    about: [$($about),+].map(str::trim).join("\n"),
                    keys: vec![$(Key {
                        name: stringify!($key).trim_start_matches("r#"),
                        doc: [$($doc),+].map(str::trim).join("\n"),
                        default: Fallback::from_written(stringify!($default)),
                        example: stringify!($example),
                        schema: <$kind as Setting>::schema,
                        shape: <$kind as Setting>::shape,
                    }),+],
                }
            }
        }

        impl $crate::config::setting::Setting for $name {
            fn read(
                node: &$crate::config::read::Node<'_>,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                use $crate::config::setting::Fallback;
                let Some(members) = node.value.as_table() else {
                    reader.mismatch(node, "a table", &format!("{{ {} = … }}", Self::names()[0]));
                    return None;
                };
                reader.unknown_keys(node, members, &Self::names());
                Some(Self {
                    $($key: reader.key(
                        node,
                        members,
                        stringify!($key).trim_start_matches("r#"),
                        Fallback::from_written(stringify!($default)),
                    ),)+
                })
            }

            fn schema() -> serde_json::Value {
                $crate::config::reference::section_schema(&Self::section())
            }

            fn shape() -> $crate::config::setting::Shape {
                $crate::config::setting::Shape::Table(Self::section())
            }
        }
    };
}
pub(super) use table;

/// Declares the words of a choice, each with its meaning.
macro_rules! words {
    ($type:ty, $what:literal, $($(#[doc = $doc:literal])* $word:literal => $value:expr),+ $(,)?) => {
        impl $crate::config::setting::FromText for $type {
            fn what() -> String {
                $what.to_owned()
            }

            const EXAMPLE: &'static str = [$($word),+][0];

            fn from_text(text: &str) -> Result<Self, Option<String>> {
                match text {
                    $($word => Ok($value),)+
                    _ => {
                        let words = [$($word),+];
                        let known = words.join(", ");
                        Err(Some(match $crate::config::suggest::nearest(text, words) {
                            Some(word) => format!("did you mean \"{word}\"? known: {known}"),
                            None => format!("known: {known}"),
                        }))
                    }
                }
            }

            fn text_schema() -> serde_json::Value {
                serde_json::json!({ "anyOf": [
                    { "enum": [$($word),+] },
                    { "type": "string", "pattern": "\\$\\{" },
                ] })
            }
        }
    };
}
pub(super) use words;
