// Norms over channels, and gated gelu: bound by memory, hence 16 bytes a load where VECTOR.
//
// `layer_norm`: grid ceil(rows / 4), block 128, no shared memory.
// `group_norm_sums`, then `group_norm`: grid (ceil(pixels / chunk), b), block 512; `sums` has 3 f32 for every picture,
//   chunk and group. Shared bytes 8 * max(VECTOR ? 4096 : 512, c) and 4 * (3 * max(512, groups) + 2 * groups).
//   groups divides c. About a block a multiprocessor is best: each reads the moments of all chunks of its picture.
// `geglu`: grid ceil(rows * c / (VECTOR ? 2048 : 256)), block 256, no shared memory; at most 2^32 - 256 threads in all.
// Where VECTOR, c is a multiple of 8 and every buffer begins at a multiple of 16 bytes.

#ifndef SILU
#define SILU 0
#endif

extern __shared__ __align__(1024) unsigned char shared[];

// WIDTH numbers, as one thread loads and stores them.
#if VECTOR
constexpr int WIDTH = 8;
typedef uint4 Numbers;
DEVICE void unpack(float (&x)[WIDTH], Numbers from) {
  const u32 pairs[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    x[2 * i] = low(pairs[i]);
    x[2 * i + 1] = high(pairs[i]);
  }
}
DEVICE Numbers packed(const float (&x)[WIDTH]) {
  return uint4{pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7])};
}
DEVICE void load_floats(float (&x)[WIDTH], const float* from) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float4 four = ((const float4*)from)[i];
    x[4 * i] = four.x;
    x[4 * i + 1] = four.y;
    x[4 * i + 2] = four.z;
    x[4 * i + 3] = four.w;
  }
}
#else
constexpr int WIDTH = 1;
typedef T Numbers;
DEVICE void unpack(float (&x)[WIDTH], Numbers from) { x[0] = to_float(from); }
DEVICE Numbers packed(const float (&x)[WIDTH]) { return from_float(x[0]); }
DEVICE void load_floats(float (&x)[WIDTH], const float* from) { x[0] = *from; }
#endif

DEVICE Numbers load(const T* from) { return *(const Numbers*)from; }
DEVICE void store(T* to, const float (&x)[WIDTH]) { *(Numbers*)to = packed(x); }

DEVICE float warp_sum(float x) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2) x += __shfl_xor_sync(0xffffffff, x, distance);
  return x;
}

// ---- layer_norm: a warp a row. Mean first, then squares of what is left, so that a large mean does no harm.

struct LayerInfo {
  u64 rows, c, epsilon;
};

DEVICE float sum_of(Numbers numbers) {
  float x[WIDTH], sum = 0.0f;
  unpack(x, numbers);
#pragma unroll
  for (int i = 0; i < WIDTH; i++) sum += x[i];
  return sum;
}
DEVICE float squares_of(Numbers numbers, float mean) {
  float x[WIDTH], sum = 0.0f;
  unpack(x, numbers);
#pragma unroll
  for (int i = 0; i < WIDTH; i++) sum += (x[i] - mean) * (x[i] - mean);
  return sum;
}
DEVICE void normalise(T* to, Numbers numbers, float mean, float factor, const float* gamma, const float* beta) {
  float x[WIDTH], gain[WIDTH], offset[WIDTH];
  unpack(x, numbers);
  load_floats(gain, gamma);
  load_floats(offset, beta);
#pragma unroll
  for (int i = 0; i < WIDTH; i++) x[i] = (x[i] - mean) * factor * gain[i] + offset[i];
  store(to, x);
}

extern "C" __global__ __launch_bounds__(128, 8) void layer_norm(
    const T* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta, T* __restrict__ out,
    const __grid_constant__ LayerInfo info) {
  constexpr int KEPT = 8, STEP = 32 * WIDTH;  // a row of up to KEPT * STEP numbers stays in registers
  const u64 row = (u64)blockIdx.x * 4 + threadIdx.x / 32;
  if (row >= info.rows) return;
  const int c = (int)info.c, first = threadIdx.x % 32 * WIDTH;
  const float epsilon = from_bits(info.epsilon);
  x += row * c;
  out += row * c;
  float sum = 0.0f, squares = 0.0f;
  if (c <= KEPT * STEP) {
    Numbers kept[KEPT];
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
      if (first + i * STEP < c) kept[i] = load(x + first + i * STEP);
    }
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
      if (first + i * STEP < c) sum += sum_of(kept[i]);
    }
    const float mean = warp_sum(sum) / c;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
      if (first + i * STEP < c) squares += squares_of(kept[i], mean);
    }
    const float factor = rsqrtf(warp_sum(squares) / c + epsilon);
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
      const int at = first + i * STEP;
      if (at < c) normalise(out + at, kept[i], mean, factor, gamma + at, beta + at);
    }
  } else {
#pragma unroll 4
    for (int at = first; at < c; at += STEP) sum += sum_of(load(x + at));
    const float mean = warp_sum(sum) / c;
#pragma unroll 4
    for (int at = first; at < c; at += STEP) squares += squares_of(load(x + at), mean);
    const float factor = rsqrtf(warp_sum(squares) / c + epsilon);
#pragma unroll 4
    for (int at = first; at < c; at += STEP) normalise(out + at, load(x + at), mean, factor, gamma + at, beta + at);
  }
}

// ---- group_norm over channels-last pictures. A block has a chunk of a picture's pixels, all channels of them.

struct GroupInfo {
  u64 b, pixels, c, groups, epsilon, chunk;
};

constexpr int GROUP_THREADS = 512;
constexpr int AHEAD = 4;  // pixels a thread loads at once

// Which numbers of a chunk are a thread's: WIDTH channels from `channel` on, of every `lanes`-th pixel from `lane` on.
struct Share {
  int c, columns, pixels, lane, lanes, channel, step;
  u64 begin;  // of the chunk, in numbers

  DEVICE Share(const GroupInfo& info) {
    c = (int)info.c;
    columns = c / WIDTH;
    const int thread = threadIdx.x;
    const u64 first = blockIdx.x * info.chunk;
    pixels = (int)min(info.chunk, info.pixels - first);
    begin = (blockIdx.y * info.pixels + first) * c;
    lanes = columns < GROUP_THREADS ? GROUP_THREADS / columns : 1;
    step = columns < GROUP_THREADS ? c : GROUP_THREADS * WIDTH;  // a second set of channels only where c is large
    lane = columns < GROUP_THREADS ? thread / columns : 0;
    channel = lane < lanes ? (columns < GROUP_THREADS ? thread % columns : thread) * WIDTH : c;  // c: idle
  }

  // Where shared memory has a lane's moments of a channel: neighbouring threads write neighbouring places.
  DEVICE int place(int channel, int lane) const {
    return (channel % WIDTH * lanes + lane) * columns + channel / WIDTH;
  }
};

// Each channel is summed relative to its first pixel: differences are small where the mean may be large.
extern "C" __global__ __launch_bounds__(GROUP_THREADS, 2) void group_norm_sums(
    const T* __restrict__ x, float* __restrict__ sums, const __grid_constant__ GroupInfo info) {
  const Share share(info);
  const int c = share.c, pixels = share.pixels;
  float2* moments = (float2*)shared;
  x += share.begin;

  for (int channel = share.channel; channel < c; channel += share.step) {
    float shift[WIDTH], sum[WIDTH] = {}, squares[WIDTH] = {};
    unpack(shift, load(x + channel));
    for (int pixel = share.lane; pixel < pixels; pixel += AHEAD * share.lanes) {
      Numbers numbers[AHEAD];
#pragma unroll
      for (int i = 0; i < AHEAD; i++) {
        const int at = pixel + i * share.lanes;
        if (at < pixels) numbers[i] = load(x + (u64)at * c + channel);
      }
#pragma unroll
      for (int i = 0; i < AHEAD; i++) {
        if (pixel + i * share.lanes < pixels) {
          float values[WIDTH];
          unpack(values, numbers[i]);
#pragma unroll
          for (int e = 0; e < WIDTH; e++) {
            const float difference = values[e] - shift[e];
            sum[e] += difference;
            squares[e] += difference * difference;
          }
        }
      }
    }
#pragma unroll
    for (int e = 0; e < WIDTH; e++) moments[share.place(channel + e, share.lane)] = float2{sum[e], squares[e]};
  }
  __syncthreads();

  // The lanes of a channel give its mean and its squares about that mean.
  for (int i = threadIdx.x; i < c; i += GROUP_THREADS) {
    const int channel = i % share.columns * WIDTH + i / share.columns;
    float sum = 0.0f, squares = 0.0f;
#pragma unroll 4
    for (int lane = 0; lane < share.lanes; lane++) {
      const float2 part = moments[share.place(channel, lane)];
      sum += part.x;
      squares += part.y;
    }
    const float mean = sum / pixels;
    moments[share.place(channel, 0)] = float2{to_float(x[channel]) + mean, fmaxf(squares - sum * mean, 0.0f)};
  }
  __syncthreads();

  // A warp merges the channels of a group.
  const int groups = (int)info.groups, members = c / groups, lane = threadIdx.x % 32;
  for (int group = threadIdx.x / 32; group < groups; group += GROUP_THREADS / 32) {
    float sum = 0.0f, squares = 0.0f;
    for (int i = lane; i < members; i += 32) sum += moments[share.place(group * members + i, 0)].x;
    const float mean = warp_sum(sum) / members;
    for (int i = lane; i < members; i += 32) {
      const float2 of = moments[share.place(group * members + i, 0)];
      squares += of.y + pixels * (of.x - mean) * (of.x - mean);
    }
    squares = warp_sum(squares);
    if (lane == 0) {
      float* to = sums + (((u64)blockIdx.y * gridDim.x + blockIdx.x) * groups + group) * 3;
      to[0] = (float)pixels * members;
      to[1] = mean;
      to[2] = squares;
    }
  }
}

extern "C" __global__ __launch_bounds__(GROUP_THREADS, 2) void group_norm(
    const T* __restrict__ x, const float* __restrict__ sums, const float* __restrict__ gamma,
    const float* __restrict__ beta, T* __restrict__ out, const __grid_constant__ GroupInfo info) {
  const Share share(info);
  const int c = share.c, pixels = share.pixels, groups = (int)info.groups, chunks = gridDim.x;
  const int parts = groups < GROUP_THREADS ? GROUP_THREADS / groups : 1;
  float* merged = (float*)shared;                                     // [3, parts * groups]
  float2* scales = (float2*)(merged + 3 * max(GROUP_THREADS, groups));  // mean and 1 / deviation of each group
  x += share.begin;
  out += share.begin;
  sums += (u64)blockIdx.y * chunks * groups * 3;

  // Moments of the chunks, relative to the first chunk's mean, become those of the picture.
  const int all = parts * groups;
  for (int i = threadIdx.x; i < all; i += GROUP_THREADS) {
    const int group = i % groups;
    const float shift = sums[group * 3 + 1];
    float count = 0.0f, sum = 0.0f, squares = 0.0f;
#pragma unroll 4
    for (int chunk = i / groups; chunk < chunks; chunk += parts) {
      const float* from = sums + ((u64)chunk * groups + group) * 3;
      const float difference = from[1] - shift;
      count += from[0];
      sum += from[0] * difference;
      squares += from[2] + from[0] * difference * difference;
    }
    merged[i] = count;
    merged[all + i] = sum;
    merged[2 * all + i] = squares;
  }
  __syncthreads();
  for (int group = threadIdx.x; group < groups; group += GROUP_THREADS) {
    float count = 0.0f, sum = 0.0f, squares = 0.0f;
    for (int i = group; i < all; i += groups) {
      count += merged[i];
      sum += merged[all + i];
      squares += merged[2 * all + i];
    }
    const float mean = sum / count, variance = fmaxf(squares / count - mean * mean, 0.0f);
    scales[group] = float2{sums[group * 3 + 1] + mean, rsqrtf(variance + from_bits(info.epsilon))};
  }
  __syncthreads();

  const int members = c / groups;
  for (int channel = share.channel; channel < c; channel += share.step) {
    float mean[WIDTH], gain[WIDTH], offset[WIDTH];
    load_floats(gain, gamma + channel);
    load_floats(offset, beta + channel);
#pragma unroll
    for (int e = 0; e < WIDTH; e++) {  // WIDTH channels may belong to several groups
      const float2 scale = scales[(channel + e) / members];
      mean[e] = scale.x;
      gain[e] *= scale.y;
    }
    for (int pixel = share.lane; pixel < pixels; pixel += AHEAD * share.lanes) {
      Numbers numbers[AHEAD];
#pragma unroll
      for (int i = 0; i < AHEAD; i++) {
        const int at = pixel + i * share.lanes;
        if (at < pixels) numbers[i] = load(x + (u64)at * c + channel);
      }
#pragma unroll
      for (int i = 0; i < AHEAD; i++) {
        const int at = pixel + i * share.lanes;
        if (at < pixels) {
          float values[WIDTH];
          unpack(values, numbers[i]);
#pragma unroll
          for (int e = 0; e < WIDTH; e++) {
            float y = (values[e] - mean[e]) * gain[e] + offset[e];
#if SILU
            y = __fdividef(y, 1.0f + __expf(-y));
#endif
            values[e] = y;
          }
          store(out + (u64)at * c + channel, values);
        }
      }
    }
  }
}

// ---- geglu: the first half of a row times gelu of the second.

struct GateInfo {
  u64 rows, c;
};

extern "C" __global__ __launch_bounds__(256) void geglu(
    const T* __restrict__ x, T* __restrict__ out, const __grid_constant__ GateInfo info) {
  const u32 columns = (u32)info.c / WIDTH, index = blockIdx.x * 256 + threadIdx.x;
  const u64 row = index / columns;
  if (row >= info.rows) return;
  const u32 at = (index - (u32)row * columns) * WIDTH;
  x += row * 2 * info.c + at;
  const Numbers numbers = load(x), gates = load(x + info.c);
  float values[WIDTH], gate[WIDTH];
  unpack(values, numbers);
  unpack(gate, gates);
#pragma unroll
  for (int i = 0; i < WIDTH; i++) values[i] *= 0.5f * gate[i] * (1.0f + erff(gate[i] * 0.70710678f));
  store(out + row * info.c + at, values);
}
