//! What protects a resource from a holder that does not know that it is one no more.

/// A number that rises with every grant, checked by the resource.
///
/// A lease rests on clocks; a token does not. A holder that was paused between its look at the clock and its
/// act sends an old token, and the resource refuses it (Kleppmann, *How to do distributed locking*, 2016;
/// Chubby's sequencers, Burrows, OSDI 2006, section 2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(pub u64);

impl std::fmt::Display for FencingToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "token {}", self.0)
    }
}

/// The request came from a holder that another one has followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{presented} is stale: {seen} was seen")]
pub struct StaleToken {
    /// What was presented.
    pub presented: FencingToken,
    /// The highest one seen.
    pub seen: FencingToken,
}

/// A resource that refuses stale tokens.
///
/// What it guards and the highest token must survive together: a resource that forgets the token in a crash
/// and keeps the contents is not fenced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FencedResource<T> {
    contents: T,
    seen: FencingToken,
}

impl<T> FencedResource<T> {
    /// Guards `contents`; no token was seen.
    #[must_use]
    pub fn new(contents: T) -> FencedResource<T> {
        FencedResource { contents, seen: FencingToken(0) }
    }

    /// Guards `contents` again after a restart, with the highest token seen before it.
    #[must_use]
    pub fn restored(contents: T, seen: FencingToken) -> FencedResource<T> {
        FencedResource { contents, seen }
    }

    /// Admits a holder; its token is the highest one from now on.
    ///
    /// # Errors
    /// [`StaleToken`] if a higher one was seen.
    pub fn admit(&mut self, token: FencingToken) -> Result<&mut T, StaleToken> {
        if token < self.seen {
            return Err(StaleToken { presented: token, seen: self.seen });
        }
        self.seen = token;
        Ok(&mut self.contents)
    }

    /// What is guarded, for whoever only looks.
    #[must_use]
    pub fn contents(&self) -> &T {
        &self.contents
    }

    /// The highest token seen.
    #[must_use]
    pub fn seen(&self) -> FencingToken {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_that_another_one_has_followed_is_refused() {
        let mut register = FencedResource::new("");
        *register.admit(FencingToken(1)).unwrap() = "first";
        *register.admit(FencingToken(2)).unwrap() = "second";
        let stale = register.admit(FencingToken(1)).unwrap_err();
        assert_eq!(stale, StaleToken { presented: FencingToken(1), seen: FencingToken(2) });
        assert_eq!(*register.contents(), "second");
        assert!(register.admit(FencingToken(2)).is_ok());
    }

    #[test]
    fn a_restored_resource_remembers_the_token() {
        let mut register = FencedResource::restored("second", FencingToken(2));
        assert!(register.admit(FencingToken(1)).is_err());
    }
}
