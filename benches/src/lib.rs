//! Benches of Annulus.
