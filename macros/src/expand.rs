//! What becomes of a function.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{ItemFn, ReturnType};

use crate::arguments::{Arguments, refused};

/// `async fn main` as the body of a program.
pub(crate) fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let (arguments, function) = match parsed(arguments, item, "annulus::main") {
        Ok(parsed) => parsed,
        Err(refusal) => return refusal,
    };
    if function.sig.ident != "main" {
        return refused(
            function.sig.ident.span(),
            "`#[annulus::main]` is for `main`; elsewhere call `annulus::Runtime::block_on`",
        );
    }
    let (entry, settings) = (arguments.entry(), arguments.settings());
    let ItemFn { attrs, vis, sig, block } = function;
    quote! {
        #(#attrs)*
        #vis fn main() -> ::std::process::ExitCode {
            #sig #block
            #entry::main(#settings, async || #entry::report(main().await))
        }
    }
}

/// An `async fn` as a test.
pub(crate) fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let (arguments, function) = match parsed(arguments, item, "annulus::test") {
        Ok(parsed) => parsed,
        Err(refusal) => return refusal,
    };
    let (entry, settings) = (arguments.entry(), arguments.settings());
    let ItemFn { attrs, vis, sig, block } = function;
    let name = &sig.ident;
    // A test that must panic may not return anything, and `Termination` of what is not `Send` is asked on the
    // core.
    let (output, body) = match &sig.output {
        ReturnType::Default => (quote!(), quote!(#name().await)),
        _ => (quote!(-> ::std::process::ExitCode), quote!(#entry::report(#name().await))),
    };
    quote! {
        #[::core::prelude::v1::test]
        #(#attrs)*
        #vis fn #name() #output {
            #sig #block
            #entry::test(#settings, async || #body)
        }
    }
}

/// The arguments, and a function without parameters of its own.
fn parsed(
    arguments: TokenStream,
    item: TokenStream,
    attribute: &str,
) -> Result<(Arguments, ItemFn), TokenStream> {
    // The function stays, so that what is wrong with the attribute is all that is told.
    let function: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(e) => {
            let e = e.into_compile_error();
            return Err(quote!(#e #item));
        }
    };
    let wrong = |span, why: String| Err(refused(span, &why));
    let sig = &function.sig;
    if sig.asyncness.is_none() {
        return wrong(sig.fn_token.span(), format!("`#[{attribute}]` needs an `async fn`"));
    }
    if !sig.inputs.is_empty() {
        return wrong(sig.inputs.span(), format!("the function of `#[{attribute}]` takes no parameters"));
    }
    if !sig.generics.params.is_empty() {
        return wrong(sig.generics.span(), format!("the function of `#[{attribute}]` cannot be generic"));
    }
    let span = arguments.span();
    match syn::parse2(arguments) {
        Ok(arguments) => Ok((arguments, function)),
        Err(e) => {
            let e = e.into_compile_error();
            Err(quote_spanned!(span=> #e))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(arguments: TokenStream, item: TokenStream) -> String {
        test(arguments, item).to_string()
    }

    /// Each is refused with a word that says what to do.
    #[test]
    fn what_is_wrong_is_told_where_it_is_written() {
        let function = || {
            quote!(
                async fn f() {}
            )
        };
        for (arguments, item, why) in [
            (
                quote!(),
                quote!(
                    fn f() {}
                ),
                "async fn",
            ),
            (
                quote!(),
                quote!(
                    async fn f(n: usize) {}
                ),
                "no parameters",
            ),
            (
                quote!(),
                quote!(
                    async fn f<T>() {}
                ),
                "generic",
            ),
            (
                quote!(),
                quote!(
                    struct S;
                ),
                "expected `fn`",
            ),
            (quote!(kores = 2), function(), "`cores`"),
            (quote!(cores), function(), "name = value"),
            (quote!(cores = 0), function(), "at least one"),
            (quote!(cores = "all", cores = 2), function(), "twice"),
            (quote!(cores = "3-0"), function(), "0-3,8"),
            (quote!(cores = "none"), function(), "0-3,8"),
            (quote!(cores = ""), function(), "0-3,8"),
            (quote!(cores = two()), function(), "0-3,8"),
            (quote!(crate = 3), function(), "path of the crate"),
        ] {
            let told = told(arguments.clone(), item.clone());
            assert!(told.contains("compile_error") && told.contains(why), "{arguments} {item}: {told}");
        }
        assert!(
            main(
                quote!(),
                quote!(
                    async fn run() {}
                )
            )
            .to_string()
            .contains("block_on")
        );
    }

    #[test]
    fn what_is_asked_for_stands_in_the_settings() {
        for (arguments, expected) in [
            (quote!(), quote!(::annulus::__entry::Settings::new())),
            (quote!(cores = 2), quote!(cores(::annulus::__entry::Cores::Most(2usize)))),
            (quote!(cores = "all"), quote!(cores(::annulus::__entry::Cores::All))),
            (quote!(cores = "0-3,8"), quote!(cores(::annulus::__entry::Cores::List("0-3,8")))),
            (quote!(pool_bytes = 1 << 20, name = "t"), quote!(pool_bytes(1 << 20).name("t"))),
            (quote!(crate = "inner::annulus"), quote!(inner::annulus::__entry::test)),
            (quote!(crate = inner::annulus), quote!(inner::annulus::__entry::test)),
        ] {
            let told = told(
                arguments.clone(),
                quote!(
                    async fn f() {}
                ),
            );
            assert!(told.contains(&expected.to_string()), "{arguments}: {told}");
        }
    }
}
