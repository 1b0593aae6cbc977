//! The operations whose formulation decides the speed, each behind one function.

mod conv3x3;
mod group_norm;

pub use conv3x3::conv3x3;
pub use group_norm::group_norm;
