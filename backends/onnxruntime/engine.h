/* engine.h - ONNX Runtime itself: its library, its environment, its errors and log.
 *
 * There is one engine in a process, opened when the backend is initialised. The
 * library stays loaded for good.
 *
 * Threads: constant after engine_open(), and so is the library's table, so any.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include "kit/config.h"
#include "onnxruntime/ort_api.h"

struct engine {
    struct ort_api api;
    OrtEnv *env;
    OrtAllocator *allocator;        /* the engine's default one; borrowed */
    OrtMemoryInfo *cpu;             /* "ordinary memory", for tensors over memory of ours */
    bool global_threads;            /* sessions share the environment's thread pools */
    int64_t default_batch_size_max; /* for completed configurations */
};

/* Loads the library and makes the environment. Settings, all optional:
 *   library                   path of the library
 *   enable-global-threadpool  "1": one thread pool for all sessions, with
 *   intra_op_thread_count     so many threads for the work inside operators and
 *   inter_op_thread_count     so many for operators side by side
 *   default-max-batch-size    max_batch_size of models that leave it open */
MUST_USE TRITONSERVER_Error *engine_open(yyjson_doc *settings, struct engine *ret_engine);

/* Ends the environment, after the last session; a zeroed engine is fine. */
void engine_close(struct engine *engine);

/* Takes a status of the engine's and returns the same as our error. */
MUST_USE TRITONSERVER_Error *engine_error(const struct engine *engine, OrtStatus *status);

/* The data types that both sides have; INVALID and UNDEFINED for all others. */
TRITONSERVER_DataType datatype_from_element(ONNXTensorElementDataType element);
ONNXTensorElementDataType element_from_datatype(TRITONSERVER_DataType datatype);

#endif
