//! store flights
