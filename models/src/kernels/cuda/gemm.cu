// The product itself, of the tiles that tiles.cu brings and multiplies.

// x times the normal distribution's function, of an erf whose error is below 1.5e-7 (Abramowitz and Stegun 1964,
// 7.1.26): what 16 bits hold, in half the instructions of erff.
DEVICE float gelu(float x) {
  float z = fabsf(x) * 0.70710678f, t = __fdividef(1.0f, 1.0f + 0.3275911f * z);
  float sum = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
  float tail = 0.5f * sum * __expf(-z * z);
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

DEVICE u32 sum(u32 x, u32 y) { return pack(low(x) + low(y), high(x) + high(y)); }

// Where the biases of a row begin; rows beyond the last have the last one's.
DEVICE int bias_line(const Info& info, int row) {
  return (BIAS || WIDE_BIAS) && info.rows_per_bias ? min(row, (int)info.m - 1) / (int)info.rows_per_bias * (int)info.n : 0;
}
// Read even where a column lies beyond the last and nothing is made of it: no load waits for a branch.
DEVICE float bias_at(const T* bias, const Info& info, int line, int column) {
  return BIAS ? to_float(bias[line + min(column, (int)info.n - 1)]) : 0.0f;
}

extern "C" __global__ void __launch_bounds__(THREADS + BRINGING, BLOCKS)
gemm(
#if TMA
     const __grid_constant__ Map a_map, const __grid_constant__ Map b_map,
#endif
     const T* __restrict__ a, const T* __restrict__ b, const T* __restrict__ bias, const T* __restrict__ residual,
     T* __restrict__ out, float* __restrict__ partial,
#if TMA
     // Named once more among the buffers, on which alone cubecl waits where another stream fills them.
     const T*, const T*,
#endif
     const __grid_constant__ Info info) {
  extern __shared__ __align__(1024) unsigned char shared[];
  u32 ring = (shared_address(shared) + 1023) & ~1023u;
  int m = info.m, n = info.n;
  int rows = (m + BM - 1) / BM, n_out = ACT == GATE ? n / 2 : n, columns = (n_out + OUT - 1) / OUT;

  // Blocks that run at a time take eight lines of tiles: what they read of a and b stays in the cache.
  int together = 8 * columns, group = blockIdx.x / together, within = blockIdx.x % together;
  int lines = min(8, rows - group * 8);
  int tile_row = group * 8 + within % lines, tile = within / lines;
  int row0 = tile_row * BM;

  int k_begin = SPLIT ? blockIdx.y * (int)info.k_per_split : 0;
  int k_end = SPLIT ? min((int)info.k, k_begin + (int)info.k_per_split) : (int)info.k;
  int steps = (k_end - k_begin + DEPTH - 1) / DEPTH;

  float d[BN / 2];
#pragma unroll
  for (int i = 0; i < BN / 2; i++) d[i] = 0.0f;
#if TMA
  u32 full = ring + STAGES * STAGE, empty = full + STAGES * 8;
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + i * 8, 1);
      barrier_init(empty + i * 8, THREADS / 128);
    }
    barriers_are_ready();
  }
  __syncthreads();
  if (threadIdx.x >= THREADS) {
    if (BRINGING == 128) give_registers<24>();
    if (threadIdx.x == THREADS)
      for (int step = 0; step < steps; step++) {
        int at = step % STAGES;
        if (step >= STAGES) await(empty + at * 8, (step / STAGES - 1) & 1);
        bring_tiles(ring + at * STAGE, full + at * 8, a_map, b_map, info, row0, tile, k_begin + step * DEPTH);
      }
    return;
  }
  if (BRINGING == 128) take_registers<240>();
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    int at = step % STAGES;
    await(full + at * 8, step / STAGES & 1);
    hold(d);
    wgmma_fence();
    multiply_tile(d, ring + at * STAGE, ring + at * STAGE + BM * 128);
    wgmma_commit();
    wgmma_wait<1>();
    if (step > 0 && threadIdx.x % 128 == 0) arrive(empty + (step - 1) % STAGES * 8);
  }
  wgmma_wait<0>();
  hold(d);
#else
  a += (long long)blockIdx.z * info.batch_a;
  b += (long long)blockIdx.z * info.batch_b;
#if A_KIND == CONVOLUTION
  Gather pixels;
  pixels.start(info, row0, k_begin);
#endif
  auto load = [&](int step) {
    if (step < steps) {
      u32 to = ring + step % STAGES * STAGE;
      int k = k_begin + step * DEPTH;
#if A_KIND == CONVOLUTION
      pixels.load(to, a, info, k, k_end);
#elif A_KIND == TRANSPOSED
      load_transposed<BM>(to, a, info.lda, k, k_end, m, [&](int c) { return row0 + c; });
#else
      load_rows<BM>(to, a, info.lda, k, k_end, m, [&](int r) { return row0 + r; });
#endif
#if B_KIND == TRANSPOSED
      load_transposed<BN>(to + BM * 128, b, info.ldb, k, k_end, n, [&](int c) { return column_of_b(tile, c, n); });
#else
      load_rows<BN>(to + BM * 128, b, info.ldb, k, k_end, n, [&](int c) { return column_of_b(tile, c, n); });
#endif
    }
    commit();
  };

  for (int step = 0; step < AHEAD; step++) load(step);
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    wait<AHEAD - 1>();
#if WGMMA
    fence_copies();
#endif
    __syncthreads();
    u32 at = ring + step % STAGES * STAGE;
#if WGMMA
    hold(d);
    wgmma_fence();
    multiply_tile(d, at, at + BM * 128);
    wgmma_commit();
    load(step + AHEAD);
    wgmma_wait<1>();
#else
    load(step + AHEAD);
    multiply_tile(d, at, at + BM * 128);
#endif
  }
#if WGMMA
  wgmma_wait<0>();
  hold(d);
#endif
  wait<0>();
#endif

  int lane = threadIdx.x % 32, row_within = lane / 4, column_within = lane % 4 * 2;
#if SPLIT
  // Sums of a part of k; `finish` adds them. Of all of k: the output, in 32 bits as its bias.
  partial += (long long)(blockIdx.z * info.splits + blockIdx.y) * m * n;
#pragma unroll
  for (int i = 0; i < ROW_BLOCKS; i++)
#pragma unroll
    for (int j = 0; j < COLUMN_BLOCKS; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        int row = row0 + row_of(i) + row_within + e / 2 * 8;
        int column = column_of_b(tile, column_of(j) + column_within + e % 2, n);
        if (row >= m || column >= n) continue;
        float x = d[(i * COLUMN_BLOCKS + j) * 4 + e];
        if (WIDE_BIAS) x += ((const float*)bias)[bias_line(info, row) + column];
        partial[(long long)row * n + column] = x;
      }
#else
  // Through shared memory, so that whole lines are written.
  meet<THREADS>();
#define PITCH (OUT + 8)
  int lines_of_bias[ROW_BLOCKS][2];
#pragma unroll
  for (int i = 0; i < ROW_BLOCKS; i++)
    for (int half = 0; half < 2; half++)
      lines_of_bias[i][half] = bias_line(info, row0 + row_of(i) + row_within + half * 8);
  T* staged = (T*)(shared + (ring - shared_address(shared)));
#pragma unroll
  for (int i = 0; i < ROW_BLOCKS; i++)
#pragma unroll
    for (int j = 0; j < (ACT == GATE ? COLUMN_BLOCKS / 2 : COLUMN_BLOCKS); j++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        int local = row_of(i) + row_within + half * 8, c = column_of(j) + column_within;
        int line = lines_of_bias[i][half];
        float x[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
          int column = column_of_b(tile, c + e, n);
          x[e] = d[(i * COLUMN_BLOCKS + j) * 4 + half * 2 + e] + bias_at(bias, info, line, column);
#if ACT == GATE
          float gate = d[(i * COLUMN_BLOCKS + j + COLUMN_BLOCKS / 2) * 4 + half * 2 + e];
          x[e] *= gelu(gate + bias_at(bias, info, line, column + n / 2));
#else
          x[e] = activated(x[e]);
#endif
        }
        *(u32*)(staged + local * PITCH + c) = pack(x[0], x[1]);
      }
  meet<THREADS>();
  int column0 = tile * OUT;
  for (int i = threadIdx.x; i < BM * OUT / 8; i += THREADS) {
    int local = i / (OUT / 8), c = i % (OUT / 8) * 8;
    int row = row0 + local, column = column0 + c;
    if (row >= m || column >= n_out) continue;
    long long at = (long long)blockIdx.z * info.batch_out + (long long)row * n_out + column;
    const T* from = staged + local * PITCH + c;
    if (n_out % 8 == 0) {
      uint4 eight = *(const uint4*)from;
#if RESIDUAL
      uint4 others = *(const uint4*)(residual + at);
      eight.x = sum(eight.x, others.x);
      eight.y = sum(eight.y, others.y);
      eight.z = sum(eight.z, others.z);
      eight.w = sum(eight.w, others.w);
#endif
      *(uint4*)(out + at) = eight;
    } else
      for (int e = 0; e < min(8, n_out - column); e++)
        out[at + e] = RESIDUAL ? from_float(to_float(from[e]) + to_float(residual[at + e])) : from[e];
  }
#endif
}

// Adds the parts of the sums, then bias and activation.
extern "C" __global__ void __launch_bounds__(THREADS)
finish(const float* __restrict__ partial, const T* __restrict__ bias, const T* __restrict__ residual,
       T* __restrict__ out, const __grid_constant__ Info info) {
  int n = info.n, n_out = ACT == GATE ? n / 2 : n;
  long long size = (long long)info.m * n, at = (long long)blockIdx.x * THREADS + threadIdx.x;
  partial += (long long)blockIdx.z * info.splits * size;
  if (at >= (long long)info.m * n_out) return;
  int row = at / n_out, column = at - (long long)row * n_out, line = bias_line(info, row);
  auto sum = [&](int column) {
    const float* part = partial + (long long)row * n + column;
    float x = 0.0f;
    for (int split = 0; split < (int)info.splits; split += 8) {
      // Eight at a time: each would wait for the one before.
      float parts[8];
#pragma unroll
      for (int i = 0; i < 8; i++) parts[i] = split + i < (int)info.splits ? part[(split + i) * size] : 0.0f;
#pragma unroll
      for (int i = 0; i < 8; i++) x += parts[i];
    }
    return x + bias_at(bias, info, line, column);
  };
  float x = sum(column);
#if ACT == GATE
  x *= gelu(sum(column + n / 2));
#else
  x = activated(x);
#endif
  long long to = (long long)blockIdx.z * info.batch_out + at;
  // Rounded in between, as where one block has the whole sum.
  if (RESIDUAL) x = to_float(from_float(x)) + to_float(residual[to]);
  out[to] = from_float(x);
}
