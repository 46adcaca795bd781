/* A stand-in for CUDA on a machine without a GPU: the parts of the runtime and the driver that PyTorch and Triton use.

   Memory is host memory, copies are made, and a launched kernel does nothing. So the host's side of a program can run:
   it allocates, copies, compiles, launches and waits. The values of tensors are meaningless.

   STAND_IN_LAUNCHED names a file that gets a line for each Triton kernel at its first launch. library.py generates the
   functions that are needed but not defined here: they return 0 and do nothing.

   The device reports that it is an H200: torch and Inductor choose by its name, processors and memory, so a real H200
   finds the code compiled here in its caches. STAND_IN_NAME sets another name. */
#define _GNU_SOURCE
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* The headers rename some of these to their newest version. */
#undef cudaGetDeviceProperties
#undef cudaStreamGetCaptureInfo
#undef cudaEventElapsedTime
#undef cuDeviceTotalMem
#undef cuGetProcAddress

enum { VERSION = CUDA_VERSION, MAJOR = 9, MINOR = 0, PROCESSORS = 132, SHARED = 232448, REGISTERS = 65536 };
static const size_t MEMORY = 143771ull << 20;
static const char *name_of_device(void) {
    const char *name = getenv("STAND_IN_NAME");
    return name ? name : "NVIDIA H200";
}
static int something; /* its address serves as every handle */

/* ---- devices ---- */
cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return 0; }
cudaError_t cudaGetDevice(int *device) { *device = 0; return 0; }
cudaError_t cudaDriverGetVersion(int *version) { *version = VERSION; return 0; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = VERSION; return 0; }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "%s", name_of_device());
    p->major = MAJOR, p->minor = MINOR, p->multiProcessorCount = PROCESSORS, p->warpSize = 32;
    p->totalGlobalMem = MEMORY, p->l2CacheSize = 60 << 20, p->textureAlignment = 512;
    p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048, p->maxBlocksPerMultiProcessor = 32;
    p->regsPerBlock = p->regsPerMultiprocessor = REGISTERS;
    p->sharedMemPerBlock = 49152, p->sharedMemPerBlockOptin = p->sharedMemPerMultiprocessor = SHARED;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    return 0;
}

static int attribute(int which) {
    switch (which) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return MAJOR;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return MINOR;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return PROCESSORS;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: return 32;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: return 1024;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: return 2048;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: return REGISTERS;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: return 49152;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: return SHARED;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: return 2147483647;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: return 65535;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: return 1980000;
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: return 2619000;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: return 5120;
    default: return 1;
    }
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int device) {
    *value = attribute(which);
    return 0;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0, *greatest = -5; return 0; }
cudaError_t cudaDeviceGetPCIBusId(char *id, int length, int device) { strncpy(id, "0000:01:00.0", length); return 0; }
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return 0; }
const char *cudaGetErrorString(cudaError_t error) { return "an error of the stand-in"; }
const char *cudaGetErrorName(cudaError_t error) { return "standInError"; }

/* ---- memory: pages that use no memory until they are written ---- */
static int allocate(void **memory, size_t bytes) {
    *memory = mmap(0, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return *memory == MAP_FAILED ? cudaErrorMemoryAllocation : 0;
}
cudaError_t cudaMalloc(void **memory, size_t bytes) { return allocate(memory, bytes); }
cudaError_t cudaMallocHost(void **memory, size_t bytes) { return allocate(memory, bytes); }
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags) { return allocate(memory, bytes); }
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = MEMORY; return 0; }
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    memmove(to, from, bytes);
    return 0;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    memmove(to, from, bytes);
    return 0;
}
cudaError_t cudaMemset(void *memory, int value, size_t bytes) { memset(memory, value, bytes); return 0; }
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream) {
    memset(memory, value, bytes);
    return 0;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *memory) {
    memset(attributes, 0, sizeof *attributes);
    attributes->type = cudaMemoryTypeDevice, attributes->devicePointer = (void *)memory;
    return 0;
}

/* ---- streams and events: an event is the clock's time ---- */
cudaError_t cudaStreamCreate(cudaStream_t *stream) { *stream = malloc(8); return 0; }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { return cudaStreamCreate(stream); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    return cudaStreamCreate(stream);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = cudaStreamCaptureStatusNone;
    return 0;
}
cudaError_t cudaStreamGetCaptureInfo(
    cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph,
    const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *count) {
    *status = cudaStreamCaptureStatusNone;
    return 0;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { *event = calloc(1, sizeof(double)); return 0; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { return cudaEventCreate(event); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *(double *)event = now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
    return 0;
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
    return cudaEventRecord(event, stream);
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    *milliseconds = *(double *)end - *(double *)begin + 1e-3;
    return 0;
}

/* ---- kernels of PyTorch and its libraries ---- */
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function) {
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = 1024, attributes->numRegs = 32;
    attributes->binaryVersion = attributes->ptxVersion = 10 * MAJOR + MINOR;
    return 0;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *f, int threads, size_t shared) {
    *blocks = 2;
    return 0;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int *blocks, const void *f, int threads, size_t shared, unsigned flags) {
    *blocks = 2;
    return 0;
}
int cublasCreate_v2(void **handle) { *handle = &something; return 0; }
int cublasGetMathMode(void *handle, int *mode) { *mode = 0; return 0; }
int cublasLtCreate(void **handle) { *handle = &something; return 0; }
int cublasLtMatmulAlgoGetHeuristic(
    void *handle, void *product, void *a, void *b, void *c, void *d, void *wanted, int count, void *found, int *number) {
    *number = 1;
    return 0;
}
size_t cudnnGetVersion(void) { return STAND_IN_CUDNN; }
int cudnnGetProperty(int which, int *value) {
    *value = which == 0 ? STAND_IN_CUDNN / 10000 : which == 1 ? STAND_IN_CUDNN / 100 % 100 : STAND_IN_CUDNN % 100;
    return 0;
}

/* ---- the driver, for Triton ---- */
CUresult cuDeviceGetCount(int *count) { *count = 1; return 0; }
CUresult cuDeviceGet(CUdevice *device, int number) { *device = number; return 0; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice device) {
    *value = attribute(which);
    return 0;
}
CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    *flags = 0, *active = 1;
    return 0;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) { *context = (void *)&something; return 0; }
CUresult cuCtxGetCurrent(CUcontext *context) { *context = (void *)&something; return 0; }
CUresult cuCtxGetDevice(CUdevice *device) { *device = 0; return 0; }
CUresult cuModuleLoadData(CUmodule *module, const void *image) { *module = (void *)&something; return 0; }
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    *function = (void *)strdup(name); /* a kernel is its name */
    return 0;
}
CUresult cuFuncGetAttribute(int *value, CUfunction_attribute which, CUfunction function) {
    *value = which == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : which == CU_FUNC_ATTRIBUTE_NUM_REGS ? 32 : 0;
    return 0;
}
CUresult cuPointerGetAttribute(void *value, CUpointer_attribute which, CUdeviceptr memory) {
    if (which == CU_POINTER_ATTRIBUTE_DEVICE_POINTER) *(CUdeviceptr *)value = memory;
    return 0;
}
CUresult cuGetErrorString(CUresult error, const char **words) { *words = "an error of the stand-in"; return 0; }

static CUresult launched(CUfunction function) {
    static char seen[1 << 16];
    const char *path = getenv("STAND_IN_LAUNCHED");
    char line[512];
    snprintf(line, sizeof line, "%s\n", (const char *)function);
    if (!path || strstr(seen, line) || strlen(seen) + strlen(line) >= sizeof seen) return 0;
    strcat(seen, line);
    FILE *file = fopen(path, "a");
    if (file) fputs(line, file), fclose(file);
    return 0;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **arguments, void **more) {
    return launched(function);
}
CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
                        unsigned threads_z, unsigned shared, CUstream stream, void **arguments, void **more) {
    return launched(function);
}
CUresult cuGetProcAddress_v2(const char *name, void **function, int version, cuuint64_t flags,
                             CUdriverProcAddressQueryResult *result) {
    *function = dlsym(RTLD_DEFAULT, name);
    return *function ? 0 : CUDA_ERROR_NOT_FOUND;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                             unsigned long long flags, enum cudaDriverEntryPointQueryResult *result) {
    *function = dlsym(RTLD_DEFAULT, name);
    if (result) *result = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return 0;
}
