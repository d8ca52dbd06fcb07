//! TOML with places: every value knows its line and its key, and every key that
//! nobody asked for is an error.

use super::SettingsError;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::str::FromStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The text, to tell lines by.
pub(super) struct Lines<'t>(&'t str);

impl<'t> Lines<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self(text)
    }
}

/// The line of byte `at`, from 1.
pub(super) fn line_of(text: &[u8], at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// Most characters of the file that are repeated in an error.
const SHOWN_MAX: usize = 80;

/// What may be shown of a text: no more than its beginning, and nothing that steers a
/// terminal.
fn plain(text: &str) -> String {
    let shown = text.chars().take(SHOWN_MAX).map(|c| match c.is_control() {
        true => char::REPLACEMENT_CHARACTER,
        false => c,
    });
    shown.collect()
}

/// The same, in quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", plain(text))
}

/// A table of which entries are taken one by one.
pub(super) struct Table<'t> {
    lines: &'t Lines<'t>,
    /// Its name with a point, or nothing for the file itself.
    path: String,
    entries: Vec<Entry<'t>>,
}

struct Entry<'t> {
    key: Cow<'t, str>,
    at: usize,
    value: DeValue<'t>,
    is_taken: bool,
}

/// A value that is to be something.
pub(super) struct Value<'v>(&'v DeValue<'v>);

impl<'t> Table<'t> {
    /// The whole file.
    pub(super) fn parse(lines: &'t Lines<'t>) -> Result<Self, SettingsError> {
        let parsed = DeTable::parse(lines.0).map_err(|error| SettingsError {
            line: line_of(
                lines.0.as_bytes(),
                error.span().map_or(0, |span| span.start),
            ),
            key: String::new(),
            what: plain(&error.message().replace('\n', ", ")),
        })?;
        Ok(Self::new(lines, String::new(), parsed.into_inner()))
    }

    fn new(lines: &'t Lines<'t>, path: String, table: DeTable<'t>) -> Self {
        let entries = table.into_iter().map(|(key, value)| Entry {
            at: key.span().start,
            key: key.into_inner(),
            value: Spanned::into_inner(value),
            is_taken: false,
        });
        Self {
            lines,
            path,
            entries: entries.collect(),
        }
    }

    /// What is wrong with `key`, at its line.
    pub(super) fn error(&self, key: &str, what: &str) -> SettingsError {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        SettingsError {
            line: line_of(self.lines.0.as_bytes(), entry.map_or(0, |entry| entry.at)),
            key: format!("{}{}", self.path, plain(key)),
            what: what.to_string(),
        }
    }

    /// The value of `key`, if it is there, as what `read` makes of it.
    pub(super) fn take<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&Value<'_>) -> Result<T, String>,
    ) -> Result<Option<T>, SettingsError> {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == key) else {
            return Ok(None);
        };
        entry.is_taken = true;
        match read(&Value(&entry.value)) {
            Ok(value) => Ok(Some(value)),
            Err(what) => Err(self.error(key, &what)),
        }
    }

    /// The table `key`, if it is there.
    pub(super) fn table(&mut self, key: &str) -> Result<Option<Table<'t>>, SettingsError> {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.key == key) else {
            return Ok(None);
        };
        entry.is_taken = true;
        let path = format!("{}{key}.", self.path);
        match core::mem::replace(&mut entry.value, DeValue::Boolean(false)) {
            DeValue::Table(table) => Ok(Some(Table::new(self.lines, path, table))),
            _ => Err(self.error(key, &format!("must be a table, [{key}]"))),
        }
    }

    /// Nothing more will be taken: the first other key is an error.
    pub(super) fn end(&self) -> Result<(), SettingsError> {
        let others = self.entries.iter().filter(|entry| !entry.is_taken);
        match others.min_by_key(|entry| entry.at) {
            Some(entry) => Err(self.error(&entry.key, "there is no such key")),
            None => Ok(()),
        }
    }
}

impl Value<'_> {
    fn must_be(&self, what: &str) -> String {
        let found = match self.0 {
            DeValue::String(text) => quoted(text),
            DeValue::Integer(number) => plain(number.as_str()),
            DeValue::Boolean(value) => value.to_string(),
            other => other.type_str().to_string(),
        };
        format!("{found} is not {what}")
    }

    /// A text.
    pub(super) fn text(&self) -> Result<&str, String> {
        match self.0 {
            DeValue::String(text) => Ok(text),
            _ => Err(self.must_be("a text in quotes")),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool, String> {
        match self.0 {
            DeValue::Boolean(value) => Ok(*value),
            _ => Err(self.must_be("true or false")),
        }
    }

    /// A number within bounds.
    pub(super) fn number(&self, least: u16, most: u16) -> Result<u16, String> {
        let number = match self.0 {
            DeValue::Integer(number) => u16::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| self.must_be(&format!("a number from {least} to {most}")))
    }

    /// A text that can be read as something.
    pub(super) fn parsed<T: FromStr>(&self, what: &str) -> Result<T, String> {
        self.text()?.parse().map_err(|_| self.must_be(what))
    }

    /// One of these words.
    pub(super) fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, String> {
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.must_be(&format!("one of {}", names.join(", ")))
        })
    }

    /// A list of at most `max`.
    pub(super) fn list<T>(
        &self,
        max: usize,
        read: impl Fn(&Value<'_>) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let DeValue::Array(items) = self.0 else {
            return Err(self.must_be("a list in brackets"));
        };
        if items.len() > max {
            return Err(format!("has more than {max} entries"));
        }
        items
            .iter()
            .map(|item| read(&Value(item.get_ref())))
            .collect()
    }
}
