//! Does a GraphQL document only ask? (GraphQL specification, October 2021, §2.1 and §2.3)
//!
//! A query may be answered from storage; a mutation changes something and a subscription never ends. What is not surely a query is none: a name
//! that looks like another operation costs a cached answer, the other way round would cost a change.

/// Whether a document holds queries and fragments alone, at least one query among them.
pub fn only_asks(document: &str) -> bool {
    let mut reader = Reader { rest: document.as_bytes() };
    let mut open = Vec::new();
    let mut queries = 0;
    // Whether a definition begins with what comes next.
    let mut begins = true;
    while let Some(token) = reader.next() {
        match token {
            Token::Broken => return false,
            Token::Word(b"mutation" | b"subscription") if open.is_empty() => return false,
            Token::Word(b"query") if begins => queries += 1,
            Token::Word(b"fragment") if begins => {}
            Token::Open(b'{') if begins => {
                queries += 1;
                open.push(b'{');
            }
            _ if begins => return false,
            Token::Open(kind) => open.push(kind),
            Token::Close(kind) => match (open.pop(), kind) {
                (Some(b'{'), b'}') | (Some(b'('), b')') | (Some(b'['), b']') => {
                    begins = open.is_empty() && kind == b'}';
                    continue;
                }
                _ => return false,
            },
            Token::Word(_) | Token::Other => {}
        }
        begins = false;
    }
    begins && queries > 0 && open.is_empty()
}

enum Token<'d> {
    Word(&'d [u8]),
    Open(u8),
    Close(u8),
    Other,
    /// A string without an end.
    Broken,
}

struct Reader<'d> {
    rest: &'d [u8],
}

impl<'d> Reader<'d> {
    fn next(&mut self) -> Option<Token<'d>> {
        loop {
            let first = *self.rest.first()?;
            match first {
                b'#' => self.skip(|byte| !matches!(byte, b'\n' | b'\r')),
                b'"' => return Some(self.string()),
                b'{' | b'(' | b'[' => return Some(self.take(Token::Open(first))),
                b'}' | b')' | b']' => return Some(self.take(Token::Close(first))),
                _ if is_word(first) => {
                    let length = self.rest.iter().position(|byte| !is_word(*byte));
                    let (word, rest) = self.rest.split_at(length.unwrap_or(self.rest.len()));
                    self.rest = rest;
                    return Some(Token::Word(word));
                }
                // Commas are spaces, and so is a byte order mark (§2.1.1, §2.1.7).
                b' ' | b'\t' | b'\n' | b'\r' | b',' | 0xEF | 0xBB | 0xBF => self.rest = &self.rest[1..],
                _ => return Some(self.take(Token::Other)),
            }
        }
    }

    fn take(&mut self, token: Token<'d>) -> Token<'d> {
        self.rest = &self.rest[1..];
        token
    }

    fn skip(&mut self, belongs: impl Fn(u8) -> bool) {
        let length = self.rest.iter().position(|byte| !belongs(*byte)).unwrap_or(self.rest.len());
        self.rest = &self.rest[length..];
    }

    /// A string, or a block string, whose quotes are three (§2.9.4).
    fn string(&mut self) -> Token<'d> {
        let (quote, escape): (&[u8], &[u8]) = match self.rest.starts_with(b"\"\"\"") {
            true => (b"\"\"\"", b"\\\"\"\""),
            false => (b"\"", b"\\"),
        };
        let mut rest = &self.rest[quote.len()..];
        while !rest.is_empty() {
            if rest.starts_with(escape) {
                let step = if quote.len() == 1 { 2 } else { escape.len() };
                rest = rest.get(step..).unwrap_or_default();
            } else if rest.starts_with(quote) {
                self.rest = &rest[quote.len()..];
                return Token::Other;
            } else {
                rest = &rest[1..];
            }
        }
        self.rest = rest;
        Token::Broken
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_document_asks_when_all_its_operations_are_queries() {
        for (document, expected) in [
            ("{ user { name } }", true),
            ("query { user }", true),
            (
                "query Q($id: ID = {a: 1}, $l: [Int!] = [1]) @cached(for: {s: 1}) { user(id: $id) { name } }",
                true,
            ),
            ("# mutation\nquery Q { a }", true),
            ("\u{feff}query Q { a(text: \"mutation { } \\\" \") }", true),
            ("{ a(text: \"\"\"a \"mutation\" \\\"\"\" } \"\"\") }", true),
            ("query A { a } query B { b } fragment F on T { mutation subscription }", true),
            ("fragment F on T { a } query { ...F }", true),
            ("mutation { a }", false),
            ("mutation M { a }", false),
            ("subscription { a }", false),
            ("query A { a } mutation B { b }", false),
            ("{ a } mutation { b }", false),
            ("{ a }mutation{ b }", false),
            // Named like another operation: no harm, and no answer from storage.
            ("query mutation { a }", false),
            ("fragment F on T { a }", false),
            ("type T { a: Int }", false),
            ("extend query { a }", false),
            ("{ a", false),
            ("{ a } }", false),
            ("{ a(b: [1) ] }", false),
            ("{ a(text: \"x) }", false),
            ("{ a(text: \"\"\"x\") }", false),
            ("query Q", false),
            ("query", false),
            ("", false),
            ("  ", false),
        ] {
            assert_eq!(only_asks(document), expected, "{document}");
        }
    }

    proptest! {
        #[test]
        fn a_mutation_among_the_operations_is_never_missed(
            before in "(query [a-z]+ \\{ [a-z]+ \\} |\\{ a(\\(b: \"\\}\"\\))? \\} |# \\{\n|fragment f on t \\{ x \\} ){0,4}",
            after in "( \\{ [a-z]+ \\}| query b \\{ c \\}){0,2}",
        ) {
            let document = format!("{before}mutation m {{ a }}{after}");
            prop_assert!(!only_asks(&document));
        }

        #[test]
        fn any_text_reads_to_an_end(document in "\\PC{0,40}") {
            only_asks(&document);
        }
    }
}
