//! Writing a file that says what a command line says.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};
use toml_writer::{ToTomlValue, TomlStringBuilder};

use super::keys::{Keys, name, takes_none};
use super::read::Definitions;
use super::{Configuration, ServiceConfig};

/// The file that equals a command line: `matches` are those of `serve` or `proxy`, and `config` is what
/// they mean.
///
/// # Errors
/// A value that is no text.
pub(crate) fn write(matches: &ArgMatches, config: &Configuration) -> Result<String, String> {
    let keys = Definitions::get();
    let mut out = String::from("# Keys have the names of flags; `annulus check FILE` says what is wrong.\n");
    lines(&mut out, matches, &keys.program)?;
    for listener in &config.listeners {
        out.push_str("\n[[listener]]\n");
        let addresses = listener.addresses();
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        out.push_str(&format!("listen = {}\n", array_or_one(&texts)));
        if let ServiceConfig::Files(sites) = &listener.service {
            for site in sites {
                let root =
                    site.args.root.to_str().ok_or("the directory's name is no text, which a file is")?;
                out.push_str(&format!("root = {}\n", quoted(root)));
            }
        }
        lines(&mut out, matches, &keys.listener)?;
        match listener.service {
            ServiceConfig::Files(_) => lines(&mut out, matches, &keys.files)?,
            ServiceConfig::Relay(_) => lines(&mut out, matches, &keys.relay)?,
        }
    }
    Ok(out)
}

/// A line for each flag that was given, but for those that are written in any case.
fn lines(out: &mut String, matches: &ArgMatches, keys: &Keys) -> Result<(), String> {
    for argument in keys.arguments() {
        let key = name(argument);
        if matches!(key.as_str(), "listen" | "root")
            || matches.value_source(argument.get_id().as_str()) != Some(ValueSource::CommandLine)
        {
            continue;
        }
        out.push_str(&format!("{key} = {}\n", value(matches, argument)?));
    }
    Ok(())
}

/// What a flag was given, as a value of the file.
fn value(matches: &ArgMatches, argument: &Arg) -> Result<String, String> {
    let id = argument.get_id().as_str();
    match argument.get_action() {
        ArgAction::SetTrue | ArgAction::SetFalse => return Ok("true".to_owned()),
        ArgAction::Count => return Ok(matches.get_count(id).to_string()),
        _ => {}
    }
    let text = |word: &std::ffi::OsStr| {
        word.to_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("what --{} is given is no text, which a file is", name(argument)))
    };
    let texts = matches.get_raw(id).into_iter().flatten().map(text).collect::<Result<Vec<_>, _>>()?;
    if texts.is_empty() && takes_none(argument) {
        return Ok("true".to_owned());
    }
    Ok(array_or_one(&texts))
}

fn array_or_one(texts: &[String]) -> String {
    match texts {
        [one] => one_value(one),
        several => format!("[{}]", several.iter().map(|text| one_value(text)).collect::<Vec<_>>().join(", ")),
    }
}

/// A number where it reads as one, and else a string.
fn one_value(text: &str) -> String {
    let is_number = !text.is_empty()
        && text.len() < 19
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if is_number { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    TomlStringBuilder::new(text).as_default().to_toml_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bare_and_all_else_is_quoted() {
        for (text, written) in [
            ("0", "0"),
            ("660", "660"),
            ("0660", "\"0660\""),
            ("0-3", "\"0-3\""),
            ("", "\"\""),
            ("-1", "\"-1\""),
        ] {
            assert_eq!(one_value(text), written);
        }
        assert!(one_value("99999999999999999999").starts_with('"'));
        for text in ["a\"b", "a\\b", "a\nb", "'", "\u{7f}"] {
            let document = format!("k = {}", one_value(text));
            assert_eq!(
                toml::de::DeTable::parse(&document).unwrap().get_ref()["k"].get_ref().as_str(),
                Some(text)
            );
        }
    }
}
