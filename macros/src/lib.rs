//! The attributes of the crate annulus, which shows them as `annulus::main` and `annulus::test` and documents
//! them there: what they expand to is of no use without it.

mod arguments;
mod expand;

use proc_macro::TokenStream;

/// Makes an `async fn main` the body of a program: see `annulus::main`.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::main(arguments.into(), item.into()).into()
}

/// Makes an `async fn` a test on a core of its own: see `annulus::test`.
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::test(arguments.into(), item.into()).into()
}
