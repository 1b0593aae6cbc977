use burn::prelude::*;
use burn::tensor::DType;

use super::numbers::{ELEMENTWISE, Info, added, chunk, each, rounded, rounded_with_sums};
use super::{
    CudaTensor, Deferred, FACTOR, Launches, Learnt, apply, defer, dims, empty, exactly, placed,
};
use crate::kernels::cuda::gemm::{Batches, Left, Product};
use crate::kernels::cuda::layout::{self, MatrixLayout, contiguous, is_contiguous};
use crate::kernels::flex::primitive;
use crate::kernels::linear::Then;
use crate::layers::Activation;

/// A linear layer over the last dimension and the activation after it, in mixed precision.
///
/// # Shapes
/// - input: `[.., in]`
/// - weight: `[in, out]`, also as the transpose of what lies in memory
/// - bias: `[out]`
/// - output: `[.., out]`
pub(in crate::kernels) fn linear<B: Backend, const D: usize>(
    input: &Tensor<B, D>,
    weight: &Tensor<B, 2>,
    bias: Option<&Tensor<B, 1>>,
    activation: Option<Activation>,
) -> Option<Tensor<B, D>> {
    // Others are refused by burn's own operations.
    let [k, n] = weight.dims();
    if input.dims()[D - 1] != k || bias.is_some_and(|bias| bias.dims() != [n]) {
        return None;
    }
    let (input, weight) = (primitive(input), primitive(weight));
    match bias {
        Some(bias) => apply(Linear { activation }, [input, weight, primitive(bias)]),
        None => apply(Linear { activation }, [input, weight]),
    }
}

#[derive(Clone, Debug)]
struct Linear {
    activation: Option<Activation>,
}

impl Learnt for Linear {
    fn forward(&self, inputs: Vec<Deferred>) -> (Deferred, Vec<Deferred>) {
        let [_, n] = dims(&inputs[1]);
        let mut shape = inputs[0].shape.clone();
        *shape.last_mut().expect("an input has a last dimension") = n;
        let factors = inputs[..2].iter().map(|input| (input.shape.clone(), FACTOR));
        let mut outputs = vec![(shape.clone(), DType::F32)];
        outputs.extend(factors);
        outputs.extend(self.activation.map(|_| (shape, FACTOR)));
        let mut outputs = defer(self.clone(), inputs, outputs);
        let kept = outputs.split_off(1);
        let [output] = exactly(outputs);
        (output, kept)
    }

    fn backward(
        &self,
        mut kept: Vec<Deferred>,
        gradient: Deferred,
        wanted: &[bool],
    ) -> Vec<Option<Deferred>> {
        let [_, n] = dims(&kept[1]);
        let shapes = [kept[0].shape.clone(), kept[1].shape.clone(), Shape::new([n])];
        kept.push(gradient);
        let asked = shapes.into_iter().zip(wanted).filter(|(_, wanted)| **wanted);
        let outputs = asked.map(|(shape, _)| (shape, DType::F32)).collect();
        let wanted_of = std::array::from_fn(|i| wanted.get(i).copied().unwrap_or(false));
        let backward = Backward { activation: self.activation, wanted: wanted_of };
        placed(wanted, defer(backward, kept, outputs))
    }
}

impl Launches for Linear {
    fn launch(&self, inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let mut inputs = inputs.into_iter();
        let mut next = || inputs.next();
        let (input, weight) = next().zip(next()).expect("an input and a weight");
        let bias = next().map(contiguous);
        let [k, n] = layout::dims(&weight);
        let (input, weight) = (rounded(&contiguous(input)), rounded_matrix(weight));
        let mut shape = input.meta.shape.clone();
        let m = shape.num_elements() / k;
        *shape.last_mut().expect("an input has a last dimension") = n;
        let (weight, layout) = layout::matrix(weight);
        let product = product([m, n, k], (&input, by_rows(k)), (&weight, layout), bias.as_ref());
        let output = product.launch_wide(shape.clone());
        let Some(activation) = self.activation else { return vec![output, input, weight] };
        let kept = empty(&input, shape, FACTOR);
        let info = Info { count: m * n, ..Info::default() };
        let buffers = [&output.handle, &output.handle, &kept.handle];
        each((&ELEMENTWISE, "activate_keeping"), Some(activation), &input.client, &buffers, info);
        vec![output, input, weight, kept]
    }
}

#[derive(Debug)]
struct Backward {
    activation: Option<Activation>,
    /// Input, weight, bias.
    wanted: [bool; 3],
}

impl Launches for Backward {
    fn launch(&self, mut inputs: Vec<CudaTensor>) -> Vec<CudaTensor> {
        let gradient = contiguous(inputs.pop().expect("a gradient"));
        let kept = self.activation.and_then(|activation| Some((activation, inputs.pop()?)));
        let [input, weight] = exactly(inputs);
        let [k, n] = layout::dims(&weight);
        let m = gradient.meta.shape.num_elements() / n;
        let behind = kept.as_ref().map(|(activation, kept)| (*activation, kept));
        let (gradient, sums) = rounded_with_sums(&gradient, behind, [m, n], chunk(m));
        let [wants_input, wants_weight, wants_bias] = self.wanted;
        let mut outputs = Vec::new();
        if wants_input {
            let (weight, layout) = layout::matrix(transposed(weight));
            let product = product([m, k, n], (&gradient, by_rows(n)), (&weight, layout), None);
            outputs.push(product.launch_wide(input.meta.shape.clone()));
        }
        if wants_weight {
            let by_columns = MatrixLayout { by_columns: true, stride: k };
            let product = product([k, n, m], (&input, by_columns), (&gradient, by_rows(n)), None);
            outputs.push(product.launch_wide(Shape::new([k, n])));
        }
        if wants_bias {
            outputs.push(added(&sums, Shape::new([n])));
        }
        outputs
    }
}

fn by_rows(stride: usize) -> MatrixLayout {
    MatrixLayout { by_columns: false, stride }
}

fn product<'a>(
    sizes: [usize; 3],
    left: (&'a CudaTensor, MatrixLayout),
    right: (&'a CudaTensor, MatrixLayout),
    bias: Option<&'a CudaTensor>,
) -> Product<'a> {
    Product {
        sizes,
        left: (left.0, Left::Matrix(left.1)),
        right,
        bias: bias.map(|bias| (bias, 0)),
        then: Then::Activate(None),
        residual: None,
        batches: Batches::ONE,
    }
}

/// A weight as a factor, by rows or by columns as it was.
fn rounded_matrix(weight: CudaTensor) -> CudaTensor {
    let swapped = transposed(weight.clone());
    match is_contiguous(&swapped.meta.shape, &swapped.meta.strides) {
        true => transposed(rounded(&swapped)),
        false => rounded(&contiguous(weight)),
    }
}

/// The transpose of a matrix, where it lies.
fn transposed(mut matrix: CudaTensor) -> CudaTensor {
    matrix.meta.swap(0, 1);
    matrix
}
