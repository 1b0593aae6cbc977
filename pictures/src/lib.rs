//! The pictures of the embedded world: what can be seen in them and by which words it is named, how they are
//! drawn, and a detector that tells what one shows; and the keyed random numbers that they are drawn by. A
//! package of its own, because its loops over pixels are worth optimising while most of `mi2rage` is not.

pub mod detector;
pub mod forms;
pub mod keyed;
pub mod lexicon;
pub mod renderer;

/// An 8-bit RGB picture, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `height * width * 3` bytes, interleaved.
    pub rgb: Vec<u8>,
}
