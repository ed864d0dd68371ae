//! A kernel module as an ELF relocatable object.

use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SectionKind};

/// A parsed module.
pub struct Module<'a> {
    /// The object.
    pub elf: ElfFile64<'a, Endianness>,
}

/// A place in a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The section's index.
    pub section: usize,
    /// Offset in bytes.
    pub offset: u64,
}

impl<'a> Module<'a> {
    /// Parses `bytes`.
    ///
    /// # Errors
    /// A message when they are not a 64-bit ELF object.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let elf = ElfFile64::parse(bytes).map_err(|error| error.to_string())?;
        Ok(Self { elf })
    }

    /// What the pointer at `place` refers to, by its relocation.
    #[must_use]
    pub fn pointer(&self, place: Place) -> Option<Place> {
        let section = self.elf.section_by_index(SectionIndex(place.section)).ok()?;
        let (_, relocation) = section.relocations().find(|(offset, _)| *offset == place.offset)?;
        let RelocationTarget::Symbol(index) = relocation.target() else { return None };
        let symbol = self.elf.symbol_by_index(index).ok()?;
        let offset = symbol.address().checked_add_signed(relocation.addend())?;
        Some(Place { section: symbol.section_index()?.0, offset })
    }

    /// The bytes from `place` on.
    #[must_use]
    pub fn bytes(&self, place: Place) -> Option<&'a [u8]> {
        let section = self.elf.section_by_index(SectionIndex(place.section)).ok()?;
        section.data().ok()?.get(usize::try_from(place.offset).ok()?..)
    }

    /// The 32-bit integer at `place`.
    #[must_use]
    pub fn int(&self, place: Place) -> Option<i32> {
        let bytes = self.bytes(place)?.get(..4)?;
        Some(i32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// The string at `place`.
    #[must_use]
    pub fn string(&self, place: Place) -> Option<&'a str> {
        let bytes = self.bytes(place)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(bytes.get(..end)?).ok()
    }

    /// Code sections: index, name, bytes.
    pub fn text(&self) -> impl Iterator<Item = (usize, &str, &'a [u8])> {
        self.elf
            .sections()
            .filter(|section| section.kind() == SectionKind::Text)
            .map(|section| (section.index().0, section.name().unwrap_or("?"), section.data().unwrap_or_default()))
    }
}
