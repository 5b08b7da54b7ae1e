//! Headers of tar archives, read more strictly than any tar program does.
//!
//! Programs differ in how they read what the standard left open: numbers in base 256, fields of five dialects, extended
//! headers that change a size. If two readers disagree about one size, they see two different archives
//! (CVE-2025-62518, CVE-2026-33055), and what we list is not what OPA runs. So only the part is read on which Go, GNU and
//! libarchive agree, and all else is refused; `opa build`, GNU tar and Go's library write nothing else for plain files.
//!
//! Source: POSIX.1-2017, `pax`, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format".

/// The unit of tar.
pub(super) const BLOCK: usize = 512;

/// One header block.
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) name: Vec<u8>,
    pub(super) size: u64,
    pub(super) mode: u64,
}

/// What a header announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    /// The path of the next entry (GNU `L`).
    LongName,
    /// Attributes of the next entry (PAX `x`).
    Attributes,
    /// Attributes of all later entries (PAX `g`).
    GlobalAttributes,
    /// Anything else; its name for messages.
    Other(&'static str),
}

impl Header {
    /// Reads a block; none for a block of zeros, which ends the archive.
    pub(super) fn read(block: &[u8; BLOCK]) -> Result<Option<Self>, &'static str> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let field = |start: usize, end: usize| block.get(start..end).unwrap_or_default();
        if number(field(148, 156)) != Some(checksum(block)) {
            return Err("has a wrong checksum");
        }
        let prefix = match field(257, 265) {
            b"ustar\x0000" => field(345, 500),
            // GNU's dialect has other fields in place of the prefix; they are empty for plain files.
            b"ustar  \x00" if field(345, 500).iter().all(|byte| *byte == 0) => &[],
            b"\0\0\0\0\0\0\0\0" => &[],
            _ => return Err("is in a dialect of tar that not every reader knows"),
        };
        if field(500, 512).iter().any(|byte| *byte != 0) {
            return Err("is in a dialect of tar that not every reader knows");
        }
        let mut name = text(prefix).ok_or("has bytes behind the end of its path")?.to_vec();
        if !name.is_empty() {
            name.push(b'/');
        }
        name.extend_from_slice(text(field(0, 100)).ok_or("has bytes behind the end of its path")?);
        Ok(Some(Self {
            kind: kind(block.get(156).copied().unwrap_or_default()),
            name,
            size: number(field(124, 136)).ok_or("has a size that is not an octal number")?,
            mode: number(field(100, 108)).ok_or("has a mode that is not an octal number")?,
        }))
    }
}

fn kind(flag: u8) -> Kind {
    match flag {
        b'0' | 0 => Kind::File,
        b'5' => Kind::Directory,
        b'L' => Kind::LongName,
        b'x' => Kind::Attributes,
        b'g' => Kind::GlobalAttributes,
        b'1' => Kind::Other("a hard link"),
        b'2' | b'K' => Kind::Other("a symbolic link"),
        b'3' | b'4' => Kind::Other("a device"),
        b'6' => Kind::Other("a named pipe"),
        b'S' => Kind::Other("a sparse file"),
        _ => Kind::Other("neither file nor directory"),
    }
}

/// The sum of all bytes, those of the checksum itself taken as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let own: u64 = block
        .get(148..156)
        .unwrap_or_default()
        .iter()
        .map(|byte| u64::from(*byte))
        .sum();
    sum - own + 8 * u64::from(b' ')
}

/// An octal number: leading spaces, digits, then only spaces and NULs. An empty field is 0, as old programs write it.
fn number(field: &[u8]) -> Option<u64> {
    let digits = field.trim_ascii_start();
    let end = digits
        .iter()
        .position(|byte| b" \0".contains(byte))
        .unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if rest.iter().any(|byte| !b" \0".contains(byte)) {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// A text up to its first NUL; `None` if something follows that.
fn text(field: &[u8]) -> Option<&[u8]> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let (text, rest) = field.split_at(end);
    rest.iter().all(|byte| *byte == 0).then_some(text)
}

/// Reads the content of a GNU long name.
pub(super) fn long_name(bytes: &[u8]) -> Result<Attributes, &'static str> {
    let path = text(bytes)
        .filter(|path| !path.is_empty())
        .ok_or("has a malformed long path")?;
    Ok(Attributes {
        path: Some(path.to_vec()),
        size: None,
    })
}

/// Reads the records of a PAX header, each `"<length> <key>=<value>\n"`.
pub(super) fn attributes(bytes: &[u8], global: bool) -> Result<Attributes, &'static str> {
    const MALFORMED: &str = "has malformed extended attributes";
    let mut attributes = Attributes::default();
    let mut seen = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let space = rest
            .iter()
            .position(|byte| *byte == b' ')
            .filter(|space| *space <= 6)
            .ok_or(MALFORMED)?;
        let length = rest
            .get(..space)
            .and_then(decimal)
            .filter(|length| *length > space as u64)
            .ok_or(MALFORMED)?;
        let length = usize::try_from(length).map_err(|_| MALFORMED)?;
        let (record, next) = rest.split_at_checked(length).ok_or(MALFORMED)?;
        let record = record
            .get(space + 1..)
            .and_then(|record| record.strip_suffix(b"\n"))
            .ok_or(MALFORMED)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)?;
        let (key, value) = (
            record.get(..equals).unwrap_or_default(),
            record.get(equals + 1..).unwrap_or_default(),
        );
        if seen.contains(&key) {
            return Err("has an extended attribute twice");
        }
        seen.push(key);
        match key {
            // `git archive` names its commit so.
            b"comment" => {}
            _ if global => return Err("changes all later entries, which not every reader follows"),
            b"path" if !value.is_empty() && !value.contains(&0) => attributes.path = Some(value.to_vec()),
            b"size" => attributes.size = Some(decimal(value).ok_or(MALFORMED)?),
            b"path" | b"linkpath" | b"hdrcharset" | b"charset" => {
                return Err("has extended attributes that readers take differently");
            }
            key if key.starts_with(b"GNU.sparse.") => return Err("is a sparse file"),
            _ => {}
        }
        rest = next;
    }
    Ok(attributes)
}

/// What a PAX header changes of the next entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
