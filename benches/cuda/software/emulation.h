// What the CUDA text of models/src/kernels/cuda needs to run on an x86-64 processor, in place of prelude.cu: threads of a
// block are fibers, which wait for one another in collective instructions. Slow, and exact but for the order of sums; to
// find errors where there is no card. Copies are done at once, so that a wait too few is not found.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short T;

#define DEVICE inline
#define __global__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__
#define __device__
#define __forceinline__ inline

struct Place { unsigned x, y, z; };
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
static Place threadIdx, blockIdx, blockDim, gridDim;
alignas(1024) static unsigned char shared[1 << 18];

template <class N> N min(N a, N b) { return a < b ? a : b; }
template <class N> N max(N a, N b) { return a > b ? a : b; }
inline float __int_as_float(int bits) { float x; memcpy(&x, &bits, 4); return x; }
#define __expf expf
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float from_bits(u64 bits) { return __int_as_float((int)bits); }
#if HALF
inline float to_float(T x) { _Float16 half; memcpy(&half, &x, 2); return half; }
inline T from_float(float x) { _Float16 half = x; T bits; memcpy(&bits, &half, 2); return bits; }
#else
inline float to_float(T x) { return __int_as_float((int)x << 16); }
inline T from_float(float x) {
  u32 bits;
  memcpy(&bits, &x, 4);
  return x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
#endif
inline u32 pack(float low, float high) { return from_float(low) | (u32)from_float(high) << 16; }
inline float low(u32 both) { return to_float(both & 0xffff); }
inline float high(u32 both) { return to_float(both >> 16); }
inline float __fdividef(float x, float y) { return x / y; }
inline void copy_async(u32 to, const void* from, bool valid) {
  if (valid) memcpy(shared + to, from, 16);
  else memset(shared + to, 0, 16);
}
inline void commit() {}
template <int N> void wait() {}
inline void store_shared(u32 to, const u32 (&four)[4]) { memcpy(shared + to, four, 16); }
inline float power_of_two(float x) { return exp2f(x); }
inline u32 shared_address(const void* pointer) { return (u32)((const unsigned char*)pointer - shared); }

// Threads of a block, and those of a warp that have come to its next collective instruction.
struct Warp { int size, arrived; long done; u32 given[32][6], taken[32][4]; float sums[32][4]; };
static std::vector<Warp> warps;
static std::vector<void*> fibers;  // their stacks' tops
static std::vector<char> ended;
static void* scheduler;
static int current, block_arrived, block_size;  // of those that have not ended
static long block_done;

// Saves what a call must leave as it was, and goes on with another stack.
__attribute__((naked, noinline)) static void go_on(void** from, void* to) {
  asm("push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
      "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
      "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret");
}
inline void let_others_run() { go_on(&fibers[current], scheduler); }

// The last thread that comes computes for all.
template <class Compute> void together(Compute compute) {
  Warp& warp = warps[current / 32];
  const long before = warp.done;
  warp.arrived++;
  while (warp.done == before) {
    if (warp.arrived == warp.size) {
      warp.arrived = 0;
      compute(warp);
      warp.done++;
    } else {
      let_others_run();
    }
  }
}
inline void __syncthreads() {
  const long before = block_done;
  block_arrived++;
  while (block_done == before) {
    if (block_arrived == block_size) {
      block_arrived = 0;
      block_done++;
    } else {
      let_others_run();
    }
  }
}
template <int COUNT> void meet() { __syncthreads(); }
inline float __shfl_xor_sync(unsigned, float x, int distance) {
  const int lane = current % 32;
  memcpy(warps[current / 32].given[lane], &x, 4);
  together([&](Warp& warp) {
    for (int i = 0; i < 32; i++) warp.taken[i][0] = warp.given[i ^ distance][0];
  });
  float y;
  memcpy(&y, warps[current / 32].taken[lane], 4);
  together([](Warp&) {});
  return y;
}
template <bool TRANSPOSED> void load_matrices(u32 (&r)[4], u32 address) {
  if (address % 16) { fprintf(stderr, "a row of a matrix lies at %u\n", address); abort(); }
  const int lane = current % 32;
  warps[current / 32].given[lane][0] = address;
  together([&](Warp& warp) {
    for (int matrix = 0; matrix < 4; matrix++)
      for (int i = 0; i < 32; i++) {
        T pair[2];
        for (int half = 0; half < 2; half++) {
          const int line = TRANSPOSED ? i % 4 * 2 + half : i / 4, column = TRANSPOSED ? i / 4 : i % 4 * 2 + half;
          memcpy(&pair[half], shared + warp.given[matrix * 8 + line][0] + column * 2, 2);
        }
        warp.taken[i][matrix] = pair[0] | (u32)pair[1] << 16;
      }
  });
  for (int matrix = 0; matrix < 4; matrix++) r[matrix] = warps[current / 32].taken[lane][matrix];
  together([](Warp&) {});
}
inline void load_matrix(u32 (&r)[4], u32 address) { load_matrices<false>(r, address); }
inline void load_matrix_transposed(u32 (&r)[4], u32 address) { load_matrices<true>(r, address); }
inline void load_pair_transposed(u32 (&r)[2], u32 address) {
  u32 four[4];
  load_matrix_transposed(four, address);
  r[0] = four[0];
  r[1] = four[1];
}
inline void multiply(float* c, const u32* a, u32 b0, u32 b1) {
  Warp& mine = warps[current / 32];
  const int lane = current % 32;
  memcpy(mine.given[lane], a, 16);
  mine.given[lane][4] = b0;
  mine.given[lane][5] = b1;
  memcpy(mine.sums[lane], c, 16);
  together([](Warp& warp) {
    float left[16][16], right[16][8];
    for (int i = 0; i < 32; i++)
      for (int half = 0; half < 2; half++)
        for (int part = 0; part < 6; part++) {
          const float x = half ? high(warp.given[i][part]) : low(warp.given[i][part]);
          const int pair = i % 4 * 2 + half;
          if (part < 4) left[i / 4 + part % 2 * 8][pair + part / 2 * 8] = x;
          else right[pair + part % 2 * 8][i / 4] = x;
        }
    for (int i = 0; i < 32; i++)
      for (int e = 0; e < 4; e++)
        for (int k = 0; k < 16; k++) warp.sums[i][e] += left[i / 4 + e / 2 * 8][k] * right[k][i % 4 * 2 + e % 2];
  });
  memcpy(c, mine.sums[lane], 16);
  together([](Warp&) {});
}

static void* kernel;
static void** arguments;
template <class Function> struct Thread;
template <class... P> struct Thread<void (*)(P...)> {
  template <size_t... I> static void call(std::index_sequence<I...>) {
    ((void (*)(P...))kernel)(*(std::remove_const_t<P>*)arguments[I]...);
  }
  static void run() {
    call(std::index_sequence_for<P...>{});
    ended[current] = 1;
    block_size--;
    warps[current / 32].size--;
    let_others_run();
  }
};

template <class Function>
void launch(Function function, void** with, unsigned x, unsigned y, unsigned z, int width, int height, int depth) {
  const int threads = width * height * depth;
  constexpr size_t STACK = 1 << 17;
  kernel = (void*)function;
  arguments = with;
  gridDim = {x, y, z};
  blockDim = {(unsigned)width, (unsigned)height, (unsigned)depth};
  static std::vector<char> stacks;
  if (stacks.size() < threads * STACK) stacks.resize(threads * STACK);
  for (unsigned block = 0; block < x * y * z; block++) {
    blockIdx = {block % x, block / x % y, block / x / y};
    memset(shared, 0xff, sizeof(shared));  // NaN: nothing is read that was not written
    warps.assign((threads + 31) / 32, Warp());
    for (int i = 0; i < (int)warps.size(); i++) warps[i].size = min(32, threads - i * 32);
    fibers.assign(threads, nullptr);
    ended.assign(threads, 0);
    block_arrived = 0;
    block_size = threads;
    for (int i = 0; i < threads; i++) {
      void** top = (void**)(((uintptr_t)&stacks[(i + 1) * STACK - 64]) & ~(uintptr_t)15);
      *--top = nullptr;  // as if called from nowhere
      *--top = (void*)Thread<Function>::run;
      for (int saved = 0; saved < 6; saved++) *--top = nullptr;
      fibers[i] = top;
    }
    for (bool left = true; left;) {
      left = false;
      for (current = 0; current < threads; current++) {
        if (ended[current]) continue;
        threadIdx = {(unsigned)(current % width), (unsigned)(current / width % height), (unsigned)(current / width / height)};
        left = true;
        go_on(&scheduler, fibers[current]);
      }
    }
  }
}

#define EXPORT(name) \
  extern "C" void run_##name(void** with, unsigned x, unsigned y, unsigned z, int width, int height, int depth) { \
    launch(&name, with, x, y, z, width, height, depth); \
  }
