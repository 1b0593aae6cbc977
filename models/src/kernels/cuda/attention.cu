// attention: out = softmax(q k^T * scale + bias) v for every batch and head, after FlashAttention-2 (Dao, 2023).
//
// q, out [b, n, heads*D]; k, v [b, m, heads*D]; bias f32 [1 or b, 1 or n, m]. Positions of q, k, v lie q_row, k_row,
// v_row numbers apart, batches n*q_row, m*k_row, m*v_row. These strides and D are multiples of 8, the buffers begin at
// multiples of 16 bytes, scale is positive.
//
// Defines: D, BIAS, ROWS (queries a block), KEYS (positions a step, a multiple of 16) and, if wished, WARP_ROWS
// (queries a warp, 16 or 32; 16 if absent). Grid (ceil(n / ROWS), heads, b), block ROWS / WARP_ROWS * 32.
// Shared bytes: (4 * KEYS + (D * WARP_ROWS > 2048 ? ROWS : 0)) * (32 * ceil(D / 16) + 16); where D * WARP_ROWS <= 2048
// ROWS must be at most 2 * KEYS.

#ifndef WARP_ROWS
#define WARP_ROWS 16
#endif

constexpr int THREADS = ROWS / WARP_ROWS * 32;
constexpr int TILES = WARP_ROWS / 16;      // matrices of 16 queries a warp
constexpr int DEPTH = (D + 15) / 16;       // steps of 16 numbers along a head in q k^T
constexpr int EIGHTS = D / 8;              // blocks of 8 numbers of a head: one copy of 16 bytes, 8 columns of out
constexpr int PITCH = 32 * DEPTH + 16;     // bytes a row; an odd number of 16 bytes keeps ldmatrix free of conflicts
constexpr int TILE = KEYS * PITCH;
constexpr bool KEEP = D * WARP_ROWS <= 2048;  // q stays in registers, its place in shared memory is the second stage's
constexpr u32 STAGE = 2 * TILE;            // k, then v
constexpr u32 QUERIES = KEEP ? STAGE : 2 * STAGE;
constexpr int SHARED_ROWS = 4 * KEYS + (KEEP ? 0 : ROWS);
// Numbers a thread holds all the time, and as many warps a scheduler as they and some 40 others leave room for.
constexpr int HELD = TILES * (4 * EIGHTS + KEYS / 2 + (KEEP ? 4 * DEPTH : 0));
constexpr int WARPS = 512 / (HELD + 20 + 16 * TILES + 12 * BIAS);
constexpr int BLOCKS = WARPS * 128 / THREADS > 1 ? WARPS * 128 / THREADS : 1;

static_assert(D % 8 == 0 && D <= 256 && KEYS % 16 == 0 && ROWS % WARP_ROWS == 0, "sizes");
static_assert(!KEEP || ROWS <= 2 * KEYS, "q must fit the second stage");

extern __shared__ __align__(1024) unsigned char shared[];

struct Info {
  u64 n, m, heads, q_row, k_row, v_row, scale, bias_batch, bias_row;
};

// Below every logit, yet finite: a difference of two of them is no NaN.
constexpr float LOWEST = -1e30f;

// COUNT rows of one head, zeros from row `rows` on.
template <int COUNT> DEVICE void copy_rows(u32 to, const T* from, u32 stride, int rows) {
#pragma unroll
  for (u32 i = 0; i < (COUNT * EIGHTS + THREADS - 1) / THREADS; i++) {
    u32 index = threadIdx.x + i * THREADS;
    if (COUNT * EIGHTS % THREADS == 0 || index < COUNT * EIGHTS) {
      u32 row = index / EIGHTS, eight = index % EIGHTS;
      copy_async(to + row * PITCH + eight * 16, from + (u64)(row * stride) + eight * 8, (int)row < rows);
    }
  }
}

// Over the four lanes that share a row of an accumulator.
DEVICE float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
DEVICE float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffff, x, 1);
  return x + __shfl_xor_sync(0xffffffff, x, 2);
}

extern "C" __global__ __launch_bounds__(THREADS, BLOCKS) void attention(
    const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, const float* __restrict__ bias,
    T* __restrict__ out, const __grid_constant__ Info info) {
  const int n = (int)info.n, m = (int)info.m;
  const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const u64 batch = blockIdx.z, head = blockIdx.y * D;
  const int first = blockIdx.x * ROWS;
  const float scale = from_bits(info.scale);
  const float exponent = scale * 1.44269504f;  // exp(scale x) = 2^(exponent x)
  const u32 q_row = (u32)info.q_row, k_row = (u32)info.k_row, v_row = (u32)info.v_row;
  q += (batch * n + first) * q_row + head;
  k += batch * m * k_row + head;
  v += batch * m * v_row + head;
  bias += batch * info.bias_batch;

  // Lane by lane: where ldmatrix begins. Matrices of q: queries 0-7, 8-15 of columns 0-7, then of columns 8-15;
  // of k: columns 0-7, 8-15 of positions 0-7, then of positions 8-15; of v: as q.
  const u32 base = shared_address(shared);
  const u32 q_at = base + QUERIES + (warp * WARP_ROWS + lane % 16) * PITCH + lane / 16 * 16;
  const u32 k_lane = (lane / 16 * 8 + lane % 8) * PITCH + lane / 8 % 2 * 16;
  const u32 v_lane = TILE + lane % 16 * PITCH + lane / 16 * 16;
  // Its places in an accumulator: rows `row` and `row + 8`, columns `column` and `column + 1`.
  const int row = lane / 4, column = lane % 4 * 2;

  if (D % 16) {  // the copies never touch these columns
    for (u32 i = threadIdx.x; i < SHARED_ROWS; i += THREADS) *(uint4*)(shared + i * PITCH + D * 2) = uint4{0, 0, 0, 0};
  }
  copy_rows<ROWS>(base + QUERIES, q, q_row, n - first);
  copy_rows<KEYS>(base, k, k_row, m);
  copy_rows<KEYS>(base + TILE, v, v_row, m);
  commit();

  u32 queries[TILES][KEEP ? DEPTH : 1][4];
  if (KEEP) {
    wait<0>();
    __syncthreads();
#pragma unroll
    for (int t = 0; t < TILES; t++) {
#pragma unroll
      for (int d = 0; d < (KEEP ? DEPTH : 0); d++) load_matrix(queries[t][d], q_at + t * 16 * PITCH + d * 32);
    }
  }

  float sums[TILES][EIGHTS][4] = {};  // of exp(logit - highest) v
  float total[TILES][2] = {};         // of exp(logit - highest), over this lane's columns alone
  float highest[TILES][2];            // of the logits so far, before the scale
#pragma unroll
  for (int t = 0; t < TILES; t++) highest[t][0] = highest[t][1] = LOWEST;

#pragma unroll 1
  for (int begin = 0; begin < m; begin += KEYS) {
    // All copies have come, and no warp still reads what the next ones replace.
    wait<0>();
    __syncthreads();
    const u32 stage = base + (begin / KEYS % 2) * STAGE, next = base + STAGE - (stage - base);
    if (begin + KEYS < m) {
      k += KEYS * (u64)k_row;
      v += KEYS * (u64)v_row;
      copy_rows<KEYS>(next, k, k_row, m - begin - KEYS);
      copy_rows<KEYS>(next + TILE, v, v_row, m - begin - KEYS);
      commit();
    }

    float logits[TILES][KEYS / 8][4] = {};
#if BIAS
    // The sums begin with bias / scale. Minus infinity counts as LOWEST: a row of nothing else gives the mean of v.
    const float unit = 1.0f / scale;
#pragma unroll
    for (int t = 0; t < TILES; t++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        int query = min(first + (int)warp * WARP_ROWS + t * 16 + half * 8 + row, n - 1);
        const float* from = bias + query * info.bias_row + (begin + column);
        const int left = m - begin - column;
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
          for (int e = 0; e < 2; e++) {
            if (j * 8 + e < left) logits[t][j][half * 2 + e] = fmaxf(from[j * 8 + e] * unit, LOWEST);
          }
        }
      }
    }
#endif

#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
      if (!KEEP) {
#pragma unroll
        for (int t = 0; t < TILES; t++) load_matrix(queries[t][0], q_at + t * 16 * PITCH + d * 32);
      }
#pragma unroll
      for (int j = 0; j < KEYS / 16; j++) {
        u32 keys[4];
        load_matrix(keys, stage + k_lane + j * 16 * PITCH + d * 32);
#pragma unroll
        for (int t = 0; t < TILES; t++) {
          multiply(logits[t][2 * j], queries[t][KEEP ? d : 0], keys[0], keys[1]);
          multiply(logits[t][2 * j + 1], queries[t][KEEP ? d : 0], keys[2], keys[3]);
        }
      }
    }

    if (begin + KEYS > m) {
#pragma unroll
      for (int t = 0; t < TILES; t++) {
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
          for (int e = 0; e < 4; e++) {
            if (j * 8 + e % 2 >= m - begin - column) logits[t][j][e] = -__int_as_float(0x7f800000);
          }
        }
      }
    }

    // Logits become exp(logit - highest); what was summed under a lower maximum is scaled down.
#pragma unroll
    for (int t = 0; t < TILES; t++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float top = highest[t][half];
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) {
          top = fmaxf(top, fmaxf(logits[t][j][2 * half], logits[t][j][2 * half + 1]));
        }
        top = row_max(top);
        const float shrink = power_of_two((highest[t][half] - top) * exponent);
        const float offset = -top * exponent;  // one operation less, but its rounding is huge where top is LOWEST
        highest[t][half] = top;
        total[t][half] *= shrink;
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++) {
          float& left = logits[t][j][2 * half];
          float& right = logits[t][j][2 * half + 1];
          left = power_of_two(BIAS ? (left - top) * exponent : fmaf(left, exponent, offset));
          right = power_of_two(BIAS ? (right - top) * exponent : fmaf(right, exponent, offset));
          total[t][half] += left + right;
        }
#pragma unroll
        for (int d = 0; d < EIGHTS; d++) {
          sums[t][d][2 * half] *= shrink;
          sums[t][d][2 * half + 1] *= shrink;
        }
      }
    }

    // The accumulators of two blocks of 8 positions are, rounded, the left factor of 16 positions.
#pragma unroll
    for (int j = 0; j < KEYS / 16; j++) {
      u32 weights[TILES][4];
#pragma unroll
      for (int t = 0; t < TILES; t++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const float* pair = &logits[t][2 * j + e / 2][e % 2 * 2];
          weights[t][e] = pack(pair[0], pair[1]);
        }
      }
#pragma unroll
      for (int d = 0; d + 1 < EIGHTS; d += 2) {
        u32 values[4];
        load_matrix_transposed(values, stage + v_lane + j * 16 * PITCH + d * 16);
#pragma unroll
        for (int t = 0; t < TILES; t++) {
          multiply(sums[t][d], weights[t], values[0], values[1]);
          multiply(sums[t][d + 1], weights[t], values[2], values[3]);
        }
      }
      if (EIGHTS % 2) {
        u32 values[2];
        load_pair_transposed(values, stage + v_lane + j * 16 * PITCH + (EIGHTS - 1) * 16);
#pragma unroll
        for (int t = 0; t < TILES; t++) multiply(sums[t][EIGHTS - 1], weights[t], values[0], values[1]);
      }
    }
  }

#pragma unroll
  for (int t = 0; t < TILES; t++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int query = first + warp * WARP_ROWS + t * 16 + half * 8 + row;
      const float whole = row_sum(total[t][half]), inverse = whole == 0.0f ? 0.0f : 1.0f / whole;
      T* to = out + (batch * n + query) * (info.heads * D) + head + column;
      if (query < n) {
#pragma unroll
        for (int d = 0; d < EIGHTS; d++) {
          *(u32*)(to + d * 8) = pack(sums[t][d][2 * half] * inverse, sums[t][d][2 * half + 1] * inverse);
        }
      }
    }
  }
}
