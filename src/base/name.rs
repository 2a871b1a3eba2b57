//! Names given by the operator. Each kind has its own type, so that a route's name can never be looked up among upstreams.

use std::fmt;
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as the operator wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $type {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name!(/** The name of a `[listen.…]` table. */ ListenerName);
name!(/** The name of an `[upstreams.…]` table. */ UpstreamName);
name!(/** The name of a `[caches.…]` table. */ CacheName);
name!(/** The name of a `[[routes]]` entry: its `name`, or one made from its match. */ RouteName);
name!(/** The name of a `[limits.…]` table. */ LimitName);
name!(/** The name of an `[auth.…]` table. */ RealmName);
