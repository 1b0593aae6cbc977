// What a convolution's gradients are products of. A weight has `rows` output and `c` input channels. Of each number one: grid
// ceil(count / (256 * 4)), block 256.

// [out, in, 3, 3] to [out, 3, 3, in], rounded.
extern "C" __global__ __launch_bounds__(256) void round_taps(
    const float* __restrict__ weight, T* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) {
    const u64 channel = at % info.c, tap = at / info.c % 9, row = at / info.c / 9;
    out[at] = from_float(weight[(row * info.c + channel) * 9 + tap]);
  });
}

// [out, 3, 3, in] to [in, 3, 3, out], by half a turn.
extern "C" __global__ __launch_bounds__(256) void turn_taps(
    const T* __restrict__ weight, T* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) {
    const u64 row = at % info.rows, tap = at / info.rows % 9, channel = at / info.rows / 9;
    out[at] = weight[(row * 9 + 8 - tap) * info.c + channel];
  });
}

// [out, 3, 3, in] to [out, in, 3, 3].
extern "C" __global__ __launch_bounds__(256) void taps_last(
    const float* __restrict__ weight, float* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) {
    const u64 tap = at % 9, channel = at / 9 % info.c, row = at / 9 / info.c;
    out[at] = weight[(row * 9 + tap) * info.c + channel];
  });
}

// Pictures of h x w pixels to those of out_h x out_w, whose pixels lie `step` apart among zeros.
extern "C" __global__ __launch_bounds__(256) void spread(
    const T* __restrict__ x, T* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) {
    const u64 channel = at % info.c, column = at / info.c % info.out_w, line = at / info.c / info.out_w % info.out_h;
    const u64 picture = at / info.c / info.out_w / info.out_h;
    const bool on = line % info.step == 0 && column % info.step == 0;
    out[at] = on ? x[((picture * info.h + line / info.step) * info.w + column / info.step) * info.c + channel] : (T)0;
  });
}

// The nine pixels under the kernel for each pixel of the output, [b, out_h, out_w, 9, c].
extern "C" __global__ __launch_bounds__(256) void taps(
    const T* __restrict__ x, T* __restrict__ out, const __grid_constant__ Info info) {
  each(info.count, [&](u64 at) {
    const u64 channel = at % info.c, tap = at / info.c % 9, pixel = at / info.c / 9;
    const u64 column = pixel % info.out_w, line = pixel / info.out_w % info.out_h, picture = pixel / info.out_w / info.out_h;
    const long long y = (long long)(line * info.step + tap / 3) - (long long)info.before;
    const long long z = (long long)(column * info.step + tap % 3) - (long long)info.before;
    const bool within = y >= 0 && y < (long long)info.h && z >= 0 && z < (long long)info.w;
    out[at] = within ? x[((picture * info.h + y) * info.w + z) * info.c + channel] : (T)0;
  });
}
