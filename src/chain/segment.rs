//! One append-only file of checked records.
//!
//! ```text
//! file:    magic, 8 bytes | version, u32 | fingerprint, 32 bytes | record ...
//! record:  body length, u32 | blake3 of the body, 32 bytes | check, 8 bytes | body
//! check:   the first 8 bytes of blake3(body length | blake3 of the body)
//! ```
//!
//! Numbers are little-endian. The check makes a length trustworthy, so that a flipped length is not
//! taken for a record that was cut short. What a write that was cut short leaves at the end of the
//! file (a last record whose bytes are missing or wrong) is cut off on reading; other damage is an
//! error. On disk the end stays as it is: a file is written by the one writer that created it, and
//! that writer may be at work while others read.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::store::StoreError;

const MAGIC: [u8; 8] = *b"MI2RCHN\n";
const VERSION: u32 = 1;
const FILE_HEADER: usize = 8 + 4 + 32;
const RECORD_HEADER: usize = 4 + 32 + 8;

/// A record's place in a file and the hash of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where the record's header begins.
    pub offset: u64,
    /// The body's bytes.
    pub length: u32,
    /// blake3 of the body.
    pub hash: [u8; 32],
}

/// The end of a file that this process appends to.
pub(super) struct Writer {
    file: File,
    end: u64,
}

impl Writer {
    /// Creates the first `segment-N.samples` of the folder whose name is free, N counting from 0.
    pub fn create(folder: &Path, fingerprint: &[u8; 32]) -> Result<(Self, PathBuf), StoreError> {
        let mut number = 0;
        let (mut file, path) = loop {
            let path = folder.join(format!("segment-{number:04}.samples"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (file, path),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(StoreError::io(&path, error)),
            }
        };
        file.write_all(&file_header(fingerprint))
            .and_then(|()| file.sync_data())
            .map_err(|error| StoreError::io(&path, error))?;
        sync_folder(folder)?;
        let end = FILE_HEADER as u64;
        Ok((Self { file, end }, path))
    }

    /// Writes the bodies and waits until they are on disk.
    ///
    /// After an error the file may end in part of a record; this writer must not go on.
    pub fn append(&mut self, bodies: &[Vec<u8>]) -> std::io::Result<Vec<Place>> {
        let mut bytes = Vec::new();
        let mut places = Vec::with_capacity(bodies.len());
        for body in bodies {
            let length = u32::try_from(body.len()).map_err(std::io::Error::other)?;
            let hash = *blake3::hash(body).as_bytes();
            places.push(Place { offset: self.end + bytes.len() as u64, length, hash });
            bytes.extend(length.to_le_bytes());
            bytes.extend(hash);
            bytes.extend(check(length, &hash));
            bytes.extend(body);
        }
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.end += bytes.len() as u64;
        Ok(places)
    }
}

/// Calls `each` with every whole record of a file; the memory taken is that of one record.
pub(super) fn scan(
    path: &Path,
    fingerprint: &[u8; 32],
    mut each: impl FnMut(Place, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let io = |error| StoreError::io(path, error);
    let file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let mut file = BufReader::new(file);

    let mut header = vec![0; FILE_HEADER.min(size as usize)];
    file.read_exact(&mut header).map_err(io)?;
    check_file_header(path, &header, fingerprint)?;

    let mut offset = FILE_HEADER as u64;
    let mut body = Vec::new();
    while offset + RECORD_HEADER as u64 <= size {
        let place = read_record_header(path, &mut file, offset)?;
        let end = offset + RECORD_HEADER as u64 + u64::from(place.length);
        if end > size {
            break;
        }
        body.resize(place.length as usize, 0);
        file.read_exact(&mut body).map_err(io)?;
        if *blake3::hash(&body).as_bytes() == place.hash {
            each(place, &body)?;
        } else if end < size {
            return Err(StoreError::corrupt(path, offset, "the record's hash"));
        }
        offset = end;
    }
    Ok(())
}

/// The body of a record.
pub(super) fn read(path: &Path, place: Place) -> Result<Vec<u8>, StoreError> {
    let io = |error| StoreError::io(path, error);
    let mut file = File::open(path).map_err(io)?;
    file.seek(SeekFrom::Start(place.offset + RECORD_HEADER as u64)).map_err(io)?;
    let mut body = vec![0; place.length as usize];
    file.read_exact(&mut body).map_err(io)?;
    if *blake3::hash(&body).as_bytes() == place.hash {
        Ok(body)
    } else {
        Err(StoreError::corrupt(path, place.offset, "the record's hash"))
    }
}

fn read_record_header(path: &Path, file: &mut impl Read, offset: u64) -> Result<Place, StoreError> {
    let mut length = [0; 4];
    let mut hash = [0; 32];
    let mut found = [0; 8];
    for field in [&mut length[..], &mut hash[..], &mut found[..]] {
        file.read_exact(field).map_err(|error| StoreError::io(path, error))?;
    }
    let length = u32::from_le_bytes(length);
    if check(length, &hash) != found {
        return Err(StoreError::corrupt(path, offset, "the record's header"));
    }
    Ok(Place { offset, length, hash })
}

fn check(length: u32, hash: &[u8; 32]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(hash);
    let mut check = [0; 8];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    check
}

fn file_header(fingerprint: &[u8; 32]) -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes(), fingerprint].concat()
}

/// Accepts the whole header, and the part of it that a write cut short leaves.
fn check_file_header(path: &Path, found: &[u8], fingerprint: &[u8; 32]) -> Result<(), StoreError> {
    let expected = file_header(fingerprint);
    if expected.starts_with(found) {
        return Ok(());
    }
    let path = path.to_owned();
    let agree = |end: usize| found[..end.min(found.len())] == expected[..end.min(found.len())];
    if !agree(8) {
        return Err(StoreError::Magic { path });
    }
    if !agree(12) {
        let mut version = [0; 4];
        version[..found.len().min(12) - 8].copy_from_slice(&found[8..found.len().min(12)]);
        return Err(StoreError::Version {
            path,
            found: u32::from_le_bytes(version),
            expected: VERSION,
        });
    }
    Err(StoreError::Fingerprint { path })
}

/// A new name is on disk only when its folder is; Windows neither needs nor allows this.
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    if cfg!(unix) {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| StoreError::io(folder, error))?;
    }
    Ok(())
}
