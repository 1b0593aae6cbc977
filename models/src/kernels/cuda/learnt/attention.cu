// attention and its gradients, from 32-bit numbers to 32-bit numbers: factors are rounded to 16 bits where they are
// loaded, sums, exponentials and what is kept have 32. After FlashAttention-2 (Dao, 2023): the weights of the attention are
// computed anew in the backward pass, from the logarithm of each query's sum.
//
// q, out and their gradients [b, n, heads*D]; k, v and theirs [b, m, heads*D]; bias [1 or b, 1 or n, m]; logs [b, heads,
// n, 2], the highest exponent and the logarithm of the sum under it; deltas [b, heads, n]. No gaps, D a multiple of 4.
//
// Defines: D; BIAS; DROP, of the weights (logs and deltas are as without); VECTOR, that inputs begin at multiples of 16
// bytes. A block of four warps takes 64 queries (`attention_forward`, `attention_to_query`: grid (ceil(n / 64),
// heads, b)) or 64 positions of keys (`attention_to_keys`: grid (ceil(m / 64), heads, b)), a warp 16 of them, over 64 of
// the others at a time. Shared bytes: TILE * tiles, of which `attention_forward` has 3, the others 4; `attention_to_keys`
// 768 bytes more. `attention_deltas`: grid ceil(b * heads * n / 4), a warp for each, no shared memory.

constexpr int SIDE = 64, THREADS = 128;
constexpr int DEPTH = (D + 15) / 16;    // steps of 16 numbers along a head
constexpr int EIGHTS = (D + 7) / 8;     // blocks of 8 numbers of a head
constexpr int PITCH = 32 * DEPTH + 16;  // bytes a row; an odd number of 16 bytes keeps ldmatrix free of conflicts
constexpr int TILE = SIDE * PITCH;
constexpr float LOG2_E = 1.44269504f;

extern __shared__ __align__(1024) unsigned char shared[];

struct Info {
  u64 b, n, m, heads, scale, bias_batch, bias_row;
  u64 key, dropped, keep;
};

DEVICE float dropout_factor(const Info& info, u64 index);  // dropout.cu

// 64 rows of one head, rounded; zeros from row `rows` on and in the columns that fill up a step of 16.
DEVICE void load_tile(unsigned char* to, const float* from, u64 stride, int rows) {
  constexpr int FOURS = DEPTH * 4;
#pragma unroll 4
  for (int i = threadIdx.x; i < SIDE * FOURS; i += THREADS) {
    const int row = i / FOURS, four = i % FOURS;
    float4 x = {0.0f, 0.0f, 0.0f, 0.0f};
    if (row < rows && four * 4 < D) {
      const float* at = from + row * stride + four * 4;
#if VECTOR
      x = *(const float4*)at;
#else
      x = float4{at[0], at[1], at[2], at[3]};
#endif
    }
    *(uint2*)(to + row * PITCH + four * 8) = uint2{pack(x.x, x.y), pack(x.z, x.w)};
  }
}

typedef float Scores[SIDE / 8][4];  // 16 rows by 64 columns of a warp
typedef float Rows[EIGHTS][4];      // 16 rows by D columns

// scores += a b^T: a warp's 16 rows of tile a by all rows of tile b.
DEVICE void add_scores(Scores& scores, u32 a, u32 b) {
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  a += (warp * 16 + lane % 16) * PITCH + lane / 16 * 16;
  b += (lane / 16 * 8 + lane % 8) * PITCH + lane / 8 % 2 * 16;
#pragma unroll
  for (int d = 0; d < DEPTH; d++) {
    u32 left[4];
    load_matrix(left, a + d * 32);
#pragma unroll
    for (int j = 0; j < SIDE / 16; j++) {
      u32 right[4];
      load_matrix(right, b + j * 16 * PITCH + d * 32);
      multiply(scores[2 * j], left, right[0], right[1]);
      multiply(scores[2 * j + 1], left, right[2], right[3]);
    }
  }
}

// sums += scores b: the scores, rounded, by tile b.
DEVICE void add_rows(Rows& sums, const Scores& scores, u32 b) {
  const u32 lane = threadIdx.x % 32;
  b += lane % 16 * PITCH + lane / 16 * 16;
#pragma unroll
  for (int j = 0; j < SIDE / 16; j++) {
    u32 left[4];
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const float* pair = &scores[2 * j + e / 2][e % 2 * 2];
      left[e] = pack(pair[0], pair[1]);
    }
#pragma unroll
    for (int d = 0; d < EIGHTS; d += 2) {
      u32 right[4];  // of the last block alone where their number is odd: zeros follow it
      load_matrix_transposed(right, b + j * 16 * PITCH + d * 16);
      multiply(sums[d], left, right[0], right[1]);
      if (d + 1 < EIGHTS) multiply(sums[d + 1], left, right[2], right[3]);
    }
  }
}

DEVICE float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
DEVICE float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffff, x, 1);
  return x + __shfl_xor_sync(0xffffffff, x, 2);
}

// A lane's places in an accumulator: rows `row` and `row + 8` of the warp's, columns `column` and `column + 1` of eight.
DEVICE int place_row() { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4; }
DEVICE int place_column() { return threadIdx.x % 4 * 2; }

// A product of a query and a key as the exponent to the base 2; minus infinity beyond the last of either.
DEVICE float exponent(float product, const float* bias, const Info& info, int query, int key) {
  const int n = (int)info.n, m = (int)info.m;
  float x = product * from_bits(info.scale);
#if BIAS
  // Minus infinity counts as a number: a difference of two of them is no NaN.
  x += fmaxf(bias[min(query, n - 1) * info.bias_row + min(key, m - 1)], -1e30f);
#endif
  return query < n && key < m ? x * LOG2_E : -__int_as_float(0x7f800000);
}

// The weight of a key, whose exponent is x, for a query with these logarithms.
DEVICE float weight(float x, float2 log_of) { return power_of_two(x - log_of.x - log_of.y); }

// What dropout multiplies that by.
DEVICE float dropout_of(const Info& info, int query, int key) {
#if DROP
  return dropout_factor(info, ((blockIdx.z * info.heads + blockIdx.y) * info.n + query) * info.m + key);
#else
  return 1.0f;
#endif
}

DEVICE void store_rows(float* to, const Rows& sums, u64 stride, int rows, const float (&factors)[2]) {
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = place_row() + half * 8;
    if (row >= rows) continue;
#pragma unroll
    for (int d = 0; d < EIGHTS; d++) {
      const int column = d * 8 + place_column();
      if (D % 8 && column >= D) continue;
      *(float2*)(to + row * stride + column) =
          float2{sums[d][2 * half] * factors[half], sums[d][2 * half + 1] * factors[half]};
    }
  }
}

// Where a block's batch and head begin.
struct Begin {
  u64 stride, queries, keys, logs;
  DEVICE Begin(const Info& info) {
    stride = info.heads * D;
    queries = blockIdx.z * info.n * stride + blockIdx.y * D;
    keys = blockIdx.z * info.m * stride + blockIdx.y * D;
    logs = (blockIdx.z * info.heads + blockIdx.y) * info.n;
  }
};

extern "C" __global__ __launch_bounds__(THREADS) void attention_forward(
    const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    const float* __restrict__ bias, float* __restrict__ out, float* __restrict__ logs,
    const __grid_constant__ Info info) {
  const Begin begin(info);
  const int n = (int)info.n, m = (int)info.m, first = blockIdx.x * SIDE;
  const u32 base = shared_address(shared);
  bias += blockIdx.z * info.bias_batch;
  load_tile(shared, q + begin.queries + first * begin.stride, begin.stride, n - first);
  Rows sums = {};
  float total[2] = {0.0f, 0.0f}, highest[2] = {-3e38f, -3e38f};
  for (int key = 0; key < m; key += SIDE) {
    __syncthreads();
    load_tile(shared + TILE, k + begin.keys + key * begin.stride, begin.stride, m - key);
    load_tile(shared + 2 * TILE, v + begin.keys + key * begin.stride, begin.stride, m - key);
    __syncthreads();
    Scores scores = {};
    add_scores(scores, base, base + TILE);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int query = first + place_row() + half * 8;
      float top = highest[half];
#pragma unroll
      for (int j = 0; j < SIDE / 8; j++) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; e++) {
          scores[j][e] = exponent(scores[j][e], bias, info, min(query, n - 1), key + j * 8 + place_column() + e % 2);
          top = fmaxf(top, scores[j][e]);
        }
      }
      top = row_max(top);
      const float shrink = power_of_two(highest[half] - top);
      highest[half] = top;
      total[half] *= shrink;
#pragma unroll
      for (int j = 0; j < SIDE / 8; j++) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; e++) {
          scores[j][e] = power_of_two(scores[j][e] - top);
          total[half] += scores[j][e];
          scores[j][e] *= dropout_of(info, query, key + j * 8 + place_column() + e % 2);
        }
      }
#pragma unroll
      for (int d = 0; d < EIGHTS; d++) {
        sums[d][2 * half] *= shrink;
        sums[d][2 * half + 1] *= shrink;
      }
    }
    add_rows(sums, scores, base + 2 * TILE);
  }
  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const float whole = row_sum(total[half]);
    const int query = first + place_row() + half * 8;
    inverse[half] = 1.0f / whole;
    // Apart: of a row that is masked as a whole the second would vanish beside the first.
    if (place_column() == 0 && query < n) *(float2*)(logs + 2 * (begin.logs + query)) = float2{highest[half], log2f(whole)};
  }
  store_rows(out + begin.queries + first * begin.stride, sums, begin.stride, n - first, inverse);
}

// What each query's output and its gradient have in common: the sum of their products.
extern "C" __global__ __launch_bounds__(THREADS) void attention_deltas(
    const float* __restrict__ out, const float* __restrict__ to_out, float* __restrict__ deltas,
    const __grid_constant__ Info info) {
  const u64 row = (u64)blockIdx.x * 4 + threadIdx.x / 32;
  if (row >= info.b * info.heads * info.n) return;
  const u64 query = row % info.n, head = row / info.n % info.heads, batch = row / info.n / info.heads;
  const u64 at = ((batch * info.n + query) * info.heads + head) * D;
  float sum = 0.0f;
  for (int i = threadIdx.x % 32; i < D; i += 32) sum += out[at + i] * to_out[at + i];
#pragma unroll
  for (int distance = 16; distance; distance /= 2) sum += __shfl_xor_sync(0xffffffff, sum, distance);
  if (threadIdx.x % 32 == 0) deltas[row] = sum;
}

extern "C" __global__ __launch_bounds__(THREADS) void attention_to_query(
    const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    const float* __restrict__ bias, const float* __restrict__ to_out, const float* __restrict__ logs,
    const float* __restrict__ deltas, float* __restrict__ to_q, const __grid_constant__ Info info) {
  const Begin begin(info);
  const int n = (int)info.n, m = (int)info.m, first = blockIdx.x * SIDE;
  const u32 base = shared_address(shared);
  bias += blockIdx.z * info.bias_batch;
  load_tile(shared, q + begin.queries + first * begin.stride, begin.stride, n - first);
  load_tile(shared + TILE, to_out + begin.queries + first * begin.stride, begin.stride, n - first);
  float2 log_of[2];
  float delta[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int query = min(first + place_row() + half * 8, n - 1);
    log_of[half] = *(const float2*)(logs + 2 * (begin.logs + query));
    delta[half] = deltas[begin.logs + query];
  }
  Rows sums = {};
  for (int key = 0; key < m; key += SIDE) {
    __syncthreads();
    load_tile(shared + 2 * TILE, k + begin.keys + key * begin.stride, begin.stride, m - key);
    load_tile(shared + 3 * TILE, v + begin.keys + key * begin.stride, begin.stride, m - key);
    __syncthreads();
    Scores scores = {}, slopes = {};
    add_scores(scores, base, base + 2 * TILE);
    add_scores(slopes, base + TILE, base + 3 * TILE);
#pragma unroll
    for (int j = 0; j < SIDE / 8; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int half = e / 2, query = first + place_row() + half * 8, at = key + j * 8 + place_column() + e % 2;
        const float x = exponent(scores[j][e], bias, info, query, at);
        scores[j][e] = weight(x, log_of[half]) * (slopes[j][e] * dropout_of(info, query, at) - delta[half]);
      }
    }
    add_rows(sums, scores, base + 2 * TILE);
  }
  const float scale = from_bits(info.scale), factors[2] = {scale, scale};
  store_rows(to_q + begin.queries + first * begin.stride, sums, begin.stride, n - first, factors);
}

extern "C" __global__ __launch_bounds__(THREADS) void attention_to_keys(
    const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,
    const float* __restrict__ bias, const float* __restrict__ to_out, const float* __restrict__ logs,
    const float* __restrict__ deltas, float* __restrict__ to_k, float* __restrict__ to_v,
    const __grid_constant__ Info info) {
  const Begin begin(info);
  const int n = (int)info.n, m = (int)info.m, first = blockIdx.x * SIDE;
  const u32 base = shared_address(shared);
  float2* const log_of = (float2*)(shared + 4 * TILE);
  float* const delta = (float*)(log_of + SIDE);
  bias += blockIdx.z * info.bias_batch;
  load_tile(shared, k + begin.keys + first * begin.stride, begin.stride, m - first);
  load_tile(shared + TILE, v + begin.keys + first * begin.stride, begin.stride, m - first);
  Rows key_sums = {}, value_sums = {};
  for (int query = 0; query < n; query += SIDE) {
    __syncthreads();
    load_tile(shared + 2 * TILE, q + begin.queries + query * begin.stride, begin.stride, n - query);
    load_tile(shared + 3 * TILE, to_out + begin.queries + query * begin.stride, begin.stride, n - query);
    if (threadIdx.x < SIDE) {
      const u64 at = begin.logs + min(query + (int)threadIdx.x, n - 1);
      log_of[threadIdx.x] = *(const float2*)(logs + 2 * at);
      delta[threadIdx.x] = deltas[at];
    }
    __syncthreads();
    Scores scores = {}, slopes = {};
#if DROP
    Scores dropped;
#else
    Scores& dropped = scores;
#endif
    add_scores(scores, base, base + 2 * TILE);
#pragma unroll
    for (int j = 0; j < SIDE / 8; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int within = j * 8 + place_column() + e % 2, key = first + place_row() + e / 2 * 8;
        const float x = exponent(scores[j][e], bias, info, query + within, key);
        scores[j][e] = weight(x, log_of[within]);
#if DROP
        dropped[j][e] = scores[j][e] * dropout_of(info, query + within, key);
#endif
      }
    }
    add_rows(value_sums, dropped, base + 3 * TILE);
    add_scores(slopes, base + TILE, base + 3 * TILE);
#pragma unroll
    for (int j = 0; j < SIDE / 8; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const float shift = delta[j * 8 + place_column() + e % 2];
        // Weights times what dropout multiplied them by, times the gradient.
        scores[j][e] = dropped[j][e] * slopes[j][e] - scores[j][e] * shift;
      }
    }
    add_rows(key_sums, scores, base + 2 * TILE);
  }
  const float scale = from_bits(info.scale), factors[2] = {scale, scale}, ones[2] = {1.0f, 1.0f};
  store_rows(to_k + begin.keys + first * begin.stride, key_sums, begin.stride, m - first, factors);
  store_rows(to_v + begin.keys + first * begin.stride, value_sums, begin.stride, m - first, ones);
}
