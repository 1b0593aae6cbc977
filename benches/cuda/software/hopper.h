// In place of hopper.cu and of the text of wgmma.rs: products from tiles in shared memory, and copies of boxes, at once.

// Where a number of a tile lies: lines of 128 bytes, whose eight pieces are exchanged by the line's number.
inline float number_of_tile(u32 begin, int line, int column) {
  const u32 at = begin + line * 128 + column * 2;
  T x;
  memcpy(&x, shared + (at ^ (at >> 7 & 7) << 4), 2);
  return to_float(x);
}

inline u64 descriptor(u32 address) { return address; }
inline void wgmma_fence() {}
inline void wgmma_commit() {}
inline void hold(float (&)[BN / 2]) {}
template <int N> void wgmma_wait() {}
inline void fence_copies() {}
inline void barriers_are_ready() {}
template <int COUNT> void give_registers() {}
template <int COUNT> void take_registers() {}

// A thread's numbers of 64 rows by BN columns, from 16 of k. Kind 1: a line for each k, panels of 64 columns.
inline void wgmma(float (&d)[BN / 2], u64 a, u64 b) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  for (int half = 0; half < 2; half++) {
    const int row = warp * 16 + lane / 4 + half * 8;
    float left[16];
    for (int k = 0; k < 16; k++) left[k] = A_KIND == 1 ? number_of_tile(a, k, row) : number_of_tile(a, row, k);
    for (int j = 0; j < BN / 8; j++)
      for (int e = 0; e < 2; e++) {
        const int column = j * 8 + lane % 4 * 2 + e;
        float sum = d[j * 4 + half * 2 + e];
        for (int k = 0; k < 16; k++) {
          const float right = B_KIND == 1 ? number_of_tile(b + column / 64 * 8192, k, column % 64) : number_of_tile(b, column, k);
          sum += left[k] * right;
        }
        d[j * 4 + half * 2 + e] = sum;
      }
  }
}

// Arrivals and bytes that a phase still waits for.
struct Barrier {
  int bytes;
  unsigned char count, left, phase, unused;
};
inline Barrier& barrier_at(u32 address) { return *(Barrier*)(shared + address); }
inline void complete(Barrier& barrier) {
  if (barrier.left || barrier.bytes) return;
  barrier.phase ^= 1;
  barrier.left = barrier.count;
}
inline void barrier_init(u32 address, int arrivals) {
  barrier_at(address) = {0, (unsigned char)arrivals, (unsigned char)arrivals, 0, 0};
}
inline void arrive(u32 address) {
  barrier_at(address).left--;
  complete(barrier_at(address));
}
inline void expect(u32 address, int bytes) {
  barrier_at(address).bytes += bytes;
  arrive(address);
}
inline void await(u32 address, int parity) {
  while (barrier_at(address).phase == parity) let_others_run();
}

// As driver.c writes it: of each dimension, from the last one, how many numbers there are, how many a box has, and the
// bytes from one to the next.
struct alignas(64) Map {
  const unsigned char* begin;
  unsigned rank, size[4], box[4], swizzled;
  u64 stride[4];
};
static_assert(sizeof(Map) == 128, "a map's size");

inline void bring_box(u32 to, const Map& map, u32 barrier, const int (&at)[4]) {
  if (!map.swizzled || map.box[0] * 2 != 128 || to % 1024) { fprintf(stderr, "a box that wgmma cannot read\n"); abort(); }
  u32 written = 0;
  for (unsigned z = 0; z < map.box[3]; z++)
    for (unsigned y = 0; y < map.box[2]; y++)
      for (unsigned x = 0; x < map.box[1]; x++)
        for (unsigned i = 0; i < map.box[0]; i++, written += 2) {
          const int place[4] = {at[0] + (int)i, at[1] + (int)x, at[2] + (int)y, at[3] + (int)z};
          const unsigned char* from = map.begin;
          bool within = true;
          for (unsigned d = 0; d < 4; d++) {
            within = within && place[d] >= 0 && place[d] < (int)map.size[d];
            from += place[d] * (long long)map.stride[d];
          }
          const u32 target = to + written;
          T x16 = 0;
          if (within) memcpy(&x16, from, 2);
          memcpy(shared + (target ^ (target >> 7 & 7) << 4), &x16, 2);
        }
  barrier_at(barrier).bytes -= written;
  complete(barrier_at(barrier));
}
inline void bring(u32 to, const Map& map, u32 barrier, int x, int y, int batch) {
  bring_box(to, map, barrier, {x, y, batch, 0});
}
inline void bring(u32 to, const Map& map, u32 barrier, int channel, int x, int y, int picture) {
  bring_box(to, map, barrier, {channel, x, y, picture});
}
