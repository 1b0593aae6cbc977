// What every kernel here begins with: 16-bit numbers, copies into shared memory, matrix instructions.
// No header is included, so that NVRTC alone compiles it. HALF says whether numbers are f16 or bf16.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short T;

#define DEVICE __device__ __forceinline__

DEVICE float from_bits(u64 bits) { return __int_as_float((int)bits); }

DEVICE float to_float(T x) {
#if HALF
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
#else
  return __int_as_float((int)x << 16);
#endif
}

// Two numbers, the first in the low half.
DEVICE u32 pack(float low, float high) {
  u32 both;
#if HALF
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#else
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#endif
  return both;
}

DEVICE float low(u32 both) { return to_float((T)(both & 0xffff)); }
DEVICE float high(u32 both) { return to_float((T)(both >> 16)); }
DEVICE T from_float(float x) { return (T)(pack(x, 0.0f) & 0xffff); }

DEVICE u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

// 16 bytes into shared memory, zeros where `valid` is false; nothing is read then.
DEVICE void copy_async(u32 to, const void* from, bool valid) {
  int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes));
}
DEVICE void commit() { asm volatile("cp.async.commit_group;"); }
template <int N> DEVICE void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

DEVICE void store_shared(u32 to, const u32 (&four)[4]) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};"
               ::"r"(to), "r"(four[0]), "r"(four[1]), "r"(four[2]), "r"(four[3]) : "memory");
}

// The first COUNT threads of a block wait for one another.
template <int COUNT> DEVICE void meet() { asm volatile("bar.sync 1, %0;" ::"n"(COUNT) : "memory"); }

DEVICE float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Four 8x8 matrices; lane i gives the address of row i % 8 of matrix i / 8.
DEVICE void load_matrix(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
DEVICE void load_matrix_transposed(u32 (&r)[4], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory");
}
// Two 8x8 matrices; lanes 0 to 15 give the addresses.
DEVICE void load_pair_transposed(u32 (&r)[2], u32 address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1]) : "r"(address) : "memory");
}

// c += a b, of 16x16 and 16x8 numbers.
DEVICE void multiply(float* c, const u32* a, u32 b0, u32 b1) {
#if HALF
#define KIND "f16.f16"
#else
#define KIND "bf16.bf16"
#endif
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." KIND ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
