/* Stands for libcuda.so where there is no card: one device of compute capability 8.0, or with HOPPER 9.0, whose memory is
   the process's, and whose kernels are functions of the libraries that nvrtc.cpp makes. All is done at once, in the order of the calls. With
   IDLE no kernel is run, so that what remains is the time of the program itself; COUNTS prints how often it asked. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
typedef uint64_t Address;

enum { OUT_OF_MEMORY = 2, NOT_FOUND = 500, NOT_SUPPORTED = 801 };

static int idle, hopper;
static long launches, copies, waits;
static void print_counts(void) {
  fprintf(stderr, "%ld launches, %ld copies, %ld waits\n", launches, copies, waits);
}
Result cuInit(unsigned flags) {
  static int begun;
  idle = getenv("IDLE") != NULL;
  hopper = getenv("HOPPER") != NULL;
  if (!begun && getenv("COUNTS")) atexit(print_counts);
  begun = 1;
  return 0;
}
Result cuDriverGetVersion(int* version) { *version = 12040; return 0; }
Result cuDeviceGetCount(int* count) { *count = 1; return 0; }
Result cuDeviceGet(int* device, int index) { *device = index; return index != 0; }
Result cuDeviceGetName(char* name, int size, int device) { snprintf(name, size, "software"); return 0; }
Result cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = 8ull << 30; return 0; }
Result cuDeviceGetAttribute(int* value, int attribute, int device) {
  switch (attribute) {
    case 1: case 2: *value = 1024; break;     /* threads of a block, and along x */
    case 3: *value = 1024; break;             /* along y */
    case 4: *value = 64; break;               /* along z */
    case 5: *value = 2147483647; break;       /* blocks along x */
    case 6: case 7: *value = 65535; break;    /* along y, z */
    case 8: *value = 49152; break;            /* shared memory of a block */
    case 10: *value = 32; break;              /* threads of a warp */
    case 16: *value = 108; break;             /* multiprocessors */
    case 75: *value = hopper ? 9 : 8; break;  /* compute capability, major */
    case 76: *value = 0; break;               /* minor */
    case 97: *value = hopper ? 232448 : 166912; break; /* shared memory of a block that asks for it */
    default: *value = 1;
  }
  return 0;
}

static char context, stream, event;
Result cuDevicePrimaryCtxRetain(void** to, int device) { *to = &context; return 0; }
Result cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
Result cuCtxSetCurrent(void* to) { return 0; }
Result cuCtxGetCurrent(void** to) { *to = &context; return 0; }
Result cuCtxSynchronize(void) { return 0; }
Result cuStreamCreate(void** to, unsigned flags) { *to = &stream; return 0; }
Result cuStreamDestroy_v2(void* of) { return 0; }
Result cuStreamSynchronize(void* of) { waits++; return 0; }
Result cuStreamWaitEvent(void* of, void* on, unsigned flags) { return 0; }
Result cuEventCreate(void** to, unsigned flags) { *to = &event; return 0; }
Result cuEventRecord(void* of, void* on) { return 0; }
Result cuEventSynchronize(void* of) { waits++; return 0; }
Result cuEventQuery(void* of) { return 0; }
Result cuEventDestroy_v2(void* of) { return 0; }

Result cuMemAlloc_v2(Address* to, size_t bytes) {
  void* memory = NULL;
  if (posix_memalign(&memory, 512, bytes ? bytes : 512)) return OUT_OF_MEMORY;
  *to = (Address)memory;
  return 0;
}
Result cuMemAllocAsync(Address* to, size_t bytes, void* on) { return cuMemAlloc_v2(to, bytes); }
Result cuMemFree_v2(Address of) { free((void*)of); return 0; }
Result cuMemFreeAsync(Address of, void* on) { return cuMemFree_v2(of); }
Result cuMemAllocHost_v2(void** to, size_t bytes) { return cuMemAlloc_v2((Address*)to, bytes); }
Result cuMemFreeHost(void* of) { free(of); return 0; }
Result cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void* on) { copies++; memcpy((void*)to, from, bytes); return 0; }
Result cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void* on) { copies++; memcpy(to, (void*)from, bytes); return 0; }
Result cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void* on) { memcpy((void*)to, (void*)from, bytes); return 0; }

struct Side { size_t x, y; int kind; const void* host; Address device; void* array; size_t pitch; };
struct Copy { struct Side from, to; size_t width, height; };
static char* begin(const struct Side* side) {
  char* base = side->kind == 1 ? (char*)side->host : (char*)side->device;
  return base + side->y * side->pitch + side->x;
}
Result cuMemcpy2DAsync_v2(const struct Copy* copy, void* on) {
  for (size_t line = 0; line < copy->height; line++)
    memcpy(begin(&copy->to) + line * copy->to.pitch, begin(&copy->from) + line * copy->from.pitch, copy->width);
  return 0;
}

typedef void Run(void** arguments, unsigned, unsigned, unsigned, int, int, int);
Result cuModuleLoadData(void** to, const void* path) {
  *to = idle ? &context : dlopen(path, RTLD_NOW | RTLD_LOCAL);
  return *to ? 0 : NOT_FOUND;
}
Result cuModuleUnload(void* of) { return 0; }
Result cuModuleGetFunction(void** to, void* library, const char* name) {
  char symbol[512];
  snprintf(symbol, sizeof symbol, "run_%s", name);
  *to = idle ? &context : dlsym(library, symbol);
  return *to ? 0 : NOT_FOUND;
}
Result cuFuncSetAttribute(void* of, int attribute, int value) { return 0; }
Result cuFuncGetAttribute(int* value, int attribute, void* of) { *value = 0; return 0; }
Result cuLaunchKernel(void* run, unsigned x, unsigned y, unsigned z, unsigned width, unsigned height, unsigned depth,
                      unsigned shared, void* on, void** arguments, void** more) {
  launches++;
  if (!idle) ((Run*)run)(arguments, x, y, z, width, height, depth);
  return 0;
}
/* As hopper.h reads it; of 16-bit numbers that lie next to one another. */
struct Map {
  const void* begin;
  unsigned rank, size[4], box[4], swizzled;
  uint64_t stride[4];
};
Result cuTensorMapEncodeTiled(struct Map* map, int type, unsigned rank, void* begin, const uint64_t* size,
                              const uint64_t* strides, const unsigned* box, const unsigned* steps, int interleave,
                              int swizzle, int prefetch, int fill) {
  if (!hopper || rank > 4) return NOT_SUPPORTED;
  memset(map, 0, sizeof *map);
  map->begin = begin;
  map->rank = rank;
  map->swizzled = swizzle == 3;
  for (unsigned i = 0; i < 4; i++) {
    map->size[i] = i < rank ? size[i] : 1;
    map->box[i] = i < rank ? box[i] : 1;
    map->stride[i] = i == 0 ? 2 : i < rank ? strides[i - 1] : 0;
    if (i > 0 && i < rank && strides[i - 1] % 16 || i < rank && (steps[i] != 1 || box[i] > 256)) return NOT_SUPPORTED;
  }
  return (uintptr_t)begin % 16 ? NOT_SUPPORTED : 0;
}
Result cuTensorMapEncodeIm2col(void) { return NOT_SUPPORTED; }
Result cuGetErrorString(int error, const char** to) { *to = "an error of the software card"; return 0; }
Result cuGetErrorName(int error, const char** to) { *to = "SOFTWARE"; return 0; }
