// Dropout's masks, made anew wherever they are needed: by Philox 4x32-10 (Salmon et al. 2011), whose numbers depend on a
// key and an index alone. `Info` has the key, how many of 65,536 numbers are dropped, and what the others are multiplied by.

// The first word of the block at `index`.
DEVICE u32 random_word(u64 key, u64 index) {
  u32 x0 = (u32)index, x1 = (u32)(index >> 32), x2 = 0, x3 = 0, k0 = (u32)key, k1 = (u32)(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const u64 left = (u64)0xD2511F53 * x0, right = (u64)0xCD9E8D57 * x2;
    x0 = (u32)(right >> 32) ^ x1 ^ k0;
    x2 = (u32)(left >> 32) ^ x3 ^ k1;
    x1 = (u32)right;
    x3 = (u32)left;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return x0;
}

DEVICE float dropout_factor(const Info& info, u64 index) {
  return (random_word(info.key, index) >> 16) >= (u32)info.dropped ? from_bits(info.keep) : 0.0f;
}
