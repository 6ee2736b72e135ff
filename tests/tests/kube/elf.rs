//! Just enough of an ELF file (System V ABI, "Object Files") to tell whether it needs anything to run.

/// Program header types.
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
/// Dynamic entry: a library that is needed.
const DT_NEEDED: u64 = 1;

/// What a 64-bit little-endian program asks the loader for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Whether it names a dynamic loader.
    pub(crate) loader: bool,
    /// How many shared libraries it names.
    pub(crate) libraries: usize,
}

/// Reads the program headers.
pub(crate) fn needs(file: &[u8]) -> Needs {
    assert_eq!(&file[..6], b"\x7fELF\x02\x01", "a 64-bit little-endian ELF file");
    let (table, size, count) = (long(file, 32), word(file, 54), word(file, 56));
    let mut needs = Needs::default();
    for index in 0..u64::from(count) {
        let header = &file[at(table + index * u64::from(size))..];
        let kind = u32::from_le_bytes(header[..4].try_into().unwrap());
        match kind {
            PT_INTERP => needs.loader = true,
            PT_DYNAMIC => {
                let (start, length) = (at(long(header, 8)), at(long(header, 32)));
                let entries = file[start..start + length].chunks_exact(16);
                needs.libraries += entries.filter(|entry| long(entry, 0) == DT_NEEDED).count();
            }
            _ => {}
        }
    }
    needs
}

fn long(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

fn word(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(bytes[offset..offset + 2].try_into().unwrap())
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}
