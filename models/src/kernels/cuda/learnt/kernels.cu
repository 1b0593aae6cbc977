// What is learnt, beside its products: 32-bit numbers, of which factors are rounded to 16 bits. Bound by memory or by the
// launch. Nothing is added by atomics, so that two runs give the same sums.
//
// `round_numbers`, `activate`.., `gate`.., `round_taps`, `turn_taps`, `taps_last`, `spread`, `taps`, `drop`, `adamw`: grid ceil(count / (256 * 4)), block 256.
// `round_columns`, `norm_columns`: grid (ceil(c / 32), chunks), block 256; chunks of `chunk` rows. `sums` has a row of c
//   for each chunk, of norm_columns two. `add_chunks`: grid ceil(count / 256), block 256.
// `norm_forward`, `norm_backward`: grid ceil(rows / 4), block 128, a warp a row.
// `group_forward`, `group_backward`: grid (groups, pictures), block 256. `group_columns`: grid (ceil(c / 32), pictures),
//   block 256; `sums` as of norm_columns, a chunk a picture.

#ifndef ACT
#define ACT 0
#endif

#define FULL 0xffffffff

struct Info {
  u64 rows, c, chunk, count, groups, epsilon;
  u64 rate, beta_1, beta_2, shrink, by_first, by_second;
  u64 h, w, out_h, out_w, step, before;
  u64 key, dropped, keep;
};

DEVICE float dropout_factor(const Info& info, u64 index);  // dropout.cu

DEVICE float warp_sum(float x) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2) x += __shfl_xor_sync(FULL, x, distance);
  return x;
}

// The activation, and its derivative, of x.
DEVICE float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }
DEVICE float activated(float x) {
#if ACT == 1
  return 0.5f * x * (1.0f + erff(x * 0.70710678f));
#elif ACT == 2
  return x * sigmoid((x * x * 0.044715f + 1.0f) * x * 1.595769f);
#elif ACT == 3
  return x * sigmoid(1.702f * x);
#elif ACT == 4
  return fmaxf(x, 0.0f);
#elif ACT == 5
  return x * sigmoid(x);
#else
  return x;
#endif
}
// Of x sigmoid(u), where u has the derivative v.
DEVICE float logistic_slope(float x, float u, float v) {
  const float s = sigmoid(u);
  return s * (1.0f + x * v * (1.0f - s));
}
DEVICE float slope(float x) {
#if ACT == 1
  return 0.5f * (1.0f + erff(x * 0.70710678f)) + x * 0.39894228f * __expf(-0.5f * x * x);
#elif ACT == 2
  const float square = x * x * 0.044715f;
  return logistic_slope(x, (square + 1.0f) * x * 1.595769f, (3.0f * square + 1.0f) * 1.595769f);
#elif ACT == 3
  return logistic_slope(x, 1.702f * x, 1.702f);
#elif ACT == 4
  return x > 0.0f ? 1.0f : 0.0f;
#elif ACT == 5
  return logistic_slope(x, x, 1.0f);
#else
  return 1.0f;
#endif
}

// Calls with each of a thread's four numbers.
template <class Each> DEVICE void each(u64 count, Each function) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const u64 at = (u64)blockIdx.x * 1024 + i * 256 + threadIdx.x;
    if (at < count) function(at);
  }
}

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

// A gradient, times that of the activation, rounded; and the sums of its columns, for each chunk.
extern "C" __global__ __launch_bounds__(256) void round_columns(
    const float* __restrict__ x, const T* __restrict__ before, T* __restrict__ out, float* __restrict__ sums,
    const __grid_constant__ Info info) {
  __shared__ float parts[8][32];
  const int lane = threadIdx.x % 32, line = threadIdx.x / 32;
  const u64 column = (u64)blockIdx.x * 32 + lane, begin = blockIdx.y * info.chunk;
  const u64 end = begin + info.chunk < info.rows ? begin + info.chunk : info.rows;
  float sum = 0.0f;
  if (column < info.c) {
#pragma unroll 4
    for (u64 row = begin + line; row < end; row += 8) {
      const u64 at = row * info.c + column;
      float y = x[at];
      if (ACT) y *= slope(to_float(before[at]));
      out[at] = from_float(y);
      sum += y;
    }
  }
  parts[line][lane] = sum;
  __syncthreads();
  if (line == 0 && column < info.c) {
#pragma unroll
    for (int i = 1; i < 8; i++) sum += parts[i][lane];
    sums[blockIdx.y * info.c + column] = sum;
  }
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

extern "C" __global__ __launch_bounds__(128) void norm_forward(
    const float* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta,
    float* __restrict__ out, float* __restrict__ moments, const __grid_constant__ Info info) {
  const u64 row = (u64)blockIdx.x * 4 + threadIdx.x / 32;
  if (row >= info.rows) return;
  const int c = (int)info.c, first = threadIdx.x % 32;
  x += row * c;
  out += row * c;
  float sum = 0.0f, squares = 0.0f;
#pragma unroll 4
  for (int at = first; at < c; at += 32) sum += x[at];
  const float mean = warp_sum(sum) / c;
#pragma unroll 4
  for (int at = first; at < c; at += 32) squares += (x[at] - mean) * (x[at] - mean);
  const float factor = rsqrtf(warp_sum(squares) / c + from_bits(info.epsilon));
#pragma unroll 4
  for (int at = first; at < c; at += 32) out[at] = (x[at] - mean) * factor * gamma[at] + beta[at];
  if (first == 0) {
    moments[2 * row] = mean;
    moments[2 * row + 1] = factor;
  }
}

extern "C" __global__ __launch_bounds__(128) void norm_backward(
    const float* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ moments,
    const float* __restrict__ to_out, float* __restrict__ to_x, const __grid_constant__ Info info) {
  const u64 row = (u64)blockIdx.x * 4 + threadIdx.x / 32;
  if (row >= info.rows) return;
  const int c = (int)info.c, first = threadIdx.x % 32;
  const float mean = moments[2 * row], factor = moments[2 * row + 1];
  x += row * c;
  to_out += row * c;
  to_x += row * c;
  float shift = 0.0f, tilt = 0.0f;
#pragma unroll 4
  for (int at = first; at < c; at += 32) {
    const float y = to_out[at] * gamma[at];
    shift += y;
    tilt += y * (x[at] - mean) * factor;
  }
  shift = warp_sum(shift) / c;
  tilt = warp_sum(tilt) / c;
#pragma unroll 4
  for (int at = first; at < c; at += 32)
    to_x[at] = (to_out[at] * gamma[at] - shift - (x[at] - mean) * factor * tilt) * factor;
}

// The gradients of gamma, then of beta, of each chunk.
extern "C" __global__ __launch_bounds__(256) void norm_columns(
    const float* __restrict__ x, const float* __restrict__ moments, const float* __restrict__ to_out,
    float* __restrict__ sums, const __grid_constant__ Info info) {
  __shared__ float parts[2][8][32];
  const int lane = threadIdx.x % 32, line = threadIdx.x / 32;
  const u64 column = (u64)blockIdx.x * 32 + lane, begin = blockIdx.y * info.chunk;
  const u64 end = begin + info.chunk < info.rows ? begin + info.chunk : info.rows;
  float to_gamma = 0.0f, to_beta = 0.0f;
  if (column < info.c) {
#pragma unroll 4
    for (u64 row = begin + line; row < end; row += 8) {
      const float y = to_out[row * info.c + column];
      to_gamma += y * (x[row * info.c + column] - moments[2 * row]) * moments[2 * row + 1];
      to_beta += y;
    }
  }
  parts[0][line][lane] = to_gamma;
  parts[1][line][lane] = to_beta;
  __syncthreads();
  if (line < 2 && column < info.c) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) sum += parts[line][i][lane];
    sums[(blockIdx.y * 2 + line) * info.c + column] = sum;
  }
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

// ---- group norm over channels-last pictures, with the activation that follows it. Few and small pictures, so that a block
// has all of a group.

DEVICE float block_sum(float x, float* parts) {
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; i++) sum += parts[i];
  return sum;
}

// A group's numbers, of `width` channels.
template <class Each> DEVICE void each_of_group(const Info& info, int width, Each function) {
  const u64 first = blockIdx.y * info.rows * info.c + blockIdx.x * width;
  const int count = (int)info.rows * width;
  for (int i = threadIdx.x; i < count; i += 256) {
    const int pixel = i / width, channel = i - pixel * width;
    function(first + pixel * info.c + channel, blockIdx.x * width + channel);
  }
}

extern "C" __global__ __launch_bounds__(256) void group_forward(
    const float* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta,
    float* __restrict__ out, float* __restrict__ moments, const __grid_constant__ Info info) {
  __shared__ float parts[8];
  const int width = (int)(info.c / info.groups);
  const float count = (float)info.rows * width;
  float sum = 0.0f, squares = 0.0f;
  each_of_group(info, width, [&](u64 at, int) { sum += x[at]; });
  const float mean = block_sum(sum, parts) / count;
  each_of_group(info, width, [&](u64 at, int) { squares += (x[at] - mean) * (x[at] - mean); });
  const float factor = rsqrtf(block_sum(squares, parts) / count + from_bits(info.epsilon));
  each_of_group(info, width, [&](u64 at, int channel) {
    out[at] = activated((x[at] - mean) * factor * gamma[channel] + beta[channel]);
  });
  if (threadIdx.x == 0) {
    float* to = moments + 2 * (blockIdx.y * info.groups + blockIdx.x);
    to[0] = mean;
    to[1] = factor;
  }
}

extern "C" __global__ __launch_bounds__(256) void group_backward(
    const float* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta,
    const float* __restrict__ moments, const float* __restrict__ to_out, float* __restrict__ to_x,
    const __grid_constant__ Info info) {
  __shared__ float parts[8];
  const int width = (int)(info.c / info.groups);
  const float count = (float)info.rows * width;
  const float* of = moments + 2 * (blockIdx.y * info.groups + blockIdx.x);
  const float mean = of[0], factor = of[1];
  // The gradient of what gamma multiplies.
  auto before = [&](u64 at, int channel, float normal) {
    return to_out[at] * slope(normal * gamma[channel] + beta[channel]) * gamma[channel];
  };
  float shift = 0.0f, tilt = 0.0f;
  each_of_group(info, width, [&](u64 at, int channel) {
    const float normal = (x[at] - mean) * factor, y = before(at, channel, normal);
    shift += y;
    tilt += y * normal;
  });
  shift = block_sum(shift, parts) / count;
  tilt = block_sum(tilt, parts) / count;
  each_of_group(info, width, [&](u64 at, int channel) {
    const float normal = (x[at] - mean) * factor;
    to_x[at] = (before(at, channel, normal) - shift - normal * tilt) * factor;
  });
}

// The gradients of gamma, then of beta, of each picture.
extern "C" __global__ __launch_bounds__(256) void group_columns(
    const float* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta,
    const float* __restrict__ moments, const float* __restrict__ to_out, float* __restrict__ sums,
    const __grid_constant__ Info info) {
  __shared__ float parts[2][8][32];
  const int lane = threadIdx.x % 32, line = threadIdx.x / 32;
  const u64 channel = (u64)blockIdx.x * 32 + lane;
  float to_gamma = 0.0f, to_beta = 0.0f;
  if (channel < info.c) {
    const float* of = moments + 2 * (blockIdx.y * info.groups + channel / (info.c / info.groups));
    const float mean = of[0], factor = of[1];
#pragma unroll 4
    for (u64 pixel = line; pixel < info.rows; pixel += 8) {
      const u64 at = (blockIdx.y * info.rows + pixel) * info.c + channel;
      const float normal = (x[at] - mean) * factor;
      const float y = to_out[at] * slope(normal * gamma[channel] + beta[channel]);
      to_gamma += y * normal;
      to_beta += y;
    }
  }
  parts[0][line][lane] = to_gamma;
  parts[1][line][lane] = to_beta;
  __syncthreads();
  if (line < 2 && channel < info.c) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) sum += parts[line][i][lane];
    sums[(blockIdx.y * 2 + line) * info.c + channel] = sum;
  }
}

// ---- what a convolution's gradients are products of. A weight has `rows` output and `c` input channels.

// [out, in, 3, 3] to [out, 3, 3, in], rounded.
extern "C" __global__ __launch_bounds__(256) void round_taps(
    const float* __restrict__ weight, T* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) {
    const u64 channel = at % info.c, tap = at / info.c % 9, row = at / info.c / 9;
    out[at] = from_float(weight[(row * info.c + channel) * 9 + tap]);
  });
}

// [out, 3, 3, in] to [in, 3, 3, out], by half a turn.
extern "C" __global__ __launch_bounds__(256) void turn_taps(
    const T* __restrict__ weight, T* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) {
    const u64 row = at % info.rows, tap = at / info.rows % 9, channel = at / info.rows / 9;
    out[at] = weight[(row * 9 + 8 - tap) * info.c + channel];
  });
}

// [out, 3, 3, in] to [out, in, 3, 3].
extern "C" __global__ __launch_bounds__(256) void taps_last(
    const float* __restrict__ weight, float* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) {
    const u64 tap = at % 9, channel = at / 9 % info.c, row = at / 9 / info.c;
    out[at] = weight[(row * 9 + tap) * info.c + channel];
  });
}

// Pictures of h x w pixels to those of out_h x out_w, whose pixels lie `step` apart among zeros.
extern "C" __global__ __launch_bounds__(256) void spread(
    const T* __restrict__ x, T* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) {
    const u64 channel = at % info.c, column = at / info.c % info.out_w, line = at / info.c / info.out_w % info.out_h;
    const u64 picture = at / info.c / info.out_w / info.out_h;
    const bool on = line % info.step == 0 && column % info.step == 0;
    out[at] = on ? x[((picture * info.h + line / info.step) * info.w + column / info.step) * info.c + channel] : (T)0;
  });
}

// The nine pixels under the kernel for each pixel of the output, [b, out_h, out_w, 9, c].
extern "C" __global__ __launch_bounds__(256) void taps(
    const T* __restrict__ x, T* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) {
    const u64 channel = at % info.c, tap = at / info.c % 9, pixel = at / info.c / 9;
    const u64 column = pixel % info.out_w, line = pixel / info.out_w % info.out_h, picture = pixel / info.out_w / info.out_h;
    const long long y = (long long)(line * info.step + tap / 3) - (long long)info.before;
    const long long z = (long long)(column * info.step + tap % 3) - (long long)info.before;
    const bool within = y >= 0 && y < (long long)info.h && z >= 0 && z < (long long)info.w;
    out[at] = within ? x[((picture * info.h + y) * info.w + z) * info.c + channel] : (T)0;
  });
}
