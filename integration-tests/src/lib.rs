//! Black-box tests of Annulus: helpers that the tests share.
