// out = activation(a b + bias) + residual, also as a 3x3 convolution over channels-last pictures, whose rows of `a` are
// gathered where they lie (implicit product).
//
// A block of 8 warps makes BM x BN numbers of the output from tiles of BM x 64 and 64 x BN that copies keep
// bringing into a ring of STAGES. In shared memory rows have 128 bytes, whose eight pieces of 16 bytes are
// exchanged by the row's number, the pattern that ldmatrix reads without conflicts and that wgmma calls the
// swizzle of 128 bytes. On Hopper a group of four warps multiplies 64 rows by `wgmma`, and where sizes allow (TMA)
// one thread more has the card's copy engine bring the tiles; elsewhere a warp multiplies 64 rows and a quarter of the
// columns by `mma.sync`.

#define DEPTH 64
// BLOCKS is how many a multiprocessor holds at a time, as its shared memory and, of two, 128 registers a thread allow.
#define THREADS 256
#define STAGE ((BM + BN) * 128)

// Tiles in flight beyond the one at work. `wgmma` of the last step may still be reading its tile.
#define AHEAD (WGMMA ? STAGES - 2 : STAGES - 1)

// Threads that have tiles brought: one does. A whole group of four warps can pass its registers on.
#define BRINGING (!TMA ? 0 : BLOCKS == 2 ? 32 : 128)

#define ROWS_AS_GIVEN 0  // a: [m, k];  b: [n, k]
#define TRANSPOSED 1     // a: [k, m];  b: [k, n]
#define CONVOLUTION 2    // a: [b, h, w, cin], k counts (ky, kx, channel)

#define GATE 6

struct Info {
  u64 m, n, k;
  // From one row of what is given to the next, and from one of a batch to the next.
  u64 lda, ldb, batch_a, batch_b, batch_out;
  // 0: one bias for all rows.
  u64 rows_per_bias;
  u64 k_per_split;
  u64 h, w, cin, out_pixels, wo, stride, pad, kw;
  u64 splits;
};

// Columns of the output that a tile makes.
#define OUT (ACT == GATE ? BN / 2 : BN)

// Which column of b is column `c` of a tile: where the second half gates the first, a tile has as many of each.
DEVICE int column_of_b(int tile, int c, int n) {
  if (ACT != GATE) return tile * BN + c;
  int column = tile * (BN / 2) + c % (BN / 2);
  if (column >= n / 2) return n;
  return c < BN / 2 ? column : n / 2 + column;
}

// The piece at a row of 128 bytes.
DEVICE u32 piece(int row, int index) { return row * 128 + ((index ^ (row & 7)) << 4); }

#if !TMA
// Eight numbers, of which those are read that `at` finds, into shared memory.
template <class At> DEVICE void gather(u32 to, At at) {
  u32 both[4];
#pragma unroll
  for (int i = 0; i < 4; i++) both[i] = (u32)at(2 * i) | (u32)at(2 * i + 1) << 16;
  store_shared(to, both);
}

// A tile of an operand that is given in rows of k: SIZE rows, a thread copying one piece of every 32nd.
template <int SIZE, class RowOf>
DEVICE void load_rows(u32 to, const T* from, long long ld, int k0, int k_end, int limit, RowOf row_of) {
  int index = threadIdx.x & 7, first = threadIdx.x >> 3;
  int k = k0 + index * 8;
#pragma unroll
  for (int i = 0; i < SIZE / 32; i++) {
    int local = first + i * 32;
    int row = row_of(local);
    bool valid = row < limit && k < k_end;
    const T* source = from + (valid ? (long long)row * ld + k : 0);
#if VECTOR
    copy_async(to + piece(local, index), source, valid);
#else
    gather(to + piece(local, index), [&](int j) { return valid && k + j < k_end ? source[j] : (T)0; });
#endif
  }
}

// A tile of an operand that is given in rows of m or n: panels of 64 columns, each with a row for each k.
template <int SIZE, class ColumnOf>
DEVICE void load_transposed(u32 to, const T* from, long long ld, int k0, int k_end, int limit, ColumnOf column_of) {
  int index = threadIdx.x & 7, first = threadIdx.x >> 3;
#pragma unroll
  for (int i = 0; i < SIZE / 32; i++) {
    int row = first + (i & 1) * 32, panel = i >> 1;
    int k = k0 + row;
    int column = column_of(panel * 64 + index * 8);
    bool valid = k < k_end && column < limit;
    const T* source = from + (valid ? (long long)k * ld + column : 0);
    u32 target = to + panel * 8192 + piece(row, index);
#if VECTOR
    copy_async(target, source, valid);
#else
    // Where columns gate others, those of a piece lie together all the same.
    int end = ACT == GATE && column < limit / 2 ? limit / 2 : limit;
    gather(target, [&](int j) { return valid && column + j < end ? source[j] : (T)0; });
#endif
  }
}

#if A_KIND == CONVOLUTION
// The output pixels whose rows a thread copies, and where in k it is.
struct Gather {
  int y[BM / 32], x[BM / 32], picture[BM / 32];
  int channel, ky, kx;

  DEVICE void start(const Info& info, int row0, int k0) {
    int first = threadIdx.x >> 3;
#pragma unroll
    for (int i = 0; i < BM / 32; i++) {
      int row = row0 + first + i * 32;
      int sample = row / (int)info.out_pixels, pixel = row - sample * (int)info.out_pixels;
      int oy = pixel / (int)info.wo, ox = pixel - oy * (int)info.wo;
      // A row beyond the last lies outside of every picture.
      y[i] = row < (int)info.m ? oy * (int)info.stride - (int)info.pad : -(1 << 20);
      x[i] = ox * (int)info.stride - (int)info.pad;
      picture[i] = sample * (int)(info.h * info.w);
    }
    int k = k0 + (threadIdx.x & 7) * 8;
    int tap = k / (int)info.cin;
    channel = k - tap * (int)info.cin;
    ky = tap / (int)info.kw;
    kx = tap - ky * (int)info.kw;
  }

  // 64 numbers of k on.
  DEVICE void advance(const Info& info) {
    channel += DEPTH;
    while (channel >= (int)info.cin) {
      channel -= (int)info.cin;
      if (++kx == (int)info.kw) { kx = 0; ky++; }
    }
  }

  DEVICE void load(u32 to, const T* from, const Info& info, int k0, int k_end) {
    int index = threadIdx.x & 7, first = threadIdx.x >> 3;
    int k = k0 + index * 8;
#pragma unroll
    for (int i = 0; i < BM / 32; i++) {
      u32 target = to + piece(first + i * 32, index);
#if VECTOR
      int yy = y[i] + ky, xx = x[i] + kx;
      bool valid = k < k_end && (u32)yy < (u32)info.h && (u32)xx < (u32)info.w;
      long long at = (long long)(picture[i] + yy * (int)info.w + xx) * (int)info.cin + channel;
      copy_async(target, from + (valid ? at : 0), valid);
#else
      gather(target, [&](int j) {
        int tap = (k + j) / (int)info.cin, c = (k + j) - tap * (int)info.cin;
        int yy = y[i] + tap / (int)info.kw, xx = x[i] + tap % (int)info.kw;
        bool valid = k + j < k_end && (u32)yy < (u32)info.h && (u32)xx < (u32)info.w;
        return valid ? from[(long long)(picture[i] + yy * (int)info.w + xx) * (int)info.cin + c] : (T)0;
      });
#endif
    }
    advance(info);
  }
};
#endif
#endif

#if WGMMA
// From 16 numbers of k to the next.
#define STEP_A (A_KIND == TRANSPOSED ? 2048 : 32)
#define STEP_B (B_KIND == TRANSPOSED ? 2048 : 32)

// Blocks of 16 rows and of 8 columns that a warp has.
#define ROW_BLOCKS 1
#define COLUMN_BLOCKS (BN / 8)
DEVICE int row_of(int block) { return (threadIdx.x / 32) * 16; }
DEVICE int column_of(int block) { return block * 8; }

DEVICE void multiply_tile(float (&d)[BN / 2], u32 a, u32 b) {
  a += (threadIdx.x / 128) * 8192;
#pragma unroll
  for (int step = 0; step < DEPTH / 16; step++)
    wgmma(d, descriptor(a + step * STEP_A), descriptor(b + step * STEP_B));
}
#else
#define ROW_BLOCKS 4
#define COLUMN_BLOCKS (BN / 32)
DEVICE int row_of(int block) { return (threadIdx.x / 128) * 64 + block * 16; }
// Every fourth block: a column and the one that gates it are the same warp's.
DEVICE int column_of(int block) { return (block * 4 + (threadIdx.x / 32) % 4) * 8; }

DEVICE void multiply_tile(float (&d)[BN / 2], u32 a, u32 b) {
  int lane = threadIdx.x % 32, matrix = lane / 8, line = lane % 8;
#pragma unroll
  for (int step = 0; step < DEPTH / 16; step++) {
    u32 left[ROW_BLOCKS][4];
#pragma unroll
    for (int i = 0; i < ROW_BLOCKS; i++) {
#if A_KIND == TRANSPOSED
      int k = step * 16 + matrix / 2 * 8 + line, m = row_of(i) + matrix % 2 * 8;
      load_matrix_transposed(left[i], a + m / 64 * 8192 + piece(k, m % 64 / 8));
#else
      load_matrix(left[i], a + piece(row_of(i) + lane % 16, step * 2 + lane / 16));
#endif
    }
#pragma unroll
    for (int j = 0; j < COLUMN_BLOCKS; j += 2) {
      u32 right[4];
      int n = column_of(j + matrix / 2);
#if B_KIND == TRANSPOSED
      int k = step * 16 + matrix % 2 * 8 + line;
      load_matrix_transposed(right, b + n / 64 * 8192 + piece(k, n % 64 / 8));
#else
      load_matrix(right, b + piece(n + line, step * 2 + matrix % 2));
#endif
#pragma unroll
      for (int i = 0; i < ROW_BLOCKS; i++) {
        multiply(d + (i * COLUMN_BLOCKS + j) * 4, left[i], right[0], right[1]);
        multiply(d + (i * COLUMN_BLOCKS + j + 1) * 4, left[i], right[2], right[3]);
      }
    }
  }
}
#endif

#if TMA
// A step's tiles, by one thread.
DEVICE void bring_tiles(u32 to, u32 barrier, const Map& a, const Map& b, const Info& info, int row0, int tile, int k) {
  expect(barrier, STAGE);
#if A_KIND == CONVOLUTION
  // A tile is a box of pixels, and 64 channels of one tap.
  int cin = info.cin, tap = k / cin, ky = tap / (int)info.kw, kx = tap - ky * (int)info.kw;
  int picture = row0 / (int)info.out_pixels, pixel = row0 - picture * (int)info.out_pixels;
  int y = pixel / (int)info.wo, x = pixel - y * (int)info.wo;
  bring(to, a, barrier, k - tap * cin, x + kx - (int)info.pad, y + ky - (int)info.pad, picture);
#elif A_KIND == TRANSPOSED
  for (int panel = 0; panel < BM / 64; panel++) bring(to + panel * 8192, a, barrier, row0 + panel * 64, k, blockIdx.z);
#else
  bring(to, a, barrier, k, row0, blockIdx.z);
#endif
  to += BM * 128;
  // A batch of b's size one serves every batch.
  int batch = info.batch_b ? blockIdx.z : 0;
#if B_KIND == TRANSPOSED
  for (int panel = 0; panel < BN / 64; panel++)
    bring(to + panel * 8192, b, barrier, column_of_b(tile, panel * 64, info.n), k, batch);
#elif ACT == GATE
  for (int half = 0; half < 2; half++)
    bring(to + half * BN * 64, b, barrier, k, column_of_b(tile, half * BN / 2, info.n), batch);
#else
  bring(to, b, barrier, k, column_of_b(tile, 0, info.n), batch);
#endif
}
#endif
