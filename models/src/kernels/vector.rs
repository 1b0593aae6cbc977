//! Elementary functions as straight arithmetic, which the compiler turns into vector instructions;
//! the standard library's are calls, one value at a time.
//!
//! The results do not depend on how wide the vectors are: nothing here is fused or reordered.

/// Runs `work` compiled for the widest vectors that the machine has.
///
/// A macro, because only what is inlined into the dispatched function is compiled so. A closure that is
/// handed to a function is a function of its own unless it says `inline(always)`; and one that could be
/// called twice is called through another function, which says nothing of the kind. So this one
/// consumes something.
macro_rules! widest {
    ($work:expr) => {{
        let once = $crate::kernels::Once;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let _consumed = once;
                $work
            },
        )
    }};
}
/// What [`widest`] consumes: no copy can be made of it.
pub(crate) struct Once;
pub(crate) use widest;

/// How many partial results [`sum`] and [`largest`] keep, so that they need not wait for each
/// addition; the sum is the same on all machines.
const LANES: usize = 16;

/// The sum, in [`LANES`] interleaved parts.
#[inline(always)]
pub(super) fn sum(values: &[f32]) -> f32 {
    fold(values, 0.0, |sum, value| sum + value)
}

/// The largest value.
#[inline(always)]
pub(super) fn largest(values: &[f32]) -> f32 {
    fold(values, f32::NEG_INFINITY, |largest, value| if value > largest { value } else { largest })
}

#[inline(always)]
fn fold(values: &[f32], start: f32, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = combine(*lane, value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = combine(*lane, value);
    }
    fold_lanes(lanes, combine)
}

/// By halves: each step is one of vectors, where one lane after the other would wait for the last.
#[inline(always)]
fn fold_lanes(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = combine(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

/// `e^x`, relative error below 2e-7; 0 below -87, where what follows would come to subnormal numbers, of which each
/// costs Intel's processors a hundred cycles and more; saturates above 88.
///
/// Reduction to `2^n * e^r`, then Cephes' polynomial (`expf`) for `|r| <= ln(2) / 2`.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and subtracting it rounds to an integer: 1.5 * 2^23.
    const ROUND: f32 = 12_582_912.0;
    let vanishes = x < -87.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let fraction = p * r * r + r + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let value = fraction * f32::from_bits(((exponent + 127) << 23) as u32);
    if vanishes { 0.0 } else { value }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The standard normal distribution function and density, the former within 1e-7.
///
/// Abramowitz and Stegun 7.1.26, which needs the density as well.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    const INVERSE_SQRT_2PI: f32 = 0.398_942_3;
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let gauss = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let p = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t
        + 0.254_829_6)
        * t;
    let tail = 0.5 * p * gauss;
    (if x >= 0.0 { 1.0 - tail } else { tail }, INVERSE_SQRT_2PI * gauss)
}

/// Asks for the numbers at an address, which need not be any, into the cache of a level, the first or the second.
#[inline(always)]
pub(super) fn prefetch<const LEVEL: usize>(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it is a hint, which reads nothing and never fails; every processor of this kind has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        match LEVEL {
            1 => _mm_prefetch::<_MM_HINT_T0>(at.cast()),
            _ => _mm_prefetch::<_MM_HINT_T1>(at.cast()),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_the_last_bits_vanishes_and_saturates() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2e-7, "{x}: {error:e}");
        }
        // A weight that is masked is none.
        assert_eq!([exp(-87.1), exp(-1e4), exp(f32::NEG_INFINITY)], [0.0; 3]);
        assert!(exp(1e4).is_finite() && exp(1e4) > 1e38);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn the_normal_distribution_meets_its_tabulated_values() {
        for (x, expected) in [
            (-3.0, 0.001_349_898),
            (-1.0, 0.158_655_25),
            (0.0, 0.5),
            (0.5, 0.691_462_5),
            (2.0, 0.977_249_9),
        ] {
            assert!((normal(x).0 - expected).abs() < 1.5e-7, "{x}: {}", normal(x).0);
        }
        assert!((normal(1.0).1 - 0.241_970_72).abs() < 1e-7);
    }
}
