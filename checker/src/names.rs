//! Between the numbers of a history in memory and the strings of its file.

use std::borrow::Cow;
use std::hash::BuildHasher;

use crate::hash::{FixedMap, HASHER};
use crate::history::{KeyId, ValueId};

/// The strings behind the numbers of a history.
pub trait Names {
    /// The key as the client wrote it.
    fn key(&self, key: KeyId) -> Cow<'_, str>;
    /// The value as the client wrote it.
    fn value(&self, value: ValueId) -> Cow<'_, str>;
}

/// Names for a run whose keys and values are only numbers: `k17`, `v3`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbered;

impl Names for Numbered {
    fn key(&self, key: KeyId) -> Cow<'_, str> {
        format!("k{}", key.0).into()
    }

    fn value(&self, value: ValueId) -> Cow<'_, str> {
        format!("v{}", value.0).into()
    }
}

/// Names met so far, each stored once; the numbers are dense and count from 0 in order of first sight.
#[derive(Clone, Debug, Default)]
pub struct Interner {
    keys: Strings,
    values: Strings,
}

impl Interner {
    /// The number of this key.
    ///
    /// # Panics
    ///
    /// If there are more than 4 billion different keys.
    pub fn key_id(&mut self, key: &str) -> KeyId {
        KeyId(self.keys.intern(key))
    }

    /// The number of this value.
    ///
    /// # Panics
    ///
    /// If there are more than 4 billion different values.
    pub fn value_id(&mut self, value: &str) -> ValueId {
        ValueId(u64::from(self.values.intern(value)))
    }

    /// A value that nobody has named yet.
    pub fn fresh_value_id(&mut self) -> ValueId {
        let mut name = String::from("never-written");
        while self.values.find(&name).is_some() {
            name.push('!');
        }
        self.value_id(&name)
    }
}

/// # Panics
///
/// If the number was not handed out by this interner.
impl Names for Interner {
    fn key(&self, key: KeyId) -> Cow<'_, str> {
        self.keys.string(key.0).into()
    }

    fn value(&self, value: ValueId) -> Cow<'_, str> {
        let number = u32::try_from(value.0).expect("a value of this interner");
        self.values.string(number).into()
    }
}

/// Strings end to end in one allocation, found by their hash; equal hashes are chained and compared in full.
#[derive(Clone, Debug, Default)]
struct Strings {
    text: String,
    ends: Vec<usize>,
    /// The next older string with the same hash, by number plus one; 0 ends the chain.
    older: Vec<u32>,
    newest: FixedMap<u64, u32>,
}

impl Strings {
    fn intern(&mut self, string: &str) -> u32 {
        if let Some(number) = self.find(string) {
            return number;
        }
        let number =
            u32::try_from(self.ends.len()).ok().filter(|&n| n < u32::MAX).expect("under 4 billion strings");
        self.text.push_str(string);
        self.ends.push(self.text.len());
        let older = self.newest.insert(HASHER.hash_one(string), number + 1);
        self.older.push(older.unwrap_or(0));
        number
    }

    fn find(&self, string: &str) -> Option<u32> {
        let mut link = self.newest.get(&HASHER.hash_one(string)).copied().unwrap_or(0);
        while link != 0 {
            let number = link - 1;
            if self.string(number) == string {
                return Some(number);
            }
            link = self.older[number as usize];
        }
        None
    }

    fn string(&self, number: u32) -> &str {
        let number = number as usize;
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.text[start..self.ends[number]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_share_a_number_and_numbers_give_their_string_back() {
        let mut names = Interner::default();
        let ids: Vec<ValueId> = ["a", "", "b", "a", ""].iter().map(|name| names.value_id(name)).collect();
        assert_eq!(ids, [0, 1, 2, 0, 1].map(ValueId));
        assert_eq!(names.value(ids[1]), "");
        assert_eq!(names.value(ids[2]), "b");
        assert_eq!(names.key_id("a"), KeyId(0));
    }

    #[test]
    fn a_fresh_value_differs_from_all_others() {
        let mut names = Interner::default();
        let taken = names.value_id("never-written");
        let fresh = names.fresh_value_id();
        assert_ne!(taken, fresh);
        assert_ne!(fresh, names.fresh_value_id());
    }
}
