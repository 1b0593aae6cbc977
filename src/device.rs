//! The choice of a backend and device at run time.

use std::fmt;
use std::str::FromStr;

use burn::backend::{Flex, NdArray, flex::FlexDevice, ndarray::NdArrayDevice};
use burn::tensor::backend::Backend;
use mi2rage_models::kernels::leading;
use mi2rage_models::precision::Precision;
use thiserror::Error;

/// What `--device` names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA where it is built in and found, else flex.
    #[default]
    Auto,
    /// The fast CPU backend.
    Flex,
    /// The portable CPU backend.
    Ndarray,
    /// A CUDA card by index.
    Cuda(usize),
}

/// A device that cannot be had.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// No such name.
    #[error("device `{0}`: expected auto, flex, ndarray, cuda or cuda:N")]
    Unknown(String),
    /// CUDA was asked for by name.
    #[error("device `cuda`: {0}")]
    NoCuda(String),
    /// The backend has no such numbers.
    #[error(
        "device `{device}`: it does not compute in {precision}, expected f32 or another device"
    )]
    Precision {
        /// The device.
        device: DeviceChoice,
        /// What was asked of it.
        precision: Precision,
    },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::Unknown(text.to_owned());
        match text {
            "auto" => Ok(Self::Auto),
            "flex" => Ok(Self::Flex),
            "ndarray" => Ok(Self::Ndarray),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(unknown),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(out, "auto"),
            Self::Flex => write!(out, "flex"),
            Self::Ndarray => write!(out, "ndarray"),
            Self::Cuda(index) => write!(out, "cuda:{index}"),
        }
    }
}

/// Work that any backend can do.
pub trait Job: Send {
    /// What comes out.
    type Output: Send;
    /// Does the work on `device`.
    fn run<B: Backend>(self, device: B::Device) -> Self::Output;
}

impl DeviceChoice {
    /// Settles `auto`. The second part is a line for the user where a wish had to be given up.
    ///
    /// # Errors
    ///
    /// CUDA asked for by name and not to be had.
    pub fn settle(self) -> Result<(Self, Option<String>), DeviceError> {
        match self {
            Self::Auto => match probe_cuda() {
                Ok(()) => Ok((Self::Cuda(0), None)),
                Err(why) if cfg!(feature = "cuda") => {
                    Ok((Self::Flex, Some(format!("no CUDA ({why}); computing on the CPU"))))
                }
                Err(_) => Ok((Self::Flex, None)),
            },
            Self::Cuda(_) => probe_cuda().map(|()| (self, None)).map_err(DeviceError::NoCuda),
            other => Ok((other, None)),
        }
    }

    /// Checks that this device computes in `precision`, before anything is loaded onto it.
    ///
    /// # Errors
    ///
    /// It does not; see also [`settle`](Self::settle).
    pub fn check(self, precision: Precision) -> Result<(), DeviceError> {
        // Every device has 32 bits, and none is touched to find that out.
        if precision == Precision::F32 {
            return Ok(());
        }
        let (device, _) = self.settle()?;
        if device.run(IsSupported(precision))? {
            Ok(())
        } else {
            Err(DeviceError::Precision { device, precision })
        }
    }

    /// Runs the job on this device; on burn-flex on one of the threads that compute, since waking
    /// them for each operation from outside takes longer than many an operation.
    ///
    /// # Errors
    ///
    /// See [`settle`](Self::settle).
    pub fn run<J: Job>(self, job: J) -> Result<J::Output, DeviceError> {
        Ok(match self.settle()?.0 {
            Self::Ndarray => job.run::<NdArray>(NdArrayDevice::Cpu),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => {
                keep_compiled();
                job.run::<burn::backend::Cuda>(burn::backend::cuda::CudaDevice::new(index))
            }
            _ => within_pool(|| job.run::<Flex>(FlexDevice)),
        })
    }
}

/// Has compiled kernels kept for the next run, as tuned choices are: in a source tree's `target`, else in the
/// user's cache. Before the card is used; a `cubecl.toml` of the user's may name another place. Says so
/// where nothing is kept yet: then the first minutes pass without a result.
#[cfg(feature = "cuda")]
fn keep_compiled() {
    use burn::cubecl::config::cache::CacheConfig;
    use burn::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    let mut state = CubeClRuntimeConfig::storage().lock();
    if state.is_none() {
        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        config.compilation.cache.get_or_insert(CacheConfig::Target);
        let kept = config.autotune.cache.root().join("autotune");
        if !kept.exists() {
            tracing::warn!(
                "kernels are compiled and tried on the card when a size first occurs, which takes \
                 minutes; what is found is kept in {}",
                kept.display()
            );
        }
        *state = Some(std::sync::Arc::new(config));
    }
}

/// Threads with the stack of a program's first one: a model is moved about as a whole while it is made.
pub(crate) fn pool() -> rayon::ThreadPoolBuilder {
    rayon::ThreadPoolBuilder::new().stack_size(8 << 20)
}

/// Runs `work` on a thread of a pool: the one it is on, or a new one. Not the global one: a single
/// thread of it that waited for another thread's work could keep that from beginning.
fn within_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if rayon::current_thread_index().is_some() {
        return work();
    }
    match pool().build() {
        Ok(pool) => pool.install(|| leading(work)),
        Err(_) => work(),
    }
}

struct IsSupported(Precision);

impl Job for IsSupported {
    type Output = bool;

    fn run<B: Backend>(self, device: B::Device) -> bool {
        self.0.is_supported::<B>(&device)
    }
}

/// Whether the libraries that CUDA needs at run time can be loaded. burn-cuda panics on a worker
/// thread where they are missing, so they are looked for before it is touched.
///
/// # Errors
///
/// What is missing.
#[cfg(feature = "cuda")]
pub fn probe_cuda() -> Result<(), String> {
    let found = |names: &[&str]| {
        names.iter().any(|name| {
            // SAFETY: the initialisers of the driver and of NVRTC have no preconditions.
            unsafe { libloading::Library::new(name) }.is_ok()
        })
    };
    if !found(&["libcuda.so.1", "libcuda.so", "nvcuda.dll"]) {
        return Err("the driver library libcuda is not found".to_owned());
    }
    let nvrtc = ["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"];
    if !found(&nvrtc) {
        return Err("libnvrtc is not found; set LD_LIBRARY_PATH to the toolkit's lib".to_owned());
    }
    let roots = ["CUDA_PATH", "CUDA_HOME", "CUDA_ROOT"].iter().filter_map(std::env::var_os);
    let header = |root: std::path::PathBuf| root.join("include/cuda_runtime.h").exists();
    let mut roots = roots.map(Into::into).chain(["/usr/local/cuda".into(), "/usr".into()]);
    if !roots.any(header) {
        return Err("cuda_runtime.h is not found; set CUDA_PATH to the toolkit".to_owned());
    }
    Ok(())
}

/// Without the feature `cuda` there is nothing to probe.
///
/// # Errors
///
/// Always.
#[cfg(not(feature = "cuda"))]
pub fn probe_cuda() -> Result<(), String> {
    Err("this program was built without the feature `cuda`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_half_precision_says_so() {
        let message =
            |precision| DeviceChoice::Ndarray.check(precision).map_err(|error| error.to_string());
        assert_eq!(message(Precision::F32), Ok(()));
        assert_eq!(
            message(Precision::Bf16).unwrap_err(),
            "device `ndarray`: it does not compute in bf16, expected f32 or another device"
        );
        for precision in Precision::ALL {
            assert!(DeviceChoice::Flex.check(precision).is_ok(), "{precision}");
        }
    }

    #[test]
    fn names_are_parsed_and_printed_alike() {
        for name in ["auto", "flex", "ndarray", "cuda:0", "cuda:3"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        for wrong in ["gpu", "cuda:", "cuda:x", ""] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }
}
