//! One safetensors file in memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::{AllocationProperty, DType, TensorData};
use bytes::Bytes;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::Dtype;

use crate::kernels::widest;

/// A file that is mapped: the system reads its pages when they are first needed, and may drop them again.
#[derive(Debug)]
pub struct Shard {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub map: Bytes,
    #[cfg(unix)]
    file: File,
}

impl Shard {
    /// Bytes that are looked at at once, a multiple of every type's.
    pub const CHUNK: usize = 1 << 18;

    /// Maps a file.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: nobody writes to the file while this program runs. Programs that fetch weights put
        // a finished file in the place of another, which leaves this one as it is; whoever writes
        // into the weights that are being used changes or ends this program, as with every other that
        // maps them (transformers, candle).
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Self {
            path: path.to_owned(),
            #[cfg(unix)]
            file,
            map: Bytes::from_owner(map),
        })
    }

    /// Whether all numbers of a range of bytes are finite, seen on all threads and, where the system can read
    /// so, through small buffers: what is read through the map counts as memory of this process.
    ///
    /// # Errors
    ///
    /// The system's, where the file has changed.
    pub fn is_finite(&self, range: Range<usize>, dtype: Dtype) -> io::Result<bool> {
        let chunks = range.len().div_ceil(Self::CHUNK);
        let chunk = |index: usize| {
            let start = range.start + index * Self::CHUNK;
            start..(start + Self::CHUNK).min(range.end)
        };
        let each = (0..chunks).into_par_iter().map_init(Vec::new, |room, index| {
            Ok(is_finite(self.bytes(chunk(index), room)?, dtype))
        });
        each.try_reduce(|| true, |one, other| Ok(one && other))
    }

    /// The numbers in a range of bytes that are `stored` in one of the four float types, in one dimension,
    /// as `dtype`: the file's own where it is that type, else converted.
    pub fn numbers(&self, range: Range<usize>, stored: Dtype, dtype: DType) -> TensorData {
        let bytes = self.map.slice(range);
        let (width, kind) = match stored {
            Dtype::F64 => (8, DType::F64),
            Dtype::F16 => (2, DType::F16),
            Dtype::BF16 => (2, DType::BF16),
            _ => (4, DType::F32),
        };
        let count = bytes.len() / width;
        // A header may end anywhere; those that are written today end at a multiple of eight.
        let is_aligned = bytes.as_ptr().addr().is_multiple_of(width);
        if kind == dtype && is_aligned && cfg!(target_endian = "little") {
            let bytes = burn::tensor::Bytes::from_shared(bytes, AllocationProperty::File);
            return TensorData::from_bytes(bytes, [count], dtype);
        }
        let mut numbers = vec![0_f32; count];
        convert(&bytes, stored, &mut numbers);
        TensorData::new(numbers, [count]).convert_dtype(dtype)
    }

    #[cfg(unix)]
    fn bytes<'a>(&self, range: Range<usize>, room: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        room.resize(range.len(), 0);
        std::os::unix::fs::FileExt::read_exact_at(&self.file, room, range.start as u64)?;
        Ok(room)
    }

    #[cfg(not(unix))]
    fn bytes<'a>(&'a self, range: Range<usize>, _: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        Ok(&self.map[range])
    }
}

/// Whether no exponent is that of infinity and NaN.
fn is_finite(bytes: &[u8], dtype: Dtype) -> bool {
    // Without a way out of the loop, so that it becomes one of vectors.
    fn none<const N: usize>(bytes: &[u8], hits: impl Fn([u8; N]) -> bool) -> bool {
        widest!(!bytes.as_chunks().0.iter().fold(false, |found, &bytes| found | hits(bytes)))
    }
    fn is(bits: u16, exponent: u16) -> bool {
        bits & exponent == exponent
    }
    match dtype {
        Dtype::F16 => none(bytes, |bytes| is(u16::from_le_bytes(bytes), 0x7c00)),
        Dtype::BF16 => none(bytes, |bytes| is(u16::from_le_bytes(bytes), 0x7f80)),
        Dtype::F64 => none(bytes, |bytes| !f64::from_le_bytes(bytes).is_finite()),
        _ => none(bytes, |bytes| !f32::from_le_bytes(bytes).is_finite()),
    }
}

fn convert(bytes: &[u8], dtype: Dtype, into: &mut [f32]) {
    fn pairs(bytes: &[u8]) -> impl Iterator<Item = [u8; 2]> {
        bytes.as_chunks().0.iter().copied()
    }
    match dtype {
        Dtype::F16 => {
            let halves: Vec<f16> = pairs(bytes).map(f16::from_le_bytes).collect();
            halves.convert_to_f32_slice(into);
        }
        Dtype::BF16 => {
            let halves: Vec<bf16> = pairs(bytes).map(bf16::from_le_bytes).collect();
            halves.convert_to_f32_slice(into);
        }
        Dtype::F64 => {
            let wide = bytes.as_chunks().0.iter().copied().map(f64::from_le_bytes);
            into.iter_mut().zip(wide).for_each(|(number, wide)| *number = wide as f32);
        }
        _ => {
            let plain = bytes.as_chunks().0.iter().copied().map(f32::from_le_bytes);
            into.iter_mut().zip(plain).for_each(|(number, plain)| *number = plain);
        }
    }
}
