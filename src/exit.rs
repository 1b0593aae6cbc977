//! What a failed run's exit code says: 2 for the user's mistake, 1 for a failure.

use crate::bundle::BundleError;
use crate::config::ConfigError;
use crate::data::DataError;
use crate::device::DeviceError;

/// A mistake of the user that no module has an error of its own for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UserError(pub String);

/// The exit code for an error: 2 if anything in its chain is the user's mistake, 1 otherwise.
pub fn code(error: &anyhow::Error) -> u8 {
    let mistake = error.chain().any(|cause| {
        cause.is::<UserError>()
            || cause.is::<ConfigError>()
            || cause.is::<DeviceError>()
            // Of a folder that the user named: the embedded files are tested.
            || cause.is::<BundleError>()
            || cause.downcast_ref::<DataError>().is_some_and(DataError::is_user_mistake)
    });
    if mistake { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_users_mistakes_exit_with_2_and_failures_with_1() {
        let mistake = Err::<(), _>(UserError("no such device".to_owned()))
            .context("while starting")
            .unwrap_err();
        assert_eq!(code(&mistake), 2);
        let device = "gpu".parse::<crate::device::DeviceChoice>().unwrap_err();
        assert_eq!(code(&device.into()), 2);
        let path = || "a.png".into();
        assert_eq!(code(&DataError::Empty { path: path() }.into()), 2);
        let source = std::io::Error::other("disk full");
        let write = DataError::Write { path: path(), source };
        assert_eq!(code(&anyhow::Error::from(write)), 1);
        assert_eq!(code(&anyhow::anyhow!("a bug")), 1);
    }
}
