//! The memory tier: byte-budgeted, shared without copying.
