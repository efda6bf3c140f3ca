/* A driver of CUDA whose device is the host: its memory is malloc's and its work is done at once.
 *
 * Only for tests of the calls themselves. It answers what video_knet_core/engine/tensorrt/cuda.py calls,
 * records copies while a stream is capturing, and counts what was given out and not given back.
 * HOST_CUDA_FAIL names a call that fails with CUDA_ERROR_OUT_OF_MEMORY.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, INVALIDATED = 901 };

typedef struct { void *to; const void *from; size_t size; } Copy;
typedef struct { Copy copies[64]; int count; } Graph;
typedef struct { Graph *capturing; } Stream;

static int live = 0;
static int contexts = 0;
static char context_object;

/* What was given out and not given back, contexts included. */
int host_cuda_live(void) { return live + contexts; }

static CUresult start(const char *name) {
    const char *failing = getenv("HOST_CUDA_FAIL");
    return failing && !strcmp(failing, name) ? OUT_OF_MEMORY : SUCCESS;
}
#define START { CUresult failed = start(__func__); if (failed) return failed; }

CUresult cuInit(unsigned flags) { START return SUCCESS; }
CUresult cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
CUresult cuDeviceGet(int *device, int ordinal) { START *device = ordinal; return SUCCESS; }
CUresult cuDeviceGetName(char *name, int size, int device) {
    START snprintf(name, size, "Host GPU"); return SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
    START *value = attribute == 75 ? 8 : attribute == 76 ? 9 : 0; return SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(void **context, int device) {
    START contexts++; *context = &context_object; return SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(int device) { START contexts--; return SUCCESS; }
CUresult cuCtxPushCurrent_v2(void *context) {
    START return context == &context_object ? SUCCESS : INVALID_VALUE;
}
CUresult cuCtxPopCurrent_v2(void **context) { START *context = &context_object; return SUCCESS; }
CUresult cuMemAlloc_v2(uint64_t *address, size_t size) {
    START live++; *address = (uint64_t)aligned_alloc(256, (size + 255) / 256 * 256);
    memset((void *)*address, 0xff, size); return SUCCESS;
}
CUresult cuMemFree_v2(uint64_t address) { START live--; free((void *)address); return SUCCESS; }
CUresult cuMemHostAlloc(void **pointer, size_t size, unsigned flags) {
    START live++; *pointer = aligned_alloc(4096, (size + 4095) / 4096 * 4096); return SUCCESS;
}
CUresult cuMemFreeHost(void *pointer) { START live--; free(pointer); return SUCCESS; }
CUresult cuStreamCreate(Stream **stream, unsigned flags) {
    START if (flags != 1) return INVALID_VALUE;
    live++; *stream = calloc(1, sizeof(Stream)); return SUCCESS;
}
CUresult cuStreamDestroy_v2(Stream *stream) { START live--; free(stream); return SUCCESS; }
CUresult cuStreamSynchronize(Stream *stream) {
    START return stream->capturing ? INVALIDATED : SUCCESS;
}
static CUresult copy(void *to, const void *from, size_t size, Stream *stream) {
    if (stream->capturing) {
        Copy recorded = {to, from, size};
        stream->capturing->copies[stream->capturing->count++] = recorded;
    } else {
        memcpy(to, from, size);
    }
    return SUCCESS;
}
CUresult cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, Stream *stream) {
    START return copy((void *)to, from, size, stream);
}
CUresult cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, Stream *stream) {
    START return copy(to, (const void *)from, size, stream);
}
CUresult cuStreamBeginCapture_v2(Stream *stream, int mode) {
    START if (mode != 1) return INVALID_VALUE;
    live++; stream->capturing = calloc(1, sizeof(Graph)); return SUCCESS;
}
CUresult cuStreamEndCapture(Stream *stream, Graph **graph) {
    *graph = stream->capturing; stream->capturing = NULL;
    START return SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long flags) {
    START live++; *executable = malloc(sizeof(Graph)); **executable = *graph; return SUCCESS;
}
CUresult cuGraphDestroy(Graph *graph) { START live--; free(graph); return SUCCESS; }
CUresult cuGraphExecDestroy(Graph *graph) { START live--; free(graph); return SUCCESS; }
CUresult cuGraphLaunch(Graph *graph, Stream *stream) {
    START
    for (int i = 0; i < graph->count; i++)
        memcpy(graph->copies[i].to, graph->copies[i].from, graph->copies[i].size);
    return SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : "another error"; return SUCCESS;
}

/* How bindings find the rest; they ask for "cuMemAlloc" and mean its newest version. */
CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags,
                             int *status) {
    char name[128];
    const char *endings[] = {"_v2", "", NULL};
    if (!strcmp(symbol, "cuGetProcAddress")) {
        *function = (void *)cuGetProcAddress_v2;
        return SUCCESS;
    }
    if (!strcmp(symbol, "cuGraphInstantiate")) symbol = "cuGraphInstantiateWithFlags";
    for (int i = 0; endings[i]; i++) {
        snprintf(name, sizeof name, "%s%s", symbol, endings[i]);
        if ((*function = dlsym(RTLD_DEFAULT, name))) return SUCCESS;
    }
    if (status) *status = 1;
    *function = NULL;
    return NOT_FOUND;
}
CUresult cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}
