//! Names to addresses: looked up at the start and again on a timer. A name that does not resolve leaves its endpoint unusable and never keeps
//! the gateway from starting.
