//! The key of a request: whose answer may serve it.
//!
//! Every part is length-prefixed, so that no two different requests can be spelled alike; the host is always part of it.

use super::KeyRules;
use crate::base::fields::Fields;

/// What a key is made from. Host and path come normalised from the request guard, so that routing, key and forwarding read the same.
#[derive(Clone, Copy)]
pub struct KeyFacts<'a> {
    /// The client used https.
    pub https: bool,
    /// The normalised host.
    pub host: &'a str,
    /// The port, when it is not the scheme's own.
    pub port: Option<u16>,
    /// The normalised path.
    pub path: &'a str,
    /// The query as received.
    pub query: Option<&'a str>,
    /// The request's fields, for the headers and cookies that count.
    pub fields: &'a dyn Fields,
}

/// A key: its parts spelled out, and their hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    text: std::sync::Arc<[u8]>,
    hash: [u8; 16],
}

impl Key {
    /// The key of a request under the operator's rules.
    pub fn of(_facts: &KeyFacts<'_>, _rules: &KeyRules) -> Self {
        unimplemented!()
    }

    /// The parts spelled out, length-prefixed: compared with the stored ones, so that a collision of hashes never serves another's answer.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The parts for keeping in a record.
    pub fn shared_text(&self) -> std::sync::Arc<[u8]> {
        self.text.clone()
    }

    /// The first 128 bits of the BLAKE3 hash of the text.
    pub fn hash(&self) -> [u8; 16] {
        self.hash
    }

    /// The hash of a variant of this key.
    pub fn variant(&self, _variant: &super::vary::Variant) -> [u8; 16] {
        unimplemented!()
    }
}

impl std::fmt::Debug for Key {
    /// Readable: `https example.com:443 /path ?query header x-tenant=a`.
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        unimplemented!()
    }
}
