//! Tables of a file, taken apart: keys with values that flags would take, and tables within.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::fault::Fault;
use super::keys::{Entry, Value};

/// A table, with its place.
#[derive(Clone)]
pub(super) struct Table<'t> {
    /// Its keys and values.
    pub(super) content: &'t DeTable<'t>,
    /// Where it begins.
    pub(super) span: Range<usize>,
}

/// A key of a table and what it is set to.
#[derive(Clone, Copy)]
pub(super) struct Item<'t> {
    key: &'t Spanned<DeString<'t>>,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Table<'t> {
    /// What stands in it.
    pub(super) fn items(&self) -> impl Iterator<Item = Item<'t>> + use<'t> {
        self.content.iter().map(|(key, value)| Item { key, value })
    }

    /// What `key` is set to.
    pub(super) fn get(&self, key: &str) -> Option<Item<'t>> {
        self.items().find(|item| item.key() == key)
    }
}

impl<'t> Item<'t> {
    /// The key.
    pub(super) fn key(&self) -> &'t str {
        self.key.get_ref()
    }

    /// Where the key stands.
    pub(super) fn key_span(&self) -> Range<usize> {
        self.key.span()
    }

    /// The tables of `[[key]]`.
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn tables(&self, written: &str) -> Result<Vec<Table<'t>>, Fault> {
        let is_not =
            || Fault::new(self.key_span(), format!("`{}` is a table: write [[{written}]]", self.key()));
        let array = self.value.get_ref().as_array().ok_or_else(is_not)?;
        let table = |value: &'t Spanned<DeValue<'t>>| {
            let content = value.get_ref().as_table().ok_or_else(is_not)?;
            Ok(Table { content, span: value.span() })
        };
        array.iter().map(table).collect()
    }

    /// The key with values that flags would take.
    ///
    /// # Errors
    /// Values of a kind that no flag takes.
    pub(super) fn entry(&self) -> Result<Entry, Vec<Fault>> {
        let (values, is_array) = match self.value.get_ref() {
            DeValue::Array(array) => (self.array(array)?, true),
            _ => (vec![value(self.value).map_err(|fault| vec![fault])?], false),
        };
        Ok(Entry { key: self.key().to_owned(), key_span: self.key_span(), values, is_array })
    }

    fn array(&self, array: &'t DeArray<'t>) -> Result<Vec<Value>, Vec<Fault>> {
        let (values, faults): (Vec<_>, Vec<_>) = array.iter().map(value).partition(Result::is_ok);
        let faults: Vec<Fault> = faults.into_iter().filter_map(Result::err).collect();
        if faults.is_empty() { Ok(values.into_iter().flatten().collect()) } else { Err(faults) }
    }
}

/// A value, as a flag would take it.
fn value(value: &Spanned<DeValue<'_>>) -> Result<Value, Fault> {
    let span = value.span();
    let (text, is_bool) = match value.get_ref() {
        DeValue::String(text) => (text.to_string(), false),
        DeValue::Boolean(is) => (is.to_string(), true),
        // Flags that are in octal take its digits.
        DeValue::Integer(number) if matches!(number.radix(), 8 | 10) => (number.as_str().to_owned(), false),
        DeValue::Integer(number) => {
            let decimal = i128::from_str_radix(number.as_str(), number.radix());
            let decimal = decimal.map_err(|error| Fault::new(span.clone(), format!("{number}: {error}")))?;
            (decimal.to_string(), false)
        }
        DeValue::Float(number) => (number.as_str().to_owned(), false),
        other => {
            let what = format!(
                "no value here is {}: write a string, a number, true or false",
                article(other.type_str())
            );
            return Err(Fault::new(span, what));
        }
    };
    Ok(Value { text, span, is_bool })
}

fn article(kind: &str) -> String {
    format!("{} {kind}", if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" })
}
