/* Model configurations: what normalising fills in, every rule of validation with its text, the final
 * form (tables, JSON, labels, 1.x), changing, and version policies, by tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/attr.h"
#include "config/config.h"
#include "proto/text.h"

static struct config_builder *parsed(const char *text)
{
    struct config_builder *b = NULL;
    tis_error *err = config_parse_text(text, strlen(text), "config.pbtxt", &b);
    if (err)
        print_error("%s\n", error_text(err));
    assert_null(err);
    return b;
}

static struct model_config *finished(const char *text, const struct config_context *context)
{
    struct config_builder *b = parsed(text);
    struct model_config *c = NULL;
    tis_error *err = config_normalize(b, context);
    if (!err)
        err = config_validate(b, context);
    if (err)
        print_error("%s\n", error_text(err));
    assert_null(err);
    assert_null(config_finish(&b, &c));
    assert_null(b);
    return c;
}

static const char *const onnx_files[] = { "model.onnx", "notes.txt" };
static const char *const saved_files[] = { "model.savedmodel" };
static const char *const two_files[] = { "model.onnx", "model.plan" };
static const struct {
    const char *text;
    struct config_context context;
    const char *expected;
} normalize_cases[] = {
    { "backend: 'identity'",
      { .directory_name = "m" },
      "name: \"m\" version_policy { latest { num_versions: 1 } } instance_group { name: \"m\" "
      "count: 1 kind: KIND_CPU } backend: \"identity\"" },
    { "platform: 'onnxruntime_onnx' version_policy { all {} }",
      { .directory_name = "m" },
      "name: \"m\" platform: \"onnxruntime_onnx\" version_policy { all { } } instance_group { "
      "name: \"m\" count: 1 kind: KIND_CPU } default_model_filename: \"model.onnx\" backend: "
      "\"onnxruntime\"" },
    { "backend: 'onnxruntime' default_model_filename: 'x.onnx' version_policy { latest {} }",
      { .directory_name = "m" },
      "name: \"m\" platform: \"onnxruntime_onnx\" version_policy { latest { num_versions: 1 } } "
      "instance_group { name: \"m\" count: 1 kind: KIND_CPU } default_model_filename: "
      "\"x.onnx\" backend: \"onnxruntime\"" },
    { "",
      { .directory_name = "m", .version_files = onnx_files, .version_file_count = 2 },
      "name: \"m\" platform: \"onnxruntime_onnx\" version_policy { latest { num_versions: 1 } } "
      "instance_group { name: \"m\" count: 1 kind: KIND_CPU } default_model_filename: "
      "\"model.onnx\" backend: \"onnxruntime\"" },
    { "",
      { .directory_name = "m", .version_files = two_files, .version_file_count = 2 },
      "name: \"m\" version_policy { latest { num_versions: 1 } } instance_group { name: \"m\" "
      "count: 1 kind: KIND_CPU }" },
    { "backend: 'tensorflow'",
      { .directory_name = "m", .version_files = saved_files, .version_file_count = 1 },
      "name: \"m\" platform: \"tensorflow_savedmodel\" version_policy { latest { num_versions: 1 "
      "} } instance_group { name: \"m\" count: 1 kind: KIND_CPU } default_model_filename: "
      "\"model.savedmodel\" backend: \"tensorflow\"" },
    { "",
      { .directory_name = "net.v2", .version_files = onnx_files, .version_file_count = 2 },
      "name: \"net.v2\" platform: \"onnxruntime_onnx\" version_policy { latest { num_versions: 1 "
      "} } instance_group { name: \"net.v2\" count: 1 kind: KIND_CPU } "
      "default_model_filename: \"model.onnx\" backend: \"onnxruntime\"" },
    { "",
      { .directory_name = "net.python", .version_files = onnx_files, .version_file_count = 2 },
      "name: \"net.python\" version_policy { latest { num_versions: 1 } } instance_group { name: "
      "\"net.python\" count: 1 kind: KIND_CPU } default_model_filename: \"model.py\" backend: "
      "\"python\"" },
    { "",
      { .directory_name = "net.own" },
      "name: \"net.own\" version_policy { latest { num_versions: 1 } } instance_group { name: "
      "\"net.own\" count: 1 kind: KIND_CPU } backend: \"own\"" },
    { "",
      { .directory_name = "net.python" },
      "name: \"net.python\" version_policy { latest { num_versions: 1 } } instance_group { name: "
      "\"net.python\" count: 1 kind: KIND_CPU } default_model_filename: \"model.py\" backend: "
      "\"python\"" },
    { "name: 'm' backend: 'onnxruntime' instance_group [{}, {count: 1}, {kind: KIND_MODEL}, "
      "{kind: KIND_GPU}]",
      { .gpu_count = 1, .processor_count = 8 }, /* two on processors, if nothing is said */
      "name: \"m\" platform: \"onnxruntime_onnx\" version_policy { latest { num_versions: 1 } } "
      "instance_group { name: \"m_0\" count: 1 gpus: 0 kind: KIND_GPU } instance_group { name: "
      "\"m_1\" count: 1 gpus: 0 kind: KIND_GPU } instance_group { name: \"m_2\" count: 1 kind: "
      "KIND_MODEL } instance_group { name: \"m_3\" count: 1 gpus: 0 kind: KIND_GPU } "
      "default_model_filename: \"model.onnx\" backend: \"onnxruntime\"" },
    { "name: 'm' backend: 'onnxruntime' instance_group [{}, {count: 1}, {kind: KIND_MODEL}]",
      { .processor_count = 4 },
      "name: \"m\" platform: \"onnxruntime_onnx\" version_policy { latest { num_versions: 1 } } "
      "instance_group { name: \"m_0\" count: 2 kind: KIND_CPU } instance_group { name: \"m_1\" "
      "count: 1 kind: KIND_CPU } instance_group { name: \"m_2\" count: 1 kind: KIND_MODEL } "
      "default_model_filename: \"model.onnx\" backend: \"onnxruntime\"" },
    { "name: 'm' backend: 'onnxruntime'", /* with fewer, one instance */
      { .processor_count = 3 },
      "name: \"m\" platform: \"onnxruntime_onnx\" version_policy { latest { num_versions: 1 } } "
      "instance_group { name: \"m\" count: 1 kind: KIND_CPU } default_model_filename: "
      "\"model.onnx\" backend: \"onnxruntime\"" },
    { "name: 'm' backend: 'b'",
      { .processor_count = 8 },
      "name: \"m\" version_policy { latest { num_versions: 1 } } instance_group { name: \"m\" "
      "count: 1 kind: KIND_CPU } backend: \"b\"" },
    { "name: 'm' backend: 'b' max_batch_size: 8 dynamic_batching {} instance_group [{count: 2}, "
      "{name: 'g' kind: KIND_GPU}, {gpus: [0, 5]}, {gpus: 1}, {kind: KIND_MODEL count: -1}]",
      { .gpu_count = 2 },
      "name: \"m\" version_policy { latest { num_versions: 1 } } max_batch_size: 8 "
      "instance_group { name: \"m_0\" count: 2 gpus: 0 gpus: 1 kind: KIND_GPU } instance_group { "
      "name: \"g\" count: 1 gpus: 0 gpus: 1 kind: KIND_GPU } instance_group { name: \"m_2\" "
      "count: 1 kind: KIND_CPU } instance_group { name: \"m_3\" count: 1 gpus: 1 kind: KIND_GPU } "
      "instance_group { name: \"m_4\" count: 1 kind: KIND_MODEL } dynamic_batching { "
      "preferred_batch_size: 8 } backend: \"b\"" },
};

static void test_normalize(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(normalize_cases); i++) {
        struct config_builder *b = parsed(normalize_cases[i].text);
        for (int pass = 0; pass < 2; pass++) { /* twice is the same as once */
            struct bytes text = { 0 };
            assert_null(config_normalize(b, &normalize_cases[i].context));
            text_append(&text, &b->message->base, TEXT_ONE_LINE);
            assert_string_equal(bytes_str(&text), normalize_cases[i].expected);
            bytes_fini(&text);
        }
        config_builder_destroy(b);
    }
}

#define GOOD "name: 'm' backend: 'onnxruntime' max_batch_size: 4 "
#define WARMUP_A(rest)                                          \
    "input { name: 'a' data_type: TYPE_FP32 dims: [ -1, 3 ] } " \
    "model_warmup { batch_size: 1 inputs { key: 'a' value { data_type: TYPE_FP32 " rest " } } }"
#define INPUT_A "input { name: 'a' data_type: TYPE_FP32 dims: 1 "

static const struct {
    const char *text;
    const char *expected; /* "" = valid; else the error */
    uint32_t gpu_count;
} problem_cases[] = {
    { GOOD INPUT_A "} output { name: 'a' data_type: TYPE_BF16 dims: [-1, 3] label_filename: "
                   "'l.txt' } dynamic_batching {}",
      "", 0 },
    { "backend: 'x'", "model '' name: model configuration must specify 'name'", 0 },
    { "name: 'm'",
      "model 'm' platform: must specify platform for model 'm' (found neither 'platform' nor "
      "'backend', expected for example backend: \"onnxruntime\")",
      0 },
    { "name: 'm' platform: 'onnxruntime_onx'",
      "model 'm' platform: unexpected platform type onnxruntime_onx for m (did you mean "
      "'onnxruntime_onnx')",
      0 },
    { "name: 'm' platform: 'onnxruntime_onnx' backend: 'python'",
      "model 'm' backend: platform 'onnxruntime_onnx' belongs to another backend (found 'python', "
      "expected 'onnxruntime' or no platform)",
      0 },
    { "name: 'm' backend: 'tensorflow'",
      "model 'm' platform: must specify platform for model 'm' (found backend 'tensorflow' alone, "
      "expected 'tensorflow_graphdef' or 'tensorflow_savedmodel')",
      0 },
    { "name: 'm' backend: '../x'",
      "model 'm' backend: a backend's name must not contain '/' (found '../x')", 0 },
    { GOOD "default_model_filename: '../../x'",
      "model 'm' default_model_filename: the path leaves the model's directory (found '../../x', "
      "expected a relative path without '..')",
      0 },
    { GOOD "default_model_filename: 'a/..b/x..'", "", 0 },
    { GOOD "cc_model_filenames { key: '7.5' value: '/etc/x' }",
      "model 'm' cc_model_filenames['7.5']: the path leaves the model's directory (found "
      "'/etc/x', expected a relative path without '..')",
      0 },
    { GOOD "version_policy { specific { versions: [1, -3] } }",
      "model 'm' version_policy.specific.versions[1]: a version is not negative (found -3)", 0 },
    { GOOD "version_policy { specific {} }",
      "model 'm' version_policy.specific: no version is listed (expected for example versions: [ "
      "1 ])",
      0 },
    { GOOD "input {}",
      "model 'm' input[0].name: model input must specify 'name'; model 'm' input[0].data_type: "
      "model input must specify 'data_type' (found none, expected for example TYPE_FP32); model "
      "'m' input[0].dims: model input must specify 'dims' (found none, expected for example dims: "
      "[ 16 ]; for a scalar dims: [ 1 ] and reshape: { shape: [ ] })",
      0 },
    { GOOD "output { name: 'o' data_type: 99 dims: [0, 2] label_filename: '../l' }",
      "model 'm' output[0] 'o'.data_type: unknown data type (found 99, expected for example "
      "TYPE_FP32); model 'm' output[0] 'o'.dims: dimension must be integer >= 1, or -1 to "
      "indicate a variable-size dimension (found [0,2]); model 'm' output[0] 'o'.label_filename: "
      "the path leaves the model's directory (found '../l', expected a relative path without "
      "'..')",
      0 },
    { GOOD "input { name: 'a' data_type: TYPE_FP32 dims: [4294967296, 4294967296] }",
      "model 'm' input[0] 'a'.dims: the number of elements does not fit 64 bits (found "
      "[4294967296,4294967296])",
      0 },
    { GOOD INPUT_A "} " INPUT_A "}", "model 'm' input: two of them are called 'a'", 0 },
    { GOOD INPUT_A "reshape { shape: [] } }", "", 0 },
    { GOOD "input { name: 'a' data_type: TYPE_FP32 dims: [2, 3] reshape { shape: 6 } }", "", 0 },
    { GOOD "input { name: 'a' data_type: TYPE_FP32 dims: [2, 3] reshape { shape: [] } }",
      "model 'm' input[0] 'a'.reshape: has different size for dims and reshape (found dims [2,3], "
      "reshape [])",
      0 },
    { GOOD "input { name: 'a' data_type: TYPE_FP32 dims: [2, -1, 3] reshape { shape: [2,1,-1,3] } "
           "}",
      "", 0 },
    { GOOD "input { name: 'a' data_type: TYPE_FP32 dims: [2, -1, 3] reshape { shape: [3, -1, 2] } "
           "}",
      "model 'm' input[0] 'a'.reshape: has different size for dims and reshape (found dims "
      "[2,-1,3], reshape [3,-1,2])",
      0 },
    { GOOD "input { name: 'a' data_type: TYPE_FP32 dims: [-1, -1] reshape { shape: -1 } }",
      "model 'm' input[0] 'a'.reshape: has different number of variable-size dimensions for dims "
      "and reshape (found dims [-1,-1], reshape [-1])",
      0 },
    { GOOD INPUT_A "reshape { shape: 0 } }",
      "model 'm' input[0] 'a'.reshape: reshape dimensions must be integer >= 1, or -1 to indicate "
      "a variable-size dimension (found [0])",
      0 },
    { GOOD INPUT_A "format: FORMAT_NHWC }",
      "model 'm' input[0] 'a'.format: model input NHWC/NCHW require 3 dims (found 1)", 0 },
    { GOOD INPUT_A "is_shape_tensor: true }",
      "model 'm' input[0] 'a'.is_shape_tensor: shape tensors exist in TensorRT models only (found "
      "backend 'onnxruntime')",
      0 },
    { "name: 'm' backend: 'b' " INPUT_A "allow_ragged_batch: true }",
      "model 'm' input[0] 'a'.allow_ragged_batch: only models that batch can have ragged inputs "
      "(found max_batch_size 0)",
      0 },
    { "name: 'm' backend: 'b' max_batch_size: -1",
      "model 'm' max_batch_size: 'max_batch_size' must be non-negative value for m (found -1)", 0 },
    { GOOD "dynamic_batching { preferred_batch_size: [0, 4, 5] }",
      "model 'm' dynamic_batching.preferred_batch_size[0]: dynamic batching preferred size must be "
      "positive for m (found 0); model 'm' dynamic_batching.preferred_batch_size[2]: dynamic "
      "batching preferred size must be <= max batch size for m (found 5, max_batch_size is 4)",
      0 },
    { GOOD "dynamic_batching { max_queue_delay_microseconds: 18446744073709551615 }",
      "model 'm' dynamic_batching.max_queue_delay_microseconds: dynamic batching maximum queue "
      "delay must be non-negative for m (found 18446744073709551615, expected at most "
      "9223372036854775)",
      0 },
    { GOOD "dynamic_batching { priority_levels: 2 default_priority_level: 3 "
           "priority_queue_policy { key: 3 value { timeout_action: 7 } } }",
      "model 'm' dynamic_batching.default_priority_level: must be one of the priority levels "
      "(found 3, expected 1 to 2); model 'm' dynamic_batching.priority_queue_policy[3]: no such "
      "priority level (expected 1 to 2); model 'm' dynamic_batching.priority_queue_policy[3]: "
      "unknown timeout_action (found 7, expected REJECT or DELAY)",
      0 },
    { GOOD "dynamic_batching { priority_levels: 1001 default_priority_level: 1 "
           "default_queue_policy { default_timeout_microseconds: 18446744073709551615 } }",
      "model 'm' dynamic_batching.priority_levels: too many levels (found 1001, expected at most "
      "1000); model 'm' dynamic_batching.default_queue_policy: default_timeout_microseconds is too "
      "large (found 18446744073709551615, expected at most 9223372036854775)",
      0 },
    { GOOD "dynamic_batching { preserve_ordering: true priority_levels: 2 default_priority_level: "
           "1 default_queue_policy { timeout_action: DELAY } }",
      "model 'm' dynamic_batching.priority_levels: only one level can be combined with "
      "preserve_ordering (found 2); model 'm' dynamic_batching.default_queue_policy: DELAY cannot "
      "be combined with preserve_ordering (expected REJECT)",
      0 },
    { GOOD "instance_group { kind: KIND_GPU }",
      "model 'm' instance_group[0]: instance group m_0 of model m has kind KIND_GPU but specifies "
      "no GPUs (found no GPU in this machine, expected KIND_CPU or KIND_AUTO)",
      0 },
    { GOOD "instance_group { kind: KIND_GPU gpus: [0, 2] }",
      "model 'm' instance_group[0]: instance group m_0 of model m specifies invalid GPU id 2, "
      "valid GPUs are 0 - 1",
      2 },
    { GOOD "instance_group { kind: KIND_CPU gpus: 0 name: 'g' } instance_group { count: 5000 kind: "
           "9 }",
      "model 'm' instance_group[0]: instance group g of model m has kind KIND_CPU but specifies "
      "one or more GPUs; model 'm' instance_group[1]: unknown kind (found 9, expected for example "
      "KIND_CPU); model 'm' instance_group: too many instances in all groups (found 5001, expected "
      "at most 4096)",
      0 },
    { "name: 'm' platform: 'tensorrt_plan' instance_group { kind: KIND_CPU }",
      "model 'm' instance_group[0]: instance group m_0 of model m must be KIND_GPU and must "
      "specify at least on GPU id",
      1 },
    { GOOD INPUT_A "} batch_input { kind: BATCH_ITEM_SHAPE target_name: 's' data_type: TYPE_FP32 "
                   "source_input: 'a' }",
      "", 0 },
    { GOOD "batch_input { kind: BATCH_ITEM_SHAPE source_input: 'a' }",
      "model 'm' batch_input[0]: data_type must be TYPE_INT32 or TYPE_FP32 (found TYPE_INVALID); "
      "model 'm' batch_input[0]: expected at least one target_name (found 0); model 'm' "
      "batch_input[0]: the source is not an input of the model (found 'a')",
      0 },
    { GOOD INPUT_A "} batch_input { kind: BATCH_ITEM_SHAPE target_name: ['s', 'a', 's'] data_type: "
                   "TYPE_FP32 source_input: 'a' } batch_input { kind: BATCH_ELEMENT_COUNT "
                   "target_name: 's' data_type: TYPE_INT32 source_input: 'a' }",
      "model 'm' batch_input[0]: a target can be named only once (found 's' again); model 'm' "
      "batch_input[0]: the target is an input that requests bring (found 'a'); model 'm' "
      "batch_input[1]: a target can be named only once (found 's' again); model 'm' "
      "batch_input[1]: a target can be named only once (found 's' again)",
      0 },
    { GOOD INPUT_A "} batch_output { source_input: 'a' }",
      "model 'm' batch_output[0]: expected at least one target_name (found 0)", 0 },
    { GOOD "batch_output { target_name: 'o' }",
      "model 'm' batch_output[0]: expected exactly one source_input (found 0); model 'm' "
      "batch_output[0]: the target is not an output of the model (found 'o')",
      0 },
    { GOOD INPUT_A
      "} input { name: 'o' data_type: TYPE_STRING dims: [ -1, 2 ] optional: true } "
      "model_warmup { batch_size: 4 count: 9 inputs { key: 'a' value { data_type: TYPE_FP32 dims: 1 "
      "random_data: true } } } model_warmup { name: 'all' batch_size: 1 inputs { key: 'a' value { "
      "data_type: TYPE_FP32 dims: 1 input_data_file: 'x/a' } } inputs { key: 'o' value { data_type: "
      "TYPE_STRING dims: [ 0, 2 ] zero_data: true } } }",
      "", 0 },
    { GOOD INPUT_A
      "} model_warmup { name: 'w' inputs { key: 'b' value { zero_data: true } } } "
      "model_warmup { batch_size: 5 inputs { key: 'a' value { data_type: TYPE_INT8 } } }",
      "model 'm' model_warmup[0] 'w': batch_size is out of range (found 0, expected 1 to 4); "
      "model 'm' model_warmup[0] 'w'.inputs['b']: the model has no such input (found 'b'); "
      "model 'm' model_warmup[0] 'w': input 'a' is missing; "
      "model 'm' model_warmup[1]: batch_size is out of range (found 5, expected 1 to 4); "
      "model 'm' model_warmup[1].inputs['a']: nothing says what its values are (expected zero_data, "
      "random_data or input_data_file); model 'm' model_warmup[1].inputs['a']: data_type must be that "
      "of the model's input (found TYPE_INT8, expected TYPE_FP32)",
      0 },
    { GOOD WARMUP_A("dims: [ -1, 3 ] zero_data: true"),
      "model 'm' model_warmup[0].inputs['a']: warm-up needs a size for every dimension (found [-1,3])",
      0 },
    { GOOD WARMUP_A("dims: [ 2, 4 ] zero_data: true"),
      "model 'm' model_warmup[0].inputs['a']: dims do not fit those of the model's input (found "
      "[2,4], expected [-1,3], without the batch dimension)",
      0 },
    { GOOD WARMUP_A("dims: [ 100000000, 3 ] zero_data: true"),
      "model 'm' model_warmup[0].inputs['a']: too large for a warm-up (found dims [100000000,3], "
      "expected at most 1073741824 bytes)",
      0 },
    { GOOD WARMUP_A("dims: [ 1, 3 ] input_data_file: '../secret'"),
      "model 'm' model_warmup[0].inputs['a']: input_data_file must be a file below the model's "
      "directory 'warmup' (found '../secret')",
      0 },
    { GOOD WARMUP_A("dims: [ 1, 3 ] input_data_file: '/etc/passwd'"),
      "model 'm' model_warmup[0].inputs['a']: input_data_file must be a file below the model's "
      "directory 'warmup' (found '/etc/passwd')",
      0 },
    { GOOD "optimization { priority: 7 }",
      "model 'm' optimization.priority: unknown priority (found 7, expected PRIORITY_DEFAULT, "
      "PRIORITY_MAX or PRIORITY_MIN)",
      0 },
    { GOOD
      "model_metrics { metric_control { metric_identifier { family: "
      "'nv_inference_first_response_histogram_ms' } histogram_options { buckets: [0.5, 1] } } }",
      "", 0 },
    { GOOD "model_metrics { metric_control { metric_identifier { family: 'f' } histogram_options { "
           "buckets: [2, 1] } } metric_control { metric_identifier { family: "
           "'nv_inference_first_response_histogram_ms' } } metric_control { histogram_options { "
           "buckets: [1, nan] } } }",
      "model 'm' model_metrics.metric_control[0].metric_identifier.family: this family has no "
      "settings (found 'f', expected 'nv_inference_first_response_histogram_ms'); model 'm' "
      "model_metrics.metric_control[0].histogram_options.buckets: bounds are finite and ascend "
      "(found 1 at index 1); model 'm' model_metrics.metric_control[1]: a family is set once (found "
      "3 settings, expected one); model 'm' "
      "model_metrics.metric_control[1].histogram_options.buckets: a histogram has 1 to 32 buckets "
      "(found 0); model 'm' model_metrics.metric_control[2].metric_identifier.family: this family "
      "has no settings (found '', expected 'nv_inference_first_response_histogram_ms'); model 'm' "
      "model_metrics.metric_control[2]: a family is set once (found 3 settings, expected one); "
      "model 'm' model_metrics.metric_control[2].histogram_options.buckets: bounds are finite and "
      "ascend (found nan at index 1)",
      0 },
    { GOOD "sequence_batching {}",
      "model 'm' sequence_batching: sequence batching is not supported by this server yet; remove "
      "this field to serve the model",
      0 },
    { "name: 'm' platform: 'ensemble' ensemble_scheduling {}",
      "model 'm' ensemble_scheduling: ensembles are not supported by this server yet; remove this "
      "field to serve the model",
      0 },
    { GOOD "response_cache { enable: true } instance_group { passive: true secondary_devices {} } "
           "model_repository_agents { agents {} "
           "}",
      "model 'm' response_cache: the response cache is not supported by "
      "this server yet; remove this field to serve the model; model 'm' model_repository_agents: "
      "repository agents are not supported by this server yet; remove this field to serve the "
      "model; model 'm' instance_group[0].secondary_devices: secondary devices are not supported "
      "by this server yet; remove this field to serve the model; model 'm' "
      "instance_group[0].passive: passive instances are not supported by this server yet; remove this field to serve the model",
      0 },
    { GOOD "instance_group { rate_limiter { resources [ { name: 'R' count: 1 }, { name: 'S' "
           "global: true count: 4294967295 } ] priority: 7 } } instance_group { rate_limiter {} }",
      "", 0 },
    { GOOD
      "instance_group {} instance_group { rate_limiter { resources [ { name: 'R' }, { count: 1 "
      "}, { name: 'R' global: true count: 2 }, { name: 'S' count: 1 } ] } }",
      "model 'm' instance_group[1].rate_limiter.resources[0]: resource 'R': an instance that needs "
      "none of it must not name it (found count 0, expected at least 1); model 'm' "
      "instance_group[1].rate_limiter.resources[1]: a resource needs a name (found ''); model 'm' "
      "instance_group[1].rate_limiter.resources[2]: resource 'R' is there twice (as resources[0])",
      0 },
    { GOOD "response_cache {} model_transaction_policy { decoupled: true }", "", 0 },
};

static void test_problems(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(problem_cases); i++) {
        struct config_context context = { .gpu_count = problem_cases[i].gpu_count };
        struct config_builder *b = parsed(problem_cases[i].text);
        assert_null(config_normalize(b, &context));
        tis_error *err = config_validate(b, &context);
        assert_string_equal(err ? error_text(err) : "", problem_cases[i].expected);
        if (err)
            assert_int_equal(error_code(err), TRITONSERVER_ERROR_INVALID_ARG);
        error_free(err);
        config_builder_destroy(b);
    }
}

static void test_directory_name(void **state)
{
    struct config_context context = { .directory_name = "other" };
    struct config_builder *b = parsed(GOOD);
    assert_null(config_normalize(b, &context));
    tis_error *err = config_validate(b, &context);
    assert_string_equal(error_text(err),
                        "model 'm' name: unexpected directory name 'other' for model "
                        "'m', directory name must equal model name");
    error_free(err);
    config_builder_destroy(b);
}

static void check_labels(struct model_config *c)
{
    static const char labels[] = "cat\r\ndog\n\nlast";
    assert_null(config_set_labels(c, 0, labels, strlen(labels)));
    assert_int_equal(c->outputs[0].label_count, 4);
    assert_string_equal(c->outputs[0].labels[0], "cat");
    assert_int_equal(c->outputs[0].label_bytes[0], 3);
    assert_string_equal(c->outputs[0].labels[1], "dog");
    assert_string_equal(c->outputs[0].labels[2], "");
    assert_string_equal(c->outputs[0].labels[3], "last");
    assert_null(config_set_labels(c, 0, "", 0));
    assert_int_equal(c->outputs[0].label_count, 0);
}

static void test_finished(void **state)
{
    static const char text[] =
        "name: 'm' platform: 'onnxruntime_onnx' max_batch_size: 4 dynamic_batching {}"
        "input { name: 'a' data_type: TYPE_STRING dims: [-1, 3] }"
        "input { name: 'b' data_type: TYPE_BF16 dims: 1 reshape { shape: [] } optional: true }"
        "output { name: 'o' data_type: TYPE_FP32 dims: 2 label_filename: 'l.txt' }"
        "model_transaction_policy { decoupled: true }";
    struct config_context context = { .directory_name = "m" };
    struct model_config *c = finished(text, &context);

    assert_string_equal(c->name, "m");
    assert_string_equal(c->backend, "onnxruntime");
    assert_int_equal(c->max_batch_size, 4);
    assert_int_equal(c->input_count, 2);
    assert_int_equal(c->required_input_count, 1);
    assert_int_equal(c->inputs[0].data_type, TRITONSERVER_TYPE_BYTES);
    assert_int_equal(c->inputs[0].rank, 2);
    assert_int_equal(c->inputs[0].dims[0], -1);
    assert_false(c->inputs[0].has_reshape);
    assert_int_equal(c->inputs[1].data_type, TRITONSERVER_TYPE_BF16);
    assert_true(c->inputs[1].optional && c->inputs[1].has_reshape);
    assert_int_equal(c->inputs[1].reshape_rank, 0);
    assert_string_equal(c->outputs[0].label_filename, "l.txt");
    assert_true(c->decoupled && c->message->dynamic_batching);
    assert_int_equal(strlen(c->json), c->json_len);
    assert_non_null(strstr(c->json, "\"dims\":[-1,3]"));
    assert_non_null(strstr(c->json, "\"data_type\":\"TYPE_STRING\""));
    assert_non_null(strstr(c->json, "\"preferred_batch_size\":[4]"));
    assert_int_equal(config_find_input(c, "b", 1), 1);
    assert_int_equal(config_find_input(c, "bb", 2), -1);
    assert_int_equal(config_find_output(c, "o", 1), 0);

    check_labels(c);

    /* 1.x sees what it knows: BF16 as a number, no backend. */
    struct arena a;
    struct bytes b = { 0 };
    Nvidia__Inferenceserver__ModelConfig *v1 = NULL;
    arena_init(&a, NULL, 0, 1 << 20);
    assert_null(config_to_v1(c, &a, &v1));
    text_append(&b, &v1->base, TEXT_ONE_LINE);
    assert_string_equal(
        bytes_str(&b),
        "name: \"m\" platform: \"onnxruntime_onnx\" version_policy { latest { num_versions: 1 } } "
        "max_batch_size: 4 input { name: \"a\" data_type: TYPE_STRING dims: -1 dims: 3 } input { name: "
        "\"b\" data_type: 14 dims: 1 reshape { } } output { name: \"o\" data_type: TYPE_FP32 dims: 2 "
        "label_filename: \"l.txt\" } instance_group { name: \"m\" count: 1 kind: KIND_CPU } "
        "default_model_filename: \"model.onnx\" dynamic_batching { preferred_batch_size: 4 }");
    bytes_fini(&b);
    arena_fini(&a);

    /* Text out, text in: the same. */
    config_append_text(&b, c);
    struct model_config *again = finished(bytes_str(&b), &context);
    assert_string_equal(again->json, c->json);
    bytes_fini(&b);
    config_unref(again);
    config_unref(config_ref(c));
    config_unref(c);
    config_unref(NULL);
}

/* Text -> JSON -> text -> JSON of everything that a configuration can hold, valid or not. */
static void test_round_trips(void **state)
{
    static const char *const texts[] = {
        "",
        GOOD INPUT_A "reshape { shape: [] } optional: true format: FORMAT_NCHW }",
        "name: '\\n\\\"\\\\\\u00e9\\U0001f600' parameters { key: '' value { string_value: '{}' } }",
        "version_policy { specific { versions: [9223372036854775807, -9223372036854775808] } }",
        "dynamic_batching { max_queue_delay_microseconds: 18446744073709551615 "
        "priority_queue_policy { key: 18446744073709551615 value { timeout_action: DELAY } } }",
        "sequence_batching { oldest { preferred_batch_size: [1, -2] } control_input { control { "
        "fp32_false_true: [0.1, -inf, nan, 1e-45] } } state { initial_state { zero_data: false } } }",
        "sequence_batching { direct { minimum_slot_utilization: 0.3 } iterative_sequence: true }",
        "ensemble_scheduling { step { input_map { key: 'b' value: '1' } input_map { key: 'a' } } }",
        "instance_group [{ kind: 77 gpus: [0, 1] }, { secondary_devices {} rate_limiter { resources { "
        "global: true } } }]",
        "optimization { graph { level: -1 } cuda { graph_spec { input { key: 'i' value { dim: -1 } } "
        "graph_lower_bound {} } } }",
        "model_warmup { inputs { key: 'i' value { random_data: true } } } model_metrics { "
        "metric_control { histogram_options { buckets: [0.1, 1e300] } } } runtime: 'x'",
        "batch_input { kind: BATCH_ITEM_SHAPE_FLATTEN } batch_output {} response_cache {} "
        "model_repository_agents { agents { parameters { key: 'k' value: 'v' } } } "
        "model_operations { op_library_filename: ['a', ''] } cc_model_filenames { key: '8.0' }",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct config_builder *b = parsed(texts[i]);
        struct model_config *first = NULL, *second = NULL, *third = NULL;
        struct bytes one = { 0 }, two = { 0 };
        assert_null(config_finish(&b, &first));
        config_append_text(&one, first);

        assert_null(config_parse_json(first->json, first->json_len, &b));
        assert_null(config_finish(&b, &second));
        assert_string_equal(second->json, first->json);
        config_append_text(&two, second);
        assert_string_equal(bytes_str(&two), bytes_str(&one));

        b = parsed(bytes_str(&two));
        assert_null(config_finish(&b, &third));
        assert_string_equal(third->json, first->json);
        config_unref(first);
        config_unref(second);
        config_unref(third);
        bytes_fini(&one);
        bytes_fini(&two);
    }
}

/* Types and dims may be missing while a backend can still fill them in, and not after that. */
static void test_incomplete(void **state)
{
    static const struct config_context strict;
    static const struct config_context lenient = { .incomplete = true };
    struct config_builder *b = parsed(GOOD "input { name: 'a' format: FORMAT_NHWC } output { name: "
                                           "'b' reshape {} }");
    struct model_config *c = NULL;
    assert_null(config_normalize(b, &lenient));
    assert_null(config_validate(b, &lenient));
    assert_null(config_finish(&b, &c));
    assert_null(config_check(c, &lenient));
    tis_error *err = config_check(c, &strict);
    static const char *const expected[] = {
        "input[0] 'a'.data_type: model input must specify 'data_type'",
        "input[0] 'a'.dims: model input must specify 'dims'",
        "input[0] 'a'.format: model input NHWC/NCHW require 3 dims (found 0)",
        "output[0] 'b'.data_type: model output must specify 'data_type'",
        "output[0] 'b'.dims: model output must specify 'dims'",
    };
    for (size_t i = 0; i < ARRAY_LEN(expected); i++)
        assert_non_null(strstr(error_text(err), expected[i]));
    error_free(err);
    config_unref(c);

    /* What a backend cannot mend is a problem at once. */
    b = parsed(GOOD "input { name: 'a' dims: 0 }");
    err = config_validate(b, &lenient);
    assert_non_null(strstr(error_text(err), "dimension must be integer >= 1"));
    error_free(err);
    config_builder_destroy(b);
}

static void test_many_tensors(void **state)
{
    enum {
        COUNT = 500
    };
    struct bytes b = { 0 };
    bytes_append_str(&b, GOOD);
    for (int i = 0; i < COUNT; i++)
        bytes_printf(&b, "input { name: 'in%d' data_type: TYPE_FP32 dims: %d }\n", i, i + 1);
    struct model_config *c = finished(bytes_str(&b), &(struct config_context){ 0 });
    for (int i = 0; i < COUNT + 20; i++) {
        char name[32];
        int len = snprintf(name, sizeof(name), "in%d", i);
        assert_int_equal(config_find_input(c, name, (size_t)len), i < COUNT ? i : -1);
    }
    assert_int_equal(config_find_output(c, "in1", 3), -1);
    config_unref(c);
    bytes_fini(&b);
}

static void test_change(void **state)
{
    static const char json[] =
        "{\"name\":\"evil\",\"max_batch_size\":2,\"input\":[{\"name\":\"x\","
        "\"data_type\":\"TYPE_INT8\",\"dims\":[\"5\"]}],\"output\":[],"
        "\"dynamic_batching\":{},\"model_transaction_policy\":{\"decoupled\":"
        "true},\"backend\":\"evil\"}";
    struct config_context context = { 0 };
    struct model_config *c = finished(GOOD INPUT_A "}", &context);
    struct config_builder *b = NULL;
    struct model_config *changed = NULL;

    assert_null(config_update(c, json, strlen(json), &b));
    assert_null(config_normalize(b, &context));
    assert_null(config_validate(b, &context));
    assert_null(config_finish(&b, &changed));
    assert_string_equal(changed->name, "m");
    assert_string_equal(changed->backend, "onnxruntime");
    assert_int_equal(changed->max_batch_size, 2);
    assert_int_equal(changed->input_count, 1);
    assert_string_equal(changed->inputs[0].name, "x");
    assert_int_equal(changed->inputs[0].dims[0], 5);
    assert_true(changed->decoupled && changed->message->dynamic_batching);
    assert_string_equal(c->inputs[0].name, "a");
    config_unref(changed);

    tis_error *err = config_update(c, "{\"maxx\":1}", 10, &b);
    assert_string_equal(error_text(err),
                        "model 'm', configuration from its backend: ModelConfig has "
                        "no field named 'maxx'");
    error_free(err);
    err = config_parse_json("{", 1, &b);
    assert_non_null(err);
    error_free(err);

    assert_null(config_parse_json(c->json, c->json_len, &b));
    assert_null(config_finish(&b, &changed));
    assert_string_equal(changed->json, c->json);
    config_unref(changed);

    assert_null(config_create_empty(&b));
    config_builder_destroy(b);
    config_builder_destroy(NULL);
    config_unref(c);
}

static void test_parse_errors(void **state)
{
    struct config_builder *b = NULL;
    static const char text[] = "name: 'm'\nmax_batchsize: 4\nplatfrom: 'x'\n";
    tis_error *err = config_parse_text(text, strlen(text), "m/config.pbtxt", &b);
    assert_string_equal(
        error_text(err),
        "m/config.pbtxt:2:1: ModelConfig has no field named 'max_batchsize'; did you "
        "mean 'max_batch_size'?; m/config.pbtxt:3:1: ModelConfig has no field named "
        "'platfrom'; did you mean 'platform'?");
    error_free(err);
    assert_null(b);

    b = parsed("tags { key: 'a' value: 'b' }"); /* 0.9's name */
    assert_int_equal(b->message->n_metric_tags, 1);
    config_builder_destroy(b);

    char *large = calloc(1, CONFIG_TEXT_BYTES_MAX + 1);
    err = config_parse_text(large, CONFIG_TEXT_BYTES_MAX + 1, "f", &b);
    assert_non_null(err);
    error_free(err);
    free(large);
}

static void test_versions(void **state)
{
    static const int64_t available[] = { 3, 1, 20, 7 };
    static const struct {
        const char *text;
        size_t count;
        size_t expected_count;
        int64_t expected[4];
    } cases[] = {
        { "", 4, 1, { 20 } },
        { "version_policy {}", 4, 1, { 20 } },
        { "version_policy { latest { num_versions: 2 } }", 4, 2, { 7, 20 } },
        { "version_policy { latest { num_versions: 9 } }", 4, 4, { 1, 3, 7, 20 } },
        { "version_policy { all {} }", 4, 4, { 1, 3, 7, 20 } },
        { "version_policy { specific { versions: [20, 3, 4] } }", 4, 2, { 3, 20 } },
        { "version_policy { specific { versions: 4 } }", 4, 0, { 0 } },
        { "version_policy { all {} }", 0, 0, { 0 } },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct config_builder *b = parsed(cases[i].text);
        int64_t selected[4];
        size_t count = 99;
        config_select_versions(b->message->version_policy, available, cases[i].count, selected,
                               &count);
        assert_int_equal(count, cases[i].expected_count);
        for (size_t k = 0; k < count; k++)
            assert_int_equal(selected[k], cases[i].expected[k]);
        config_builder_destroy(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normalize),      cmocka_unit_test(test_problems),
        cmocka_unit_test(test_directory_name), cmocka_unit_test(test_finished),
        cmocka_unit_test(test_many_tensors),   cmocka_unit_test(test_change),
        cmocka_unit_test(test_parse_errors),   cmocka_unit_test(test_versions),
        cmocka_unit_test(test_round_trips),    cmocka_unit_test(test_incomplete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
