//! Numbered places for the writers' records: numbers are small and used again.

use alloc::vec::Vec;

enum Place<T> {
    Free { next: Option<u32> },
    Taken(T),
}

pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Option<u32>,
    len: u32,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { places: Vec::new(), free: None, len: 0 }
    }

    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// Makes sure that the next `insert` finds room. False: no memory.
    pub(crate) fn reserve(&mut self) -> bool {
        self.free.is_some() || self.places.try_reserve(1).is_ok()
    }

    /// The number that the next `insert` gives.
    pub(crate) fn vacant(&self) -> u32 {
        self.free.unwrap_or(self.places.len() as u32)
    }

    /// Stores `item` under `vacant()`. `reserve` was called before.
    pub(crate) fn insert(&mut self, item: T) {
        self.len = self.len.saturating_add(1);
        match self.free {
            None => self.places.push(Place::Taken(item)),
            Some(index) => {
                if let Some(place) = self.places.get_mut(index as usize) {
                    if let Place::Free { next } = place {
                        self.free = *next;
                    }
                    *place = Place::Taken(item);
                }
            }
        }
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        match self.places.get(index as usize) {
            Some(Place::Taken(item)) => Some(item),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.places.get_mut(index as usize) {
            Some(Place::Taken(item)) => Some(item),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, index: u32) {
        if let Some(place @ Place::Taken(_)) = self.places.get_mut(index as usize) {
            *place = Place::Free { next: self.free };
            self.free = Some(index);
            self.len = self.len.saturating_sub(1);
        }
    }

    /// First taken number from `from` on.
    pub(crate) fn next(&self, from: u32) -> Option<(u32, &T)> {
        self.places.iter().enumerate().skip(from as usize).find_map(|(index, place)| match place {
            Place::Taken(item) => Some((index as u32, item)),
            Place::Free { .. } => None,
        })
    }
}
