// What the kernels of this folder share: 32-bit numbers, of which factors of products are rounded to 16 bits. All are bound
// by memory or by the launch. Nothing is added by atomics, so that two runs give the same sums.

struct Info {
  u64 rows, c, chunk, count, groups, epsilon;
  u64 rate, beta_1, beta_2, shrink, by_first, by_second;
  u64 h, w, out_h, out_w, step, before;
  u64 key, dropped, keep;
};

DEVICE float warp_sum(float x) {
#pragma unroll
  for (int distance = 16; distance; distance /= 2) x += __shfl_xor_sync(0xffffffff, x, distance);
  return x;
}

DEVICE float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }

// The derivative of x sigmoid(u), where u has the derivative v.
DEVICE float logistic_slope(float x, float u, float v) {
  const float s = sigmoid(u);
  return s * (1.0f + x * v * (1.0f - s));
}
// The derivative of the activation.
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

// A thread's column where a block has 32 of them and a line of 8 rows.
DEVICE u64 column_of_thread() { return (u64)blockIdx.x * 32 + threadIdx.x % 32; }

// Sums columns of the rows from `begin` to `end`: `add` adds what a row's number gives to N sums, which become N lines of
// `sums`, those of this block's chunk (blockIdx.y).
template <int N, class Add>
DEVICE void sum_columns(float* sums, const Info& info, u64 begin, u64 end, Add add) {
  __shared__ float parts[N][8][32];
  const int lane = threadIdx.x % 32, line = threadIdx.x / 32;
  const u64 column = column_of_thread();
  float mine[N] = {};
  if (column < info.c) {
#pragma unroll 4
    for (u64 row = begin + line; row < end; row += 8) add(row * info.c + column, row, mine);
  }
#pragma unroll
  for (int n = 0; n < N; n++) parts[n][line][lane] = mine[n];
  __syncthreads();
  if (line < N && column < info.c) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) sum += parts[line][i][lane];
    sums[(blockIdx.y * N + line) * info.c + column] = sum;
  }
}

