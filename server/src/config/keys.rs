//! The keys of a table: those of a clap struct, which is the one definition of flags and keys.
//!
//! A key has the name of its flag without the dashes. The entries of a table are turned into arguments and
//! parsed by clap. So a key takes what its flag takes, with the same error messages.

use std::ffi::OsString;
use std::ops::Range;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::fault::Fault;
use crate::options::values::what_to_write;

/// The keys of a clap struct.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    command: Command,
}

/// A key with its values, as it stands in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where it stands.
    pub(crate) key_span: Range<usize>,
    /// What it is set to: one value, or those of an array.
    pub(crate) values: Vec<Value>,
    /// It is written as an array.
    pub(crate) is_array: bool,
}

/// A value, as a flag would take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    /// As an argument.
    pub(crate) text: String,
    /// Where it stands.
    pub(crate) span: Range<usize>,
    /// It is `true` or `false`.
    pub(crate) is_bool: bool,
}

impl Keys {
    /// Those of `T`.
    pub(crate) fn of<T: Args>() -> Self {
        let command = T::augment_args(Command::new("annulus"));
        let command = command.no_binary_name(true).disable_help_flag(true).disable_version_flag(true);
        Keys { command: command.color(clap::ColorChoice::Never) }
    }

    /// The argument of a key.
    pub(crate) fn find(&self, key: &str) -> Option<&Arg> {
        self.command.get_arguments().find(|argument| name(argument) == key)
    }

    /// The names of all keys.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.command.get_arguments().filter(|argument| !argument.is_hide_set()).map(name)
    }

    /// All arguments.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &Arg> {
        self.command.get_arguments()
    }

    /// What the entries of a table say, which all have keys of these. `table` is where the table begins.
    /// Where they are not `complete`, because others were wrong, only what is wrong with each is checked
    /// for.
    ///
    /// # Errors
    /// All that is wrong with each of them; if nothing is, what is wrong with all of them together.
    pub(crate) fn parse<T: FromArgMatches>(
        &self,
        entries: &[Entry],
        table: &Range<usize>,
        complete: bool,
    ) -> Result<T, Vec<Fault>> {
        let faults: Vec<Fault> = entries.iter().flat_map(|entry| self.faults(entry)).collect();
        if !faults.is_empty() || !complete {
            return Err(faults);
        }
        let words = entries.iter().flat_map(|entry| self.words(entry, &entry.values));
        let mut matches = self.matches(self.command.clone(), words).map_err(|error| {
            let (key, what) = together(&error);
            let span = entries.iter().find(|entry| Some(&entry.key) == key.as_ref());
            vec![Fault::new(span.map_or_else(|| table.clone(), |entry| entry.key_span.clone()), what)]
        })?;
        // The definition is sound, so this is a defect of ours.
        T::from_arg_matches_mut(&mut matches)
            .map_err(|error| vec![Fault::new(table.clone(), error.to_string())])
    }

    /// Whether an argument by itself is right, but for others that it needs.
    #[cfg(test)]
    pub(super) fn takes(&self, word: &std::ffi::OsStr) -> bool {
        let alone = self.command.clone().mut_args(|argument| argument.required(false));
        alone.try_get_matches_from([word]).map_or_else(|error| alone_is_wrong(&error).is_none(), |_| true)
    }

    fn matches(
        &self,
        command: Command,
        words: impl Iterator<Item = Word>,
    ) -> Result<ArgMatches, clap::Error> {
        let (flags, positional): (Vec<Word>, Vec<Word>) = words.partition(|word| !word.is_positional);
        let text = |word: Word| word.text;
        let dashes = (!positional.is_empty()).then(|| OsString::from("--"));
        let words = flags.into_iter().map(text).chain(dashes).chain(positional.into_iter().map(text));
        command.try_get_matches_from(words)
    }

    /// The arguments for some of the values of an entry.
    fn words(&self, entry: &Entry, values: &[Value]) -> Vec<Word> {
        let Some(argument) = self.find(&entry.key) else { return Vec::new() };
        let flag = |text: String| Word { text: text.into(), is_positional: false };
        let key = &entry.key;
        let of = |value: &Value| -> Vec<Word> {
            match argument.get_action() {
                ArgAction::SetTrue | ArgAction::SetFalse => {
                    if value.text == "true" {
                        vec![flag(format!("--{key}"))]
                    } else {
                        Vec::new()
                    }
                }
                ArgAction::Count => vec![flag(format!("--{key}")); value.text.parse().unwrap_or(0)],
                // A flag whose value may be left out.
                _ if value.is_bool && takes_none(argument) => {
                    if value.text == "true" {
                        vec![flag(format!("--{key}"))]
                    } else {
                        Vec::new()
                    }
                }
                _ if argument.is_positional() => {
                    vec![Word { text: value.text.clone().into(), is_positional: true }]
                }
                _ => vec![flag(format!("--{key}={}", value.text))],
            }
        };
        values.iter().flat_map(of).collect()
    }

    /// All that is wrong with one entry by itself.
    fn faults(&self, entry: &Entry) -> Vec<Fault> {
        let Some(argument) = self.find(&entry.key) else { return Vec::new() };
        let takes_many = matches!(argument.get_action(), ArgAction::Append)
            || argument.get_num_args().is_some_and(|range| range.max_values() > 1);
        if entry.is_array && !takes_many {
            let what = format!("`{}` takes one value, not an array", entry.key);
            return vec![Fault::new(entry.key_span.clone(), what)];
        }
        let alone = self.command.clone().mut_args(|argument| argument.required(false));
        let fault = |value: &Value| {
            let wrong = match argument.get_action() {
                ArgAction::SetTrue | ArgAction::SetFalse => {
                    (!value.is_bool).then(|| "write true or false".to_owned())
                }
                ArgAction::Count => {
                    value.text.parse::<u8>().is_err().then(|| "write a number from 0 to 255".to_owned())
                }
                _ => {
                    let words = self.words(entry, std::slice::from_ref(value)).into_iter();
                    self.matches(alone.clone(), words).err().and_then(|error| alone_is_wrong(&error))
                }
            };
            let told = |why: String| {
                Fault::new(
                    value.span.clone(),
                    format!("{:?} is no value for `{}`: {}", value.text, entry.key, what_to_write(&why)),
                )
            };
            wrong.map(told)
        };
        entry.values.iter().filter_map(fault).collect()
    }
}

/// An argument.
#[derive(Clone)]
struct Word {
    text: OsString,
    /// It stands behind all flags.
    is_positional: bool,
}

/// The key of an argument: its flag, or its name.
pub(crate) fn name(argument: &Arg) -> String {
    argument.get_long().map_or_else(|| argument.get_id().as_str().replace('_', "-"), str::to_owned)
}

/// Its value may be left out.
pub(crate) fn takes_none(argument: &Arg) -> bool {
    argument.get_num_args().is_some_and(|range| range.min_values() == 0)
}

/// What clap says about one argument by itself; `None` where it only misses others.
fn alone_is_wrong(error: &clap::Error) -> Option<String> {
    let listed = |kind| match error.get(kind) {
        Some(ContextValue::Strings(words)) => words.clone(),
        Some(ContextValue::String(word)) => vec![word.clone()],
        _ => Vec::new(),
    };
    match error.kind() {
        ErrorKind::MissingRequiredArgument => None,
        ErrorKind::InvalidValue => {
            let valid = listed(ContextKind::ValidValue);
            let value = listed(ContextKind::InvalidValue).into_iter().next().unwrap_or_default();
            match nearest(&value, valid.iter().map(String::as_str)) {
                Some(near) => Some(format!("did you mean {near:?}? It takes {}", valid.join(", "))),
                None if valid.is_empty() => Some("it must not be empty".to_owned()),
                None => Some(format!("it takes {}", valid.join(", "))),
            }
        }
        _ => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            Some(cause.unwrap_or_else(|| first_line(error)))
        }
    }
}

/// What clap says about arguments that are each right: which key it is about, and what is wrong.
fn together(error: &clap::Error) -> (Option<String>, String) {
    let words = |kind| match error.get(kind) {
        Some(ContextValue::Strings(words)) => words.iter().map(|word| key_of(word)).collect(),
        Some(ContextValue::String(word)) => vec![key_of(word)],
        _ => Vec::new(),
    };
    let (about, prior): (Vec<String>, Vec<String>) =
        (words(ContextKind::InvalidArg), words(ContextKind::PriorArg));
    let quoted = |keys: &[String]| keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    let what = match error.kind() {
        ErrorKind::MissingRequiredArgument => format!("{} is missing", quoted(&about)),
        ErrorKind::ArgumentConflict => format!("{} cannot be with {}", quoted(&about), quoted(&prior)),
        _ => first_line(error),
    };
    (about.into_iter().next(), what)
}

/// The key that clap means by `--flag <VALUE>` or `<NAME>`.
fn key_of(word: &str) -> String {
    let word = word.split([' ', '=']).next().unwrap_or_default();
    word.trim_start_matches('-').trim_matches(['<', '>', '[', ']', '.']).to_lowercase()
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// The word that is most like `wrong`, if one is like it at all.
pub(crate) fn nearest<'a>(wrong: &str, right: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // As clap measures it, a little stricter, because short words resemble many.
    let rated = right
        .map(|word| (strsim::jaro(&wrong.replace('_', "-"), word), word))
        .filter(|(like, _)| *like > 0.8);
    rated.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, word)| word)
}
