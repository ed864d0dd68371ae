//! The part of the kernel linker that puts a relocatable object into memory, as kern/link_elf_obj.c does.

use crate::memory::{self, PAGE};
use crate::symbols;
use object::elf::{self, FileHeader64, Rela64, SectionHeader64};
use object::read::elf::{
    ElfFile64, FileHeader as _, Rela as _, SectionHeader as _, SectionTable, Sym as _, SymbolTable,
};
use object::{LittleEndian, SectionIndex};
use std::collections::BTreeMap;
use std::ops::Range;

const LE: LittleEndian = LittleEndian;

type Header = FileHeader64<LittleEndian>;

/// A section of the object in memory.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// Its name.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) range: Range<usize>,
    executable: bool,
    writable: bool,
}

/// An object in memory, linked.
#[derive(Debug)]
pub(crate) struct Image {
    /// The whole of it, without the VNET variables.
    pub(crate) range: Range<usize>,
    /// Its sections.
    pub(crate) sections: Vec<Section>,
    /// Its VNET variables: address in the master region and initial values.
    pub(crate) vnet: Option<(usize, Vec<u8>)>,
    /// Functions: address and name, for complaints.
    pub(crate) functions: BTreeMap<usize, String>,
}

/// Why an object cannot be linked.
type Result<T> = std::result::Result<T, String>;

struct Loader<'data> {
    data: &'data [u8],
    sections: SectionTable<'data, Header>,
    symbols: SymbolTable<'data, Header>,
    /// Address of each section that is in memory.
    at: Vec<Option<usize>>,
    set_vnet: Option<usize>,
    /// Where `set_vnet` is built before it is handed over.
    vnet: Vec<u8>,
    image: Range<usize>,
}

fn wrong(error: impl std::fmt::Display) -> String {
    format!("malformed object: {error}")
}

/// Puts the object into memory and links it.
pub(crate) fn load(data: &[u8]) -> Result<Image> {
    let header = Header::parse(data).map_err(wrong)?;
    if header.e_type(LE) != elf::ET_REL || header.e_machine(LE) != elf::EM_X86_64 {
        return Err("not a relocatable object for amd64".to_owned());
    }
    // Also checks the identification; the table readers below do not.
    ElfFile64::<LittleEndian>::parse(data).map_err(wrong)?;
    let sections = header.sections(LE, data).map_err(wrong)?;
    let symbols = sections.symbols(LE, data, elf::SHT_SYMTAB).map_err(wrong)?;
    if symbols.is_empty() {
        return Err("no symbol table".to_owned());
    }
    let count = sections.len();
    let mut loader =
        Loader { data, sections, symbols, at: vec![None; count], set_vnet: None, vnet: Vec::new(), image: 0..0 };
    let placed = loader.place()?;
    loader.fill()?;
    loader.relocate()?;
    let vnet = loader.set_vnet.and_then(|index| loader.at[index]).map(|at| (at, std::mem::take(&mut loader.vnet)));
    let functions = loader.functions();
    for section in &placed {
        let mut protection = libc::PROT_READ;
        if section.executable {
            protection |= libc::PROT_EXEC;
        }
        if section.writable {
            protection |= libc::PROT_WRITE;
        }
        let length = section.range.len().next_multiple_of(PAGE).max(PAGE);
        memory::protect(section.range.start, length, protection);
    }
    Ok(Image { range: loader.image, sections: placed, vnet, functions })
}

fn wanted(section: &SectionHeader64<LittleEndian>) -> bool {
    let kind = section.sh_type(LE);
    let flags = section.sh_flags(LE);
    // As the kernel linker: what is allocated, and nothing else. Unwind tables are allocated but of their own type.
    flags & u64::from(elf::SHF_ALLOC) != 0
        && matches!(kind, elf::SHT_PROGBITS | elf::SHT_NOBITS | elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY)
}

impl Loader<'_> {
    fn name(&self, section: &SectionHeader64<LittleEndian>) -> Result<String> {
        let name = self.sections.section_name(LE, section).map_err(wrong)?;
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// Decides where each section goes: one after the other, each on pages of its own.
    fn place(&mut self) -> Result<Vec<Section>> {
        let mut plan = Vec::new();
        let mut size = 0;
        for (index, section) in self.sections.enumerate() {
            if !wanted(section) {
                continue;
            }
            let name = self.name(section)?;
            let length = usize::try_from(section.sh_size(LE)).map_err(wrong)?;
            let align = usize::try_from(section.sh_addralign(LE)).map_err(wrong)?;
            if align > PAGE {
                return Err(format!("section {name} wants an alignment of {align}"));
            }
            if name == "set_vnet" {
                let at = crate::vnet::place(length, align).ok_or("no room for VNET variables (8 pages)")?;
                self.set_vnet = Some(index.0);
                self.at[index.0] = Some(at);
                self.vnet = vec![0; length];
                continue;
            }
            plan.push((index, name, size, length, section.sh_flags(LE)));
            size = (size + length.max(1)).next_multiple_of(PAGE);
        }
        let base = memory::reserve(size.max(PAGE), true);
        self.image = base..base + size.max(PAGE);
        let mut placed = Vec::new();
        for (index, name, offset, length, flags) in plan {
            self.at[index.0] = Some(base + offset);
            placed.push(Section {
                name,
                range: base + offset..base + offset + length,
                executable: flags & u64::from(elf::SHF_EXECINSTR) != 0,
                writable: flags & u64::from(elf::SHF_WRITE) != 0,
            });
        }
        Ok(placed)
    }

    fn fill(&mut self) -> Result<()> {
        for (index, section) in self.sections.enumerate() {
            let Some(at) = self.at[index.0] else { continue };
            let bytes = section.data(LE, self.data).map_err(wrong)?;
            if self.set_vnet == Some(index.0) {
                self.vnet[..bytes.len()].copy_from_slice(bytes);
            } else {
                // SAFETY: the section's place in the fresh mapping, which is as long as the section says.
                unsafe { crate::foreign::store(at as *mut u8, bytes) };
            }
        }
        Ok(())
    }

    /// Value of a symbol.
    fn resolve(&self, index: object::SymbolIndex) -> Result<usize> {
        let symbol = self.symbols.symbol(index).map_err(wrong)?;
        let name = String::from_utf8_lossy(self.symbols.symbol_name(LE, symbol).map_err(wrong)?).into_owned();
        let value = usize::try_from(symbol.st_value(LE)).map_err(wrong)?;
        match self.symbols.symbol_section(LE, symbol, index).map_err(wrong)? {
            Some(SectionIndex(section)) => {
                let at = self.at.get(section).copied().flatten();
                at.map(|at| at + value).ok_or_else(|| format!("symbol {name} is in a section that is not loaded"))
            }
            None if symbol.st_shndx(LE) == elf::SHN_ABS => Ok(value),
            None if symbol.st_shndx(LE) == elf::SHN_COMMON => Err(format!("symbol {name} is common")),
            None => self.undefined(&name, symbol.is_weak()),
        }
    }

    fn undefined(&self, name: &str, weak: bool) -> Result<usize> {
        for (prefix, end) in [("__start_set_", false), ("__stop_set_", true)] {
            if let Some(set) = name.strip_prefix(prefix) {
                let set = format!("set_{set}");
                for (index, section) in self.sections.enumerate() {
                    if let Some(at) = self.at[index.0]
                        && self.name(section)? == set
                    {
                        return Ok(at + if end { section.sh_size(LE) as usize } else { 0 });
                    }
                }
                return Ok(0);
            }
        }
        match symbols::lookup(name) {
            Some(symbol) => Ok(symbol.address),
            None if weak => Ok(0),
            None => Err(format!("symbol {name} undefined")),
        }
    }

    fn relocate(&mut self) -> Result<()> {
        let mut missing = Vec::new();
        for section in self.sections.iter() {
            let target = section.sh_info(LE) as usize;
            let Some((entries, _)) = section.rela(LE, self.data).map_err(wrong)? else {
                if section.sh_type(LE) == elf::SHT_REL && self.at.get(target).copied().flatten().is_some() {
                    return Err("relocations without addends".to_owned());
                }
                continue;
            };
            if self.at.get(target).copied().flatten().is_none() {
                continue;
            }
            for entry in entries {
                if let Err(error) = self.apply(target, entry) {
                    if !error.ends_with(" undefined") {
                        return Err(error);
                    }
                    if !missing.contains(&error) {
                        missing.push(error);
                    }
                }
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(missing.join(", ")) }
    }

    fn apply(&mut self, target: usize, entry: &Rela64<LittleEndian>) -> Result<()> {
        let section = self.at[target].ok_or("no such section")?;
        let offset = usize::try_from(entry.r_offset(LE)).map_err(wrong)?;
        let place = section + offset;
        let value = match entry.symbol(LE, false) {
            Some(index) => self.resolve(index)?,
            None => 0,
        };
        let sum = (value as i64).wrapping_add(entry.r_addend(LE));
        let kind = entry.r_type(LE, false);
        let bytes = match kind {
            elf::R_X86_64_NONE => return Ok(()),
            elf::R_X86_64_64 => sum.to_le_bytes().to_vec(),
            elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => narrow(sum.wrapping_sub(place as i64), kind, place)?,
            elf::R_X86_64_32S => narrow(sum, kind, place)?,
            _ => return Err(format!("unexpected relocation type {kind} at {place:#x}")),
        };
        if self.set_vnet == Some(target) {
            let into = self.vnet.get_mut(offset..offset + bytes.len()).ok_or("relocation outside its section")?;
            into.copy_from_slice(&bytes);
            return Ok(());
        }
        if place + bytes.len() > self.image.end {
            return Err("relocation outside its section".to_owned());
        }
        // SAFETY: inside the fresh mapping of the image.
        unsafe { crate::foreign::store(place as *mut u8, &bytes) };
        Ok(())
    }

    fn functions(&self) -> BTreeMap<usize, String> {
        let mut functions = BTreeMap::new();
        for (index, symbol) in self.symbols.enumerate() {
            if symbol.st_type() == elf::STT_FUNC
                && !symbol.is_undefined(LE)
                && let Ok(at) = self.resolve(index)
                && let Ok(name) = self.symbols.symbol_name(LE, symbol)
            {
                functions.insert(at, String::from_utf8_lossy(name).into_owned());
            }
        }
        functions
    }
}

/// A 32-bit field, sign-extended by the processor.
fn narrow(value: i64, kind: u32, place: usize) -> Result<Vec<u8>> {
    let value = i32::try_from(value).map_err(|_| format!("relocation of type {kind} at {place:#x} does not fit"))?;
    Ok(value.to_le_bytes().to_vec())
}

impl Image {
    /// The section of this name.
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Pointers of a linker set.
    pub(crate) fn set(&self, name: &str) -> Vec<usize> {
        let Some(section) = self.section(&format!("set_{name}")) else { return Vec::new() };
        // SAFETY: a section of the image, mapped and initialised.
        let bytes = unsafe { crate::foreign::bytes(section.range.start as *const u8, section.range.len()) };
        let words = bytes.chunks_exact(8);
        words.map(|word| usize::from_le_bytes(std::array::from_fn(|i| word[i]))).collect()
    }

    /// Whether code lies there.
    pub(crate) fn is_code(&self, at: usize) -> bool {
        self.sections.iter().any(|section| section.executable && section.range.contains(&at))
    }

    /// The place in words: function and offset, or section and offset.
    pub(crate) fn describe(&self, at: usize) -> String {
        if let Some((start, name)) = self.functions.range(..=at).next_back()
            && self.is_code(at)
        {
            return format!("{name}+{:#x}", at - start);
        }
        let section = self.sections.iter().find(|section| section.range.contains(&at));
        section.map_or_else(
            || format!("+{:#x}", at - self.range.start),
            |s| format!("{}+{:#x}", s.name, at - s.range.start),
        )
    }
}
