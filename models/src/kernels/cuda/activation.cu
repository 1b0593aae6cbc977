// The activation function that ACT names. gelu is the includer's: how exact it is depends on what the number becomes.

#ifndef ACT
#define ACT 0
#endif

DEVICE float gelu(float x);

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

DEVICE float activated(float x) {
#if ACT == 1
  return gelu(x);
#elif ACT == 2
  return x * sigmoid((x * x * 0.044715f + 1.0f) * x * 1.595769f);
#elif ACT == 3
  return x * sigmoid(1.702f * x);
#elif ACT == 4
  return fmaxf(x, 0.0f);
#elif ACT == 5
  return x * sigmoid(x);
#else
  return x;
#endif
}

