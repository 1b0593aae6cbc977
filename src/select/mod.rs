//! Selection: which training pairs carry information about their label.
//!
//! [`folds`] cross-fits the teacher, [`calibration`] makes its probabilities honest, [`scores`]
//! rates pairs by them, [`policies`] keeps or drops.

pub mod calibration;
pub mod folds;
pub mod policies;
mod records;
pub mod scores;

pub use calibration::{Calibration, CalibrationError, fit_temperature};
pub use folds::{FoldError, Folds};
pub use policies::{Decision, OnDrop, Part, Policy, PolicyError, Selection};
pub use records::RecordError;
pub use scores::{Score, ScoreError, ScoredPair, Scorer, TeacherOutputs};
