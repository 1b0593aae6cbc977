//! What stands beside the weights in a folder of the Hugging Face Hub: tokenizers, the preparation of
//! pictures, the pooling of sentences. Read strictly: what is not computed here is refused by name.

mod checks;
mod description;
mod json;
mod pooling;
mod preprocessor;
mod special;
mod tokenizer;

pub use pooling::{Pooling, SentencePooling};
pub use preprocessor::{MAX_OUTPUT, Preprocessor, Seen};
pub use tokenizer::{EncodedSentence, PublishedSpecial, PublishedTokenizer};
