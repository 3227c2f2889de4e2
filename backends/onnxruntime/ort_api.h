/* ort_api.h - the part of ONNX Runtime's C interface that this backend uses.
 *
 * The engine's library exports one function, OrtGetApiBase, which leads to a
 * table of function pointers. The table only ever grows at its end, so a slot
 * number and a signature describe an entry for all versions; the slots below are
 * all present since API 15 (ONNX Runtime 1.15), and that version is asked for.
 * scripts/check_ort_slots.py compares this file with an official header.
 *
 * An OrtStatus * is NULL for success; else it holds a code and a text and is
 * ended with ReleaseStatus. Everything that Create* and Get*TypeInfo return is
 * ended with the Release* of its type.
 */
#ifndef ORT_API_H
#define ORT_API_H

#include <stddef.h>
#include <stdint.h>

enum {
    ORT_API_VERSION_NEEDED = 15
};

typedef struct OrtAllocator OrtAllocator;
typedef struct OrtEnv OrtEnv;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtStatus OrtStatus;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtThreadingOptions OrtThreadingOptions;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtValue OrtValue;

typedef enum {
    ORT_LOG_VERBOSE,
    ORT_LOG_INFO,
    ORT_LOG_WARNING,
    ORT_LOG_ERROR,
    ORT_LOG_FATAL
} OrtLoggingLevel;

typedef enum {
    ORT_FAIL = 1,
    ORT_INVALID_ARGUMENT = 2,
    ORT_NO_SUCHFILE = 3,
    ORT_NOT_IMPLEMENTED = 9
} OrtErrorCode;

typedef enum {
    ORT_SEQUENTIAL = 0,
    ORT_PARALLEL = 1
} ExecutionMode;

typedef enum {
    ORT_OPTIMIZE_NONE = 0,
    ORT_OPTIMIZE_BASIC = 1,
    ORT_OPTIMIZE_EXTENDED = 2,
    ORT_OPTIMIZE_ALL = 99
} GraphOptimizationLevel;

typedef enum {
    ORT_ALLOCATOR_DEVICE = 0,
    ORT_ALLOCATOR_ARENA = 1
} OrtAllocatorType;
typedef enum {
    ORT_MEM_TYPE_DEFAULT = 0
} OrtMemType;

typedef enum {
    ORT_ELEMENT_UNDEFINED = 0,
    ORT_ELEMENT_FLOAT = 1,
    ORT_ELEMENT_UINT8 = 2,
    ORT_ELEMENT_INT8 = 3,
    ORT_ELEMENT_UINT16 = 4,
    ORT_ELEMENT_INT16 = 5,
    ORT_ELEMENT_INT32 = 6,
    ORT_ELEMENT_INT64 = 7,
    ORT_ELEMENT_STRING = 8,
    ORT_ELEMENT_BOOL = 9,
    ORT_ELEMENT_FLOAT16 = 10,
    ORT_ELEMENT_DOUBLE = 11,
    ORT_ELEMENT_UINT32 = 12,
    ORT_ELEMENT_UINT64 = 13,
    ORT_ELEMENT_BFLOAT16 = 16
} ONNXTensorElementDataType;

/* code_location is "file:line function". May be called from any thread. */
typedef void (*OrtLoggingFunction)(void *param, OrtLoggingLevel severity, const char *category,
                                   const char *logid, const char *code_location,
                                   const char *message);

/* X(slot, name, return type, parameters) */
/* clang-format off */
#define ORT_API_SLOTS(X)                                                                           \
    X(1, GetErrorCode, OrtErrorCode, const OrtStatus *status)                                      \
    X(2, GetErrorMessage, const char *, const OrtStatus *status)                                   \
    X(4, CreateEnvWithCustomLogger, OrtStatus *, OrtLoggingFunction logging_function, void *logger_param, OrtLoggingLevel log_severity_level, const char *logid, OrtEnv **out) \
    X(7, CreateSession, OrtStatus *, const OrtEnv *env, const char *model_path, const OrtSessionOptions *options, OrtSession **out) \
    X(9, Run, OrtStatus *, OrtSession *session, const OrtRunOptions *run_options, const char *const *input_names, const OrtValue *const *inputs, size_t input_len, const char *const *output_names, size_t output_names_len, OrtValue **outputs) \
    X(10, CreateSessionOptions, OrtStatus *, OrtSessionOptions **options)                          \
    X(13, SetSessionExecutionMode, OrtStatus *, OrtSessionOptions *options, ExecutionMode execution_mode) \
    X(17, DisableMemPattern, OrtStatus *, OrtSessionOptions *options)                              \
    X(19, DisableCpuMemArena, OrtStatus *, OrtSessionOptions *options)                             \
    X(20, SetSessionLogId, OrtStatus *, OrtSessionOptions *options, const char *logid)             \
    X(23, SetSessionGraphOptimizationLevel, OrtStatus *, OrtSessionOptions *options, GraphOptimizationLevel graph_optimization_level) \
    X(24, SetIntraOpNumThreads, OrtStatus *, OrtSessionOptions *options, int intra_op_num_threads) \
    X(25, SetInterOpNumThreads, OrtStatus *, OrtSessionOptions *options, int inter_op_num_threads) \
    X(30, SessionGetInputCount, OrtStatus *, const OrtSession *session, size_t *out)               \
    X(31, SessionGetOutputCount, OrtStatus *, const OrtSession *session, size_t *out)              \
    X(32, SessionGetOverridableInitializerCount, OrtStatus *, const OrtSession *session, size_t *out) \
    X(33, SessionGetInputTypeInfo, OrtStatus *, const OrtSession *session, size_t index, OrtTypeInfo **type_info) \
    X(34, SessionGetOutputTypeInfo, OrtStatus *, const OrtSession *session, size_t index, OrtTypeInfo **type_info) \
    X(35, SessionGetOverridableInitializerTypeInfo, OrtStatus *, const OrtSession *session, size_t index, OrtTypeInfo **type_info) \
    X(36, SessionGetInputName, OrtStatus *, const OrtSession *session, size_t index, OrtAllocator *allocator, char **value) \
    X(37, SessionGetOutputName, OrtStatus *, const OrtSession *session, size_t index, OrtAllocator *allocator, char **value) \
    X(38, SessionGetOverridableInitializerName, OrtStatus *, const OrtSession *session, size_t index, OrtAllocator *allocator, char **value) \
    X(39, CreateRunOptions, OrtStatus *, OrtRunOptions **out)                                      \
    X(41, RunOptionsSetRunLogSeverityLevel, OrtStatus *, OrtRunOptions *options, int log_severity_level) \
    X(48, CreateTensorAsOrtValue, OrtStatus *, OrtAllocator *allocator, const int64_t *shape, size_t shape_len, ONNXTensorElementDataType type, OrtValue **out) \
    X(49, CreateTensorWithDataAsOrtValue, OrtStatus *, const OrtMemoryInfo *info, void *p_data, size_t p_data_len, const int64_t *shape, size_t shape_len, ONNXTensorElementDataType type, OrtValue **out) \
    X(51, GetTensorMutableData, OrtStatus *, OrtValue *value, void **out)                          \
    X(53, GetStringTensorDataLength, OrtStatus *, const OrtValue *value, size_t *len)              \
    X(54, GetStringTensorContent, OrtStatus *, const OrtValue *value, void *s, size_t s_len, size_t *offsets, size_t offsets_len) \
    X(55, CastTypeInfoToTensorInfo, OrtStatus *, const OrtTypeInfo *type_info, const OrtTensorTypeAndShapeInfo **out) \
    X(60, GetTensorElementType, OrtStatus *, const OrtTensorTypeAndShapeInfo *info, ONNXTensorElementDataType *out) \
    X(61, GetDimensionsCount, OrtStatus *, const OrtTensorTypeAndShapeInfo *info, size_t *out)     \
    X(62, GetDimensions, OrtStatus *, const OrtTensorTypeAndShapeInfo *info, int64_t *dim_values, size_t dim_values_length) \
    X(63, GetSymbolicDimensions, OrtStatus *, const OrtTensorTypeAndShapeInfo *info, const char *dim_params[], size_t dim_params_length) \
    X(65, GetTensorTypeAndShape, OrtStatus *, const OrtValue *value, OrtTensorTypeAndShapeInfo **out) \
    X(69, CreateCpuMemoryInfo, OrtStatus *, OrtAllocatorType type, OrtMemType mem_type, OrtMemoryInfo **out) \
    X(76, AllocatorFree, OrtStatus *, OrtAllocator *ort_allocator, void *p)                        \
    X(78, GetAllocatorWithDefaultOptions, OrtStatus *, OrtAllocator **out)                         \
    X(92, ReleaseEnv, void, OrtEnv *input)                                                         \
    X(93, ReleaseStatus, void, OrtStatus *input)                                                   \
    X(94, ReleaseMemoryInfo, void, OrtMemoryInfo *input)                                           \
    X(95, ReleaseSession, void, OrtSession *input)                                                 \
    X(96, ReleaseValue, void, OrtValue *input)                                                     \
    X(97, ReleaseRunOptions, void, OrtRunOptions *input)                                           \
    X(98, ReleaseTypeInfo, void, OrtTypeInfo *input)                                               \
    X(99, ReleaseTensorTypeAndShapeInfo, void, OrtTensorTypeAndShapeInfo *input)                   \
    X(100, ReleaseSessionOptions, void, OrtSessionOptions *input)                                  \
    X(120, DisablePerSessionThreads, OrtStatus *, OrtSessionOptions *options)                      \
    X(121, CreateThreadingOptions, OrtStatus *, OrtThreadingOptions **out)                         \
    X(122, ReleaseThreadingOptions, void, OrtThreadingOptions *input)                              \
    X(130, AddSessionConfigEntry, OrtStatus *, OrtSessionOptions *options, const char *config_key, const char *config_value) \
    X(147, SetGlobalIntraOpNumThreads, OrtStatus *, OrtThreadingOptions *tp_options, int intra_op_num_threads) \
    X(148, SetGlobalInterOpNumThreads, OrtStatus *, OrtThreadingOptions *tp_options, int inter_op_num_threads) \
    X(149, SetGlobalSpinControl, OrtStatus *, OrtThreadingOptions *tp_options, int allow_spinning) \
    X(151, CreateEnvWithCustomLoggerAndGlobalThreadPools, OrtStatus *, OrtLoggingFunction logging_function, void *logger_param, OrtLoggingLevel log_severity_level, const char *logid, const OrtThreadingOptions *tp_options, OrtEnv **out) \
    X(165, AddRunConfigEntry, OrtStatus *, OrtRunOptions *options, const char *config_key, const char *config_value) \
    X(228, RegisterCustomOpsLibrary_V2, OrtStatus *, OrtSessionOptions *options, const char *library_name) \
    X(252, GetResizedStringTensorElementBuffer, OrtStatus *, OrtValue *value, size_t index, size_t length_in_bytes, char **buffer)
/* clang-format on */

/* The entries as functions of their own, copied out of the engine's table. */
struct ort_api {
#define ORT_API_MEMBER(slot, name, ret, ...) ret (*name)(__VA_ARGS__);
    ORT_API_SLOTS(ORT_API_MEMBER)
#undef ORT_API_MEMBER
};

/* What OrtGetApiBase() returns. */
typedef struct OrtApiBase {
    /* The table for an API version; NULL (and a line on stderr) when the library is older. */
    const void *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

#endif
