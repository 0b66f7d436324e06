//! What stands in the brackets of an attribute.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, Ident, Lit, Meta, MetaNameValue, Path, Result, Token};

const KNOWN: &str = "`cores`, `pool_bytes`, `name` and `crate`";

/// What the runtime is to be like, where it is said.
#[derive(Default)]
pub(crate) struct Arguments {
    cores: Option<TokenStream>,
    pool_bytes: Option<Expr>,
    name: Option<Expr>,
    /// By which path the crate annulus is reached.
    krate: Option<Path>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Self::default();
        for meta in Punctuated::<Meta, Token![,]>::parse_terminated(input)? {
            let Meta::NameValue(MetaNameValue { path, value, .. }) = meta else {
                return Err(Error::new(meta.span(), format!("write `name = value`, for one of {KNOWN}")));
            };
            let known = path.get_ident().map(Ident::to_string);
            let twice = match known.as_deref() {
                Some("cores") => arguments.cores.replace(cores(&value)?).is_some(),
                Some("pool_bytes") => arguments.pool_bytes.replace(value).is_some(),
                Some("name") => arguments.name.replace(value).is_some(),
                Some("crate") => arguments.krate.replace(krate(&value)?).is_some(),
                _ => return Err(Error::new(path.span(), format!("not known here; there are {KNOWN}"))),
            };
            if twice {
                return Err(Error::new(path.span(), "said twice; leave one out"));
            }
        }
        Ok(arguments)
    }
}

impl Arguments {
    /// The module of the crate annulus that attributes call.
    pub(crate) fn entry(&self) -> TokenStream {
        match &self.krate {
            Some(path) => quote!(#path::__entry),
            None => quote!(::annulus::__entry),
        }
    }

    /// An expression of the type `Settings` of that module.
    pub(crate) fn settings(&self) -> TokenStream {
        let entry = self.entry();
        let mut settings = quote!(#entry::Settings::new());
        if let Some(cores) = &self.cores {
            settings = quote!(#settings.cores(#entry::Cores::#cores));
        }
        if let Some(bytes) = &self.pool_bytes {
            settings = quote_spanned!(bytes.span()=> #settings.pool_bytes(#bytes));
        }
        if let Some(name) = &self.name {
            settings = quote_spanned!(name.span()=> #settings.name(#name));
        }
        settings
    }
}

/// A variant of the enum `Cores`, made.
fn cores(value: &Expr) -> Result<TokenStream> {
    const WRITE: &str = "write a number of cores, \"all\", or a list of CPUs such as \"0-3,8\"";
    let Expr::Lit(literal) = value else { return Err(Error::new(value.span(), WRITE)) };
    match &literal.lit {
        Lit::Int(number) => {
            let most: usize = number.base10_parse()?;
            if most == 0 {
                return Err(Error::new(number.span(), "no core does nothing; ask for at least one"));
            }
            Ok(quote!(Most(#most)))
        }
        Lit::Str(text) if text.value() == "all" => Ok(quote!(All)),
        Lit::Str(text) if is_list(&text.value()) => Ok(quote!(List(#text))),
        other => Err(Error::new(other.span(), WRITE)),
    }
}

/// Whether `text` is a list of CPUs as the kernel prints them (cpuset(7), "List format").
fn is_list(text: &str) -> bool {
    text.split(',').all(|piece| {
        let (from, to) = piece.split_once('-').unwrap_or((piece, piece));
        matches!((from.trim().parse::<u32>(), to.trim().parse::<u32>()), (Ok(from), Ok(to)) if from <= to)
    })
}

fn krate(value: &Expr) -> Result<Path> {
    let path = match value {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => text.parse_with(Path::parse_mod_style).ok(),
            _ => None,
        },
        Expr::Path(path) => Some(path.path.clone()),
        _ => None,
    };
    path.ok_or_else(|| Error::new(value.span(), "write the path of the crate, such as \"my_crate::annulus\""))
}

/// The error as tokens, to stand in the place of the function.
pub(crate) fn refused(span: Span, why: &str) -> TokenStream {
    Error::new(span, why).into_compile_error()
}
