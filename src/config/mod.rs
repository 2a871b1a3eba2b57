//! Text → [`crate::plan::Plan`].
