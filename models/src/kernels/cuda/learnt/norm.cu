// Layer norm over rows, and group norm over channels-last pictures with the activation that follows it. All kernels of a kind
// have the same parameters.
//
// `layer_forward`, `layer_backward`: grid ceil(rows / 4), block 128, a warp a row. `layer_columns`: grid (ceil(c / 32), chunks),
//   block 256; `sums` has a row of gamma's and one of beta's for each chunk.
// `group_forward`, `group_backward`: grid (groups, pictures), block 256. `group_columns`: grid (ceil(c / 32), pictures), block
//   256, a chunk a picture. Few and small pictures, so that a block has all of a group.

extern "C" __global__ __launch_bounds__(128) void layer_forward(
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

extern "C" __global__ __launch_bounds__(128) void layer_backward(
    const float* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__, const float* __restrict__ moments,
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
extern "C" __global__ __launch_bounds__(256) void layer_columns(
    const float* __restrict__ x, const float* __restrict__, const float* __restrict__, const float* __restrict__ moments,
    const float* __restrict__ to_out, float* __restrict__ sums, const __grid_constant__ Info info) {
  const u64 begin = blockIdx.y * info.chunk, end = begin + info.chunk < info.rows ? begin + info.chunk : info.rows;
  sum_columns<2>(sums, info, begin, end, [&](u64 at, u64 row, float (&sum)[2]) {
    const float y = to_out[at];
    sum[0] += y * (x[at] - moments[2 * row]) * moments[2 * row + 1];
    sum[1] += y;
  });
}

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
  // Threads beyond the last channel read the last one's.
  const u64 mine = column_of_thread(), channel = mine < info.c ? mine : info.c - 1;
  const float* of = moments + 2 * (blockIdx.y * info.groups + channel / (info.c / info.groups));
  const float mean = of[0], factor = of[1], gain = gamma[channel], offset = beta[channel];
  const u64 first = blockIdx.y * info.rows;
  sum_columns<2>(sums, info, first, first + info.rows, [&](u64 at, u64, float (&sum)[2]) {
    const float normal = (x[at] - mean) * factor, y = to_out[at] * slope(normal * gain + offset);
    sum[0] += y * normal;
    sum[1] += y;
  });
}
