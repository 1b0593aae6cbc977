//! Operations with a forward and a backward pass by hand, on burn-flex's tensors.

use std::any::{Any, TypeId};
use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, Flex};
use burn::prelude::*;
use burn::tensor::backend::BackendTypes;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, TensorMetadata, TensorPrimitive};
use burn_flex::{FlexTensor, Layout};

use super::matrix::Matrix;

/// An operation of `N` contiguous tensors of 32-bit floats to one.
pub(super) trait FlexOperation<const N: usize>: Clone + Debug + Send + 'static {
    /// The input that may also be the transpose of a contiguous matrix.
    const MAY_BE_TRANSPOSED: Option<usize> = None;

    /// The output.
    fn forward(&self, inputs: [&FlexTensor; N]) -> FlexTensor;

    /// The gradients of the inputs that are wanted; others may be left out.
    fn backward(
        &self,
        inputs: [&FlexTensor; N],
        gradient: &FlexTensor,
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N];
}

/// What [`apply`] takes of a tensor.
pub(super) fn primitive<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> FloatTensor<B> {
    tensor.clone().into_primitive().tensor()
}

/// The values of a contiguous tensor of 32-bit floats.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.storage()
}

/// The matrix that a tensor is, contiguous or transposed.
pub(super) fn matrix(tensor: &FlexTensor) -> Matrix<'_> {
    let [rows, columns] = dims(tensor);
    match is_transposed(tensor) {
        true => Matrix::new(values(tensor), columns, rows).transpose(),
        false => Matrix::new(values(tensor), rows, columns),
    }
}

/// Whether a tensor is the transpose of a matrix that is contiguous and nothing else's part.
fn is_transposed(tensor: &FlexTensor) -> bool {
    let layout = tensor.layout();
    let [rows, _] = layout.shape()[..] else { return false };
    layout.strides() == [1, rows as isize]
        && layout.start_offset() == 0
        && tensor.storage::<f32>().len() == layout.num_elements()
}

/// Whether tensors are burn-flex's, with gradients or without.
pub(super) fn is_flex<B: Backend>() -> bool {
    let primitive = TypeId::of::<FloatTensor<B>>();
    [TypeId::of::<FlexTensor>(), TypeId::of::<FloatTensor<Autodiff<Flex>>>()].contains(&primitive)
}

/// The shape of a tensor of `D` dimensions.
pub(super) fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.layout().shape().dims()
}

/// A contiguous tensor.
pub(super) fn tensor<const D: usize>(values: Vec<f32>, dims: [usize; D]) -> FlexTensor {
    let bytes = burn::tensor::Bytes::from_elems(values);
    FlexTensor::new(bytes, Layout::contiguous(Shape::new(dims)), DType::F32)
}

/// Contiguous tensors of 32-bit floats where they are burn-flex's; what was given elsewhere. A storage that
/// nobody else holds is still nobody else's.
pub(super) fn take<B: Backend, const N: usize>(
    tensors: [FloatTensor<B>; N],
) -> Result<[FlexTensor; N], [FloatTensor<B>; N]> {
    if tensors.iter().any(|tensor| tensor.dtype() != DType::F32) {
        return Err(tensors);
    }
    let tensors: Box<dyn Any> = Box::new(tensors);
    match tensors.downcast::<[FlexTensor; N]>() {
        Ok(tensors) => Ok(tensors.map(|tensor| tensor.to_contiguous())),
        Err(tensors) => Err(*tensors.downcast().expect("it is the array that was boxed")),
    }
}

/// Undoes [`take`].
pub(super) fn give<B: Backend, const N: usize>(tensors: [FlexTensor; N]) -> [FloatTensor<B>; N] {
    let tensors: Box<dyn Any> = Box::new(tensors);
    *tensors.downcast().expect("what was taken from a backend is given back to it")
}

/// The operation's output where the tensors are burn-flex's, of 32-bit floats, with gradients or
/// without; `None` elsewhere.
pub(super) fn apply<B: Backend, O: FlexOperation<N>, const N: usize, const D: usize>(
    operation: O,
    inputs: [FloatTensor<B>; N],
) -> Option<Tensor<B, D>> {
    if inputs.iter().any(|input| input.dtype() != DType::F32) {
        return None;
    }
    let inputs: Box<dyn Any> = Box::new(inputs);
    let output: Box<dyn Any> = match inputs.downcast::<[FlexTensor; N]>() {
        Ok(inputs) => Box::new(operation.forward(laid_out::<O, N>(*inputs).each_ref())),
        Err(inputs) => match inputs.downcast::<[FloatTensor<Autodiff<Flex>>; N]>() {
            Ok(inputs) => Box::new(tracked(operation, *inputs)),
            Err(_) => return None,
        },
    };
    let output = output.downcast::<<B as BackendTypes>::FloatTensorPrimitive>().ok()?;
    Some(Tensor::from_primitive(TensorPrimitive::Float(*output)))
}

/// The inputs as the operation takes them.
fn laid_out<O: FlexOperation<N>, const N: usize>(inputs: [FlexTensor; N]) -> [FlexTensor; N] {
    let mut index = 0..N;
    inputs.map(|input| match O::MAY_BE_TRANSPOSED == index.next() && is_transposed(&input) {
        true => input,
        false => input.to_contiguous(),
    })
}

/// [`apply`] with the backward pass registered.
fn tracked<O: FlexOperation<N>, const N: usize>(
    operation: O,
    inputs: [FloatTensor<Autodiff<Flex>>; N],
) -> FloatTensor<Autodiff<Flex>> {
    let nodes = inputs.each_ref().map(|input| input.node.clone());
    let inputs = laid_out::<O, N>(inputs.map(|input| input.primitive));
    let output = operation.forward(inputs.each_ref());
    let backward = Registered::<O>(PhantomData);
    match backward.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((operation, inputs), output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}

#[derive(Debug)]
struct Registered<O>(PhantomData<O>);

impl<O: FlexOperation<N>, const N: usize> Backward<Flex, N> for Registered<O> {
    type State = (O, [FlexTensor; N]);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let (operation, inputs) = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let gradients = operation.backward(inputs.each_ref(), &gradient, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use burn::backend::NdArray;
    use burn::tensor::Tolerance;

    type Differentiable = Autodiff<Flex>;

    /// Fixed numbers of about unit size, no two alike.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 101 + 11) % 127) as f32 / 40.0 - 1.6).collect()
    }

    /// Asserts that two functions of tensors of these shapes, which they get flat, agree in value
    /// and in every gradient, and in value without gradients.
    #[track_caller]
    pub(in super::super) fn assert_same<const N: usize, const D: usize>(
        shapes: [&[usize]; N],
        fast: impl Fn([Tensor<Differentiable, 1>; N]) -> Tensor<Differentiable, D>,
        plain: impl Fn([Tensor<Differentiable, 1>; N]) -> Tensor<Differentiable, D>,
    ) {
        let device = Default::default();
        let run =
            |function: &dyn Fn([Tensor<Differentiable, 1>; N]) -> Tensor<Differentiable, D>,
             tracked: bool| {
                let inputs: [Tensor<Differentiable, 1>; N] = std::array::from_fn(|i| {
                    let values = numbers(shapes[i].iter().product(), i);
                    let input = Tensor::from_data(TensorData::from(values.as_slice()), &device);
                    if tracked { input.require_grad() } else { input }
                });
                let output = function(inputs.clone());
                let dims = output.dims();
                let weights = numbers(dims.iter().product(), 7);
                let weights =
                    Tensor::<Differentiable, D>::from_data(TensorData::new(weights, dims), &device);
                let mut results = vec![output.clone().into_data()];
                if tracked {
                    let gradients = (output * weights).sum().backward();
                    results.extend(inputs.map(|input| {
                        input.grad(&gradients).expect("every input has a gradient").into_data()
                    }));
                }
                results
            };
        for tracked in [true, false] {
            let (found, expected) = (run(&fast, tracked), run(&plain, tracked));
            for (found, expected) in found.iter().zip(&expected) {
                found.assert_approx_eq::<f32>(expected, Tolerance::rel_abs(1e-4, 1e-4));
            }
        }
    }

    #[derive(Clone, Debug)]
    struct Negation;

    impl FlexOperation<1> for Negation {
        fn forward(&self, [input]: [&FlexTensor; 1]) -> FlexTensor {
            tensor(values(input).iter().map(|x| -x).collect(), dims::<1>(input))
        }

        fn backward(
            &self,
            _inputs: [&FlexTensor; 1],
            gradient: &FlexTensor,
            _wanted: [bool; 1],
        ) -> [Option<FlexTensor>; 1] {
            [Some(self.forward([gradient]))]
        }
    }

    fn negated<B: Backend>(input: &Tensor<B, 1>) -> Option<Tensor<B, 1>> {
        apply(Negation, [primitive(input)])
    }

    #[test]
    fn the_fast_path_is_taken_on_flex_alone() {
        fn ones<B: Backend>() -> Tensor<B, 1> {
            Tensor::ones([3], &Default::default())
        }
        assert!(negated(&ones::<Flex>()).is_some());
        assert!(negated(&ones::<Differentiable>()).is_some());
        assert!(negated(&ones::<Flex>().cast(DType::F64)).is_none());
        assert!(negated(&ones::<NdArray>()).is_none());
        assert!(negated(&ones::<Autodiff<NdArray>>()).is_none());
    }

    #[test]
    fn a_view_enters_the_fast_path_as_its_own_values() {
        let input = Tensor::<Flex, 1>::from_floats([1.0, 2.0, 3.0, 4.0], &Default::default());
        let output = negated(&input.narrow(0, 1, 2)).expect("burn-flex's tensor");
        assert_eq!(output.into_data().to_vec::<f32>().unwrap(), [-2.0, -3.0]);
    }
}
