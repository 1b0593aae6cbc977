use serde::{Deserialize, Serialize};

use super::DiffusionError;

/// How a sampler's steps are spread over the training steps (Lin et al. 2023, table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    /// At the beginning of equal parts, moved by `steps_offset`.
    Leading,
    /// Evenly, both ends included.
    Linspace,
    /// At the end of equal parts.
    Trailing,
}

impl TimestepSpacing {
    /// The training steps that `count` steps stand for, falling, before `steps_offset`, which only
    /// [`TimestepSpacing::Leading`] takes.
    ///
    /// As numpy, halves are rounded to even. `count` is at least 1 and at most `train`.
    pub(super) fn timesteps(self, train: usize, count: usize) -> Vec<usize> {
        (0..count)
            .rev()
            .map(|index| match self {
                TimestepSpacing::Leading => index * (train / count),
                TimestepSpacing::Linspace => {
                    linspace(train, count, index).round_ties_even() as usize
                }
                TimestepSpacing::Trailing => {
                    let back = (count - 1 - index) as f64 * (train as f64 / count as f64);
                    (train as f64 - back).round_ties_even() as usize - 1
                }
            })
            .collect()
    }

    /// [`TimestepSpacing::timesteps`] with the offset.
    ///
    /// # Errors
    /// Where the offset moves the first out of the schedule.
    pub(super) fn offset_timesteps(
        self,
        train: usize,
        count: usize,
        offset: usize,
    ) -> Result<Vec<usize>, DiffusionError> {
        let mut timesteps = self.timesteps(train, count);
        if self == TimestepSpacing::Leading {
            timesteps.iter_mut().for_each(|timestep| *timestep += offset);
        }
        match timesteps.first() {
            Some(&timestep) if timestep >= train => {
                Err(DiffusionError::Offset { offset, steps: count, timestep, last: train - 1 })
            }
            _ => Ok(timesteps),
        }
    }
}

/// The `index`th of `count` evenly spaced numbers from 0 to `train - 1`.
pub(super) fn linspace(train: usize, count: usize, index: usize) -> f64 {
    if count == 1 {
        return 0.0;
    }
    index as f64 * ((train - 1) as f64 / (count - 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_steps_move_by_the_offset() {
        let steps = TimestepSpacing::Leading.offset_timesteps(1000, 5, 1);
        assert_eq!(steps, Ok(vec![801, 601, 401, 201, 1]));
    }

    #[test]
    fn every_spacing_yields_the_steps_asked_for() {
        use TimestepSpacing::*;
        for spacing in [Leading, Linspace, Trailing] {
            for count in 1..=1000 {
                let steps = spacing.timesteps(1000, count);
                assert_eq!(steps.len(), count, "{spacing:?}");
                assert!(steps.windows(2).all(|pair| pair[0] > pair[1]), "{spacing:?} {count}");
            }
        }
    }

    #[test]
    fn an_offset_past_the_end_is_refused() {
        let error = TimestepSpacing::Leading.offset_timesteps(1000, 1000, 1);
        assert!(matches!(error, Err(DiffusionError::Offset { timestep: 1000, .. })));
    }
}
