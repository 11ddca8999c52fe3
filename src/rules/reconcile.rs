//! Wanted against seen.
