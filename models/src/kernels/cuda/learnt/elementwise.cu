// Of each number one: grid ceil(count / (256 * 4)), block 256. And sums of columns: `round_columns`, grid (ceil(c / 32), chunks)
// of `chunk` rows, block 256, of which `sums` has c numbers each; `add_chunks`, grid ceil(count / 256), block 256.

extern "C" __global__ __launch_bounds__(256) void round_numbers(
    const float* __restrict__ x, T* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) { out[at] = from_float(x[at]); });
}

// In place where `x` and `out` are one; what the activation was given is kept, rounded.
extern "C" __global__ __launch_bounds__(256) void activate_keeping(
    const float* x, float* out, T* __restrict__ kept, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) {
    const float y = x[at];
    kept[at] = from_float(y);
    out[at] = activated(y);
  });
}

extern "C" __global__ __launch_bounds__(256) void activate(
    const float* __restrict__ x, float* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) { out[at] = activated(x[at]); });
}

extern "C" __global__ __launch_bounds__(256) void activate_backward(
    const float* __restrict__ x, const float* __restrict__ to_out, float* __restrict__ to_x,
    const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) { to_x[at] = to_out[at] * slope(x[at]); });
}

// The first half of a row of 2 c numbers times gelu (ACT 1) of the second; `count` numbers come of it.
extern "C" __global__ __launch_bounds__(256) void gate(
    const float* __restrict__ x, float* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) {
    const float* from = x + at + at / info.c * info.c;
    out[at] = from[0] * activated(from[info.c]);
  });
}

extern "C" __global__ __launch_bounds__(256) void gate_backward(
    const float* __restrict__ x, const float* __restrict__ to_out, float* __restrict__ to_x,
    const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) {
    const u64 first = at + at / info.c * info.c, second = first + info.c;
    const float y = to_out[at], gate = x[second];
    to_x[first] = y * activated(gate);
    to_x[second] = y * x[first] * slope(gate);
  });
}

// Of the output's gradient it makes the input's.
extern "C" __global__ __launch_bounds__(256) void drop(
    const float* __restrict__ x, float* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) { out[at] = x[at] * dropout_factor(info, at); });
}

// One update, in the order of the operations that the other backends take. Buffers may be the same.
extern "C" __global__ __launch_bounds__(256) void adamw(
    const float* weight, const float* first, const float* second, const float* gradient, float* weight_out,
    float* first_out, float* second_out, const __grid_constant__ Info info) {
  const float beta_1 = from_bits(info.beta_1), beta_2 = from_bits(info.beta_2);
  const float by_first = from_bits(info.by_first), by_second = from_bits(info.by_second);
  const float shrink = from_bits(info.shrink), rate = from_bits(info.rate), epsilon = from_bits(info.epsilon);
  each(info.count, [&](u64 at) {
    const float y = gradient[at];
    const float m = first[at] * beta_1 + y * (1.0f - beta_1);
    const float v = second[at] * beta_2 + y * y * (1.0f - beta_2);
    weight_out[at] = weight[at] * shrink - m / by_first / (sqrtf(v / by_second) + epsilon) * rate;
    first_out[at] = m;
    second_out[at] = v;
  });
}

// A gradient, times that of the activation, rounded; and the sums of its columns, for each chunk.
extern "C" __global__ __launch_bounds__(256) void round_columns(
    const float* __restrict__ x, const T* __restrict__ before, T* __restrict__ out, float* __restrict__ sums,
    const __grid_constant__ Info info) {
  const u64 begin = blockIdx.y * info.chunk, end = begin + info.chunk < info.rows ? begin + info.chunk : info.rows;
  sum_columns<1>(sums, info, begin, end, [&](u64 at, u64, float (&sum)[1]) {
    float y = x[at];
    if (ACT) y *= slope(to_float(before[at]));
    out[at] = from_float(y);
    sum[0] += y;
  });
}

// The chunks' sums, of `count` numbers each, one after the other.
extern "C" __global__ __launch_bounds__(256) void add_chunks(
    const float* __restrict__ sums, float* __restrict__ out, const __grid_constant__ Info info) {
  const u64 at = (u64)blockIdx.x * 256 + threadIdx.x;
  if (at >= info.count) return;
  float sum = 0.0f;
#pragma unroll 8
  for (u64 chunk = 0; chunk < info.chunk; chunk++) sum += sums[chunk * info.count + at];
  out[at] = sum;
}
