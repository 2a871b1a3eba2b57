//! What a file holds, by its name.

use http::HeaderValue;

/// The Content-Type of a file. Text is said to be UTF-8: every tool writes it so, and a browser that has to guess may guess wrong.
pub fn content_type(name: &[u8]) -> HeaderValue {
    const UNKNOWN: HeaderValue = HeaderValue::from_static("application/octet-stream");
    let Ok(name) = std::str::from_utf8(name) else { return UNKNOWN };
    let Some((_, extension)) = name.rsplit_once('.') else { return UNKNOWN };
    let Some(guess) = mime_guess::from_ext(extension).first_raw() else { return UNKNOWN };
    let text = guess.starts_with("text/") || guess == "application/javascript";
    if !text {
        return HeaderValue::from_static(guess);
    }
    // RFC 9239 §6.
    let guess = if guess == "application/javascript" { "text/javascript" } else { guess };
    HeaderValue::from_str(&format!("{guess}; charset=utf-8")).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_frontend_is_made_of_has_the_types_browsers_want() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a.HTM", "text/html; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("app.css", "text/css; charset=utf-8"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.md", "text/markdown; charset=utf-8"),
            ("a.csv", "text/csv; charset=utf-8"),
            ("a.json", "application/json"),
            ("app.wasm", "application/wasm"),
            ("a.svg", "image/svg+xml"),
            ("a.png", "image/png"),
            ("a.jpg", "image/jpeg"),
            ("a.webp", "image/webp"),
            ("a.avif", "image/avif"),
            ("favicon.ico", "image/x-icon"),
            ("a.woff2", "font/woff2"),
            ("a.pdf", "application/pdf"),
            ("a.mp4", "video/mp4"),
            ("site.webmanifest", "application/manifest+json"),
            ("a.xml", "text/xml; charset=utf-8"),
            ("Makefile", "application/octet-stream"),
            ("a.unheard-of", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(content_type(b"\xff.html"), "application/octet-stream");
    }
}
