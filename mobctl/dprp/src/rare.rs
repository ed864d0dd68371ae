//! Parts of an association that most associations lack.
//!
//! A host has very many peers, and most of them claim nothing or are claimed
//! nothing from. Such a part is made when it is first written to, and goes when
//! nothing is left in it.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// What can be left out.
pub(crate) trait Part: Default + 'static {
    /// One with nothing in it.
    const NOTHING: &'static Self;

    /// Whether it says nothing that would be missed.
    fn is_nothing(&self) -> bool;
}

/// A part that is there when it is needed.
pub(crate) struct Rare<T>(Option<Box<T>>);

impl<T: Part> Rare<T> {
    /// The part, if it is there.
    pub(crate) fn there(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// Gives the memory back if there is nothing in it.
    pub(crate) fn tidy(&mut self) {
        if self.is_nothing() {
            self.0 = None;
        }
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Part> From<T> for Rare<T> {
    fn from(part: T) -> Self {
        Self((!part.is_nothing()).then(|| Box::new(part)))
    }
}

impl<T: Part> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::NOTHING)
    }
}

impl<T: Part> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

/// The same whether it is there or not.
impl<T: Part + fmt::Debug> fmt::Debug for Rare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Number(u32);

    impl Part for Number {
        const NOTHING: &'static Self = &Self(0);

        fn is_nothing(&self) -> bool {
            self.0 == 0
        }
    }

    #[test]
    fn there_while_there_is_something() {
        let mut rare = Rare::<Number>::default();
        assert!(rare.there().is_none());
        assert_eq!((rare.0.is_none(), (*rare).0, format!("{rare:?}").as_str()), (true, 0, "Number(0)"));
        (*rare).0 = 7;
        rare.tidy();
        assert_eq!((rare.0.is_some(), (*rare).0), (true, 7));
        (*rare).0 = 0;
        assert_eq!((rare.0.is_some(), format!("{rare:?}").as_str()), (true, "Number(0)"));
        rare.tidy();
        assert!(rare.0.is_none());
        assert!(Rare::from(Number(0)).0.is_none() && Rare::from(Number(1)).0.is_some());
    }
}
