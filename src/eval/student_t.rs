//! Student's t interval of a mean over seeds.

use super::{EvalError, Interval, check_finite, check_level};

/// The t interval of the mean of one value a seed; of two arms' paired differences, the paired t
/// interval.
///
/// # Errors
/// If there are fewer than two values, one is not finite, or the level is none.
pub fn mean_interval(values: &[f64], level: f64) -> Result<Interval, EvalError> {
    check_level(level)?;
    check_finite("value of a seed", values)?;
    if values.len() < 2 {
        return Err(EvalError::Seeds { found: values.len() });
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / (n - 1.0) / n).sqrt();
    let reach = student_t_quantile(0.5 + level / 2.0, n - 1.0) * error;
    Ok(Interval { low: mean - reach, high: mean + reach, level })
}

/// The quantile of Student's t distribution, to ten digits or better.
///
/// `probability` lies strictly between 0 and 1, `freedom` (degrees of freedom) above 0; the answer is
/// not a number otherwise.
pub fn student_t_quantile(probability: f64, freedom: f64) -> f64 {
    if !(probability > 0.0 && probability < 1.0 && freedom > 0.0) {
        return f64::NAN;
    }
    let tail = probability.min(1.0 - probability);
    if tail == 0.5 {
        return 0.0;
    }
    // The upper tail falls in t, so bracket it and halve.
    let (mut low, mut high) = (0.0, 1.0);
    while upper_tail(high, freedom) > tail {
        low = high;
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if upper_tail(middle, freedom) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
    if probability < 0.5 { -low } else { low }
}

/// P(T > t) for t >= 0 (Abramowitz and Stegun 26.7.1 with 26.5.2).
fn upper_tail(t: f64, freedom: f64) -> f64 {
    0.5 * incomplete_beta(freedom / (freedom + t * t), 0.5 * freedom, 0.5)
}

/// The regularised incomplete beta function I_x(a, b), by its continued fraction (26.5.8).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges fast on this side of the mean; the other by symmetry.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front =
        (a * x.ln() + b * (1.0 - x).ln() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b)).exp() / a;
    // Lentz's algorithm: the fraction from the front, as a product of ratios c * d.
    let away_from_zero = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..500 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = fraction;
        for term in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + term * d);
            c = away_from_zero(1.0 + term / c);
            fraction *= c * d;
        }
        if (fraction - before).abs() < 1e-15 * fraction.abs() {
            break;
        }
    }
    front * fraction
}

/// ln Gamma(x) for x > 0, by Lanczos' approximation (g = 7, nine terms; Godfrey's coefficients).
fn ln_gamma(x: f64) -> f64 {
    #[allow(clippy::excessive_precision)]
    const COEFFICIENTS: [f64; 9] = [
        0.99999999999980993,
        676.5203681218851,
        -1259.1392167224028,
        771.32342877765313,
        -176.61502916214059,
        12.507343278686905,
        -0.13857109526572012,
        9.9843695780195716e-6,
        1.5056327351493116e-7,
    ];
    if x < 0.5 {
        // Reflection, where the series is poor.
        let pi = std::f64::consts::PI;
        return (pi / (pi * x).sin()).ln() - ln_gamma(1.0 - x);
    }
    let x = x - 1.0;
    let base = x + 7.5;
    let mut sum = COEFFICIENTS[0];
    for (term, coefficient) in COEFFICIENTS.iter().enumerate().skip(1) {
        sum += coefficient / (x + term as f64);
    }
    0.5 * (2.0 * std::f64::consts::PI).ln() + (x + 0.5) * base.ln() - base + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyed::Key;
    use rand::Rng;

    #[test]
    fn quantiles_are_the_tabulated_ones() {
        // scipy.stats.t.ppf, scipy 1.17.
        for (probability, freedom, expected) in [
            (0.975, 1.0, 12.706204736174694),
            (0.975, 2.0, 4.302652729749462),
            (0.975, 9.0, 2.262157162798205),
            (0.95, 9.0, 1.8331129326562374),
            (0.995, 4.0, 4.604094871349993),
            (0.975, 29.0, 2.0452296421327),
            (0.975, 1000.0, 1.9623390808264074),
            (0.025, 9.0, -2.262157162798205),
            (0.5, 3.0, 0.0),
        ] {
            let found = student_t_quantile(probability, freedom);
            assert!(
                (found - expected).abs() < 1e-9,
                "t({probability}, {freedom}) = {found} instead of {expected}"
            );
        }
        assert!(student_t_quantile(1.0, 3.0).is_nan());
    }

    #[test]
    fn the_interval_is_the_textbook_one() {
        // mean 3, standard error sqrt(2.5 / 5), t(0.975, 4) = 2.7764451
        let found = mean_interval(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.95).unwrap();
        let reach = 2.7764451051977987 * 0.5f64.sqrt();
        assert!((found.low - (3.0 - reach)).abs() < 1e-9);
        assert!((found.high - (3.0 + reach)).abs() < 1e-9);
    }

    #[test]
    fn it_covers_at_its_level_with_three_seeds_where_the_bootstrap_does_not() {
        let (mut held_t, mut held_bootstrap) = (0, 0);
        let trials = 1000;
        let bootstrap = super::super::Bootstrap { resamples: 200, level: 0.9 };
        for trial in 0..trials {
            let mut rng = Key::new(11).with("trial", trial).rng();
            // The mean of twelve uniform numbers: all but normal, with mean 6.
            let values: Vec<f64> =
                (0..3).map(|_| (0..12).map(|_| rng.random::<f64>()).sum()).collect();
            held_t += usize::from(mean_interval(&values, 0.9).unwrap().contains(6.0));
            let interval = bootstrap.mean(&values, &mut rng).unwrap();
            held_bootstrap += usize::from(interval.contains(6.0));
        }
        assert!((870..930).contains(&held_t), "{held_t} of {trials}");
        assert!(held_bootstrap < 800, "{held_bootstrap} of {trials}");
    }

    #[test]
    fn one_seed_has_no_interval() {
        assert_eq!(mean_interval(&[0.5], 0.95), Err(EvalError::Seeds { found: 1 }));
        assert!(mean_interval(&[0.5, f64::NAN], 0.95).is_err());
        assert!(mean_interval(&[0.5, 0.6], 1.0).is_err());
    }
}
