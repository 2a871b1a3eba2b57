//! The name that was probably meant.

/// The candidate nearest to `written`, when it is near enough to be a slip of the fingers.
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    let allowed = (written.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_a_stranger_finds_none() {
        for (written, meant) in [
            ("balanse", Some("balance")),
            ("Balance", Some("balance")),
            ("helath", Some("health")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, ["balance", "health", "host"]), meant, "{written}");
        }
    }
}
