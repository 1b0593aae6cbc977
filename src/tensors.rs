//! From host memory to tensors and back.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::data::Picture;
use crate::data::published::Preprocessor;

/// Token ids `[rows, n]`, row by row.
pub fn ids<B: Backend>(ids: &[i32], rows: usize, device: &B::Device) -> Tensor<B, 2, Int> {
    let n = ids.len() / rows;
    Tensor::from_data(TensorData::new(ids.to_vec(), [rows, n]), device)
}

/// A mask `[rows, n]`, or `None` where it is true everywhere, which is cheaper for the models.
pub fn mask<B: Backend>(
    mask: &[bool],
    rows: usize,
    device: &B::Device,
) -> Option<Tensor<B, 2, Bool>> {
    let n = mask.len() / rows;
    let all = mask.iter().all(|&seen| seen);
    (!all).then(|| Tensor::from_data(TensorData::new(mask.to_vec(), [rows, n]), device))
}

/// Indices `[n]`.
pub fn indices<B: Backend>(
    values: impl IntoIterator<Item = usize>,
    device: &B::Device,
) -> Tensor<B, 1, Int> {
    let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// Floats `[n]`.
pub fn floats<B: Backend>(values: Vec<f32>, device: &B::Device) -> Tensor<B, 1> {
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

/// Pictures `[n, 3, height, width]` with values from -1 to 1. All must have the first one's size.
pub fn pictures<'a, B: Backend>(
    pictures: impl ExactSizeIterator<Item = &'a Picture>,
    size: usize,
    device: &B::Device,
) -> Tensor<B, 4> {
    let n = pictures.len();
    let plane = size * size;
    let mut values = Vec::with_capacity(n * 3 * plane);
    for picture in pictures {
        assert_eq!(
            (picture.width, picture.height),
            (size, size),
            "pictures are resized on reading"
        );
        for channel in 0..3 {
            let channel = picture.rgb.iter().skip(channel).step_by(3);
            values.extend(channel.map(|&byte| f32::from(byte) / 127.5 - 1.0));
        }
    }
    Tensor::from_data(TensorData::new(values, [n, 3, size, size]), device)
}

/// Pictures as a published encoder expects them, `[n, 3, height, width]`.
pub fn preprocessed<'a, B: Backend>(
    pictures: impl ExactSizeIterator<Item = &'a Picture>,
    preprocessor: &Preprocessor,
    device: &B::Device,
) -> Tensor<B, 4> {
    let n = pictures.len();
    let [height, width] = preprocessor.output_size();
    let values: Vec<f32> = pictures.flat_map(|picture| preprocessor.apply(picture)).collect();
    Tensor::from_data(TensorData::new(values, [n, 3, height, width]), device)
}

/// The inverse of [`pictures`], of values `[n, 3, height, width]`: they are clamped to -1..1 and rounded.
pub fn to_pictures(values: &[f32], [height, width]: [usize; 2]) -> Vec<Picture> {
    let plane = height * width;
    let byte = |value: f32| ((value.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8;
    values
        .chunks_exact(3 * plane)
        .map(|picture| {
            let rgb = (0..plane)
                .flat_map(|at| [0, 1, 2].map(|channel| byte(picture[channel * plane + at])))
                .collect();
            Picture { width, height, rgb }
        })
        .collect()
}

/// A float tensor's values in row-major order.
pub fn to_vec<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Log-probabilities of each row of `[n, classes]`.
pub fn log_probabilities<B: Backend>(logits: Tensor<B, 2>) -> Vec<Vec<f32>> {
    let [_, classes] = logits.dims();
    to_vec(log_softmax(logits, 1)).chunks_exact(classes).map(<[f32]>::to_vec).collect()
}

/// Negative log-likelihood of each row's target, `[n]`, from logits `[n, classes]`.
pub fn negative_log_likelihood<B: Backend>(
    logits: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
) -> Tensor<B, 1> {
    let [n, _] = logits.dims();
    log_softmax(logits, 1).gather(1, targets.reshape([n, 1])).reshape([n]).neg()
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    #[test]
    fn pictures_survive_the_way_to_a_tensor_and_back() {
        let rgb: Vec<u8> = (0..2 * 2 * 3).map(|value| (value * 21) as u8).collect();
        let picture = Picture { width: 2, height: 2, rgb };
        let tensor = pictures::<Flex>([&picture, &picture].into_iter(), 2, &Default::default());
        assert_eq!(to_pictures(&to_vec(tensor), [2, 2]), [picture.clone(), picture]);
    }
}
