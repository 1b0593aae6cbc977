// What the text that burn makes of its own kernels needs beyond emulation.h.

#include "emulation.h"

#define __shared__
#define __align__(bytes) __attribute__((aligned(bytes)))

struct uint3 { unsigned x, y, z; };
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
static const unsigned warpSize = 32;

struct __nv_bfloat16 {
  T bits;
  __nv_bfloat16() {}
  __nv_bfloat16(float x) : bits(from_float(x)) {}
  operator float() const { return to_float(bits); }
};
struct __half {
  _Float16 number;
  __half() {}
  __half(float x) : number(x) {}
  operator float() const { return number; }
};

template <class Half> struct Pair {
  Half x, y;
  friend Pair operator+(Pair a, Pair b) { return {(float)a.x + b.x, (float)a.y + b.y}; }
  friend Pair operator-(Pair a, Pair b) { return {(float)a.x - b.x, (float)a.y - b.y}; }
  friend Pair operator*(Pair a, Pair b) { return {(float)a.x * b.x, (float)a.y * b.y}; }
  friend Pair operator/(Pair a, Pair b) { return {(float)a.x / b.x, (float)a.y / b.y}; }
};
struct __half2 : Pair<__half> {
  __half2() {}
  __half2(Pair<__half> pair) : Pair(pair) {}
};
struct __nv_bfloat162 : Pair<__nv_bfloat16> {
  __nv_bfloat162() {}
  __nv_bfloat162(Pair<__nv_bfloat16> pair) : Pair(pair) {}
};

inline unsigned __umulhi(unsigned x, unsigned y) { return (u64)x * y >> 32; }
template <class N> N atomicAdd(N* at, N x) {
  const N before = *at;
  *at = before + x;
  return before;
}
inline void __syncwarp(unsigned = 0) { together([](Warp&) {}); }

// What the lane `from` gives.
template <class N> N exchanged(N x, int from) {
  static_assert(sizeof(N) <= 4);
  const int lane = current % 32;
  memcpy(warps[current / 32].given[lane], &x, sizeof(N));
  warps[current / 32].given[lane][1] = from;
  together([](Warp& warp) {
    for (int i = 0; i < 32; i++) warp.taken[i][0] = warp.given[warp.given[i][1] & 31][0];
  });
  N y;
  memcpy(&y, warps[current / 32].taken[lane], sizeof(N));
  together([](Warp&) {});
  return y;
}
template <class N> N __shfl_sync(unsigned, N x, int from) { return exchanged(x, from); }
template <class N> N __shfl_xor_sync(unsigned, N x, int distance) { return exchanged(x, current % 32 ^ distance); }
template <class N> N __shfl_down_sync(unsigned, N x, int by) {
  const int lane = current % 32;
  return exchanged(x, lane + by < 32 ? lane + by : lane);
}
template <class N> N __shfl_up_sync(unsigned, N x, int by) {
  const int lane = current % 32;
  return exchanged(x, lane >= by ? lane - by : lane);
}
