#include "onnxruntime/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- Session options ---- */

struct thread_counts {
    int64_t intra, inter; /* 0 = as many as the engine likes */
    int64_t parallel;     /* operators side by side: inter counts */
};

static TRITONSERVER_Error *read_thread_counts(const struct kit_config *config,
                                              struct thread_counts *ret_counts)
{
    TRITONSERVER_Error *err;

    *ret_counts = (struct thread_counts){ 1, 1, 0 };
    err = kit_config_parameter_int(config, "intra_op_thread_count", 0, 4096, &ret_counts->intra);
    if (!err)
        err =
            kit_config_parameter_int(config, "inter_op_thread_count", 0, 4096, &ret_counts->inter);
    if (!err)
        err = kit_config_parameter_int(config, "execution_mode", 0, 1, &ret_counts->parallel);
    return err;
}

static TRITONSERVER_Error *set_threads(const struct model *model, OrtSessionOptions *options)
{
    const struct ort_api *api = &model->engine->api;
    struct thread_counts counts;
    OrtStatus *status = NULL;
    TRITONSERVER_Error *err = read_thread_counts(&model->config, &counts);

    if (err)
        return err;
    status = api->SetSessionExecutionMode(options, counts.parallel ? ORT_PARALLEL : ORT_SEQUENTIAL);
    if (status)
        return engine_error(model->engine, status);
    if (model->engine->global_threads)
        return engine_error(model->engine, api->DisablePerSessionThreads(options));

    status = api->SetIntraOpNumThreads(options, (int)counts.intra);
    if (!status)
        status = api->SetInterOpNumThreads(options, (int)counts.inter);
    /* Threads that spin between runs take the time of other models' instances. */
    if (!status)
        status = api->AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0");
    if (!status)
        status = api->AddSessionConfigEntry(options, "session.inter_op.allow_spinning", "0");
    return engine_error(model->engine, status);
}

/* optimization { graph { level } }: -1 basic, 1 extended, 2 none; all by default. */
static TRITONSERVER_Error *set_optimization(const struct model *model, OrtSessionOptions *options)
{
    yyjson_val *value = kit_config_at(&model->config, "/optimization/graph/level");
    int64_t level = yyjson_get_sint(value);
    GraphOptimizationLevel ours = ORT_OPTIMIZE_ALL;

    if (level == -1)
        ours = ORT_OPTIMIZE_BASIC;
    else if (level == 1)
        ours = ORT_OPTIMIZE_EXTENDED;
    else if (level == 2)
        ours = ORT_OPTIMIZE_NONE;
    else if (level != 0)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG,
                         "optimization.graph.level is %" PRId64 ", expected -1, 0, 1 or 2", level);
    return engine_error(model->engine,
                        model->engine->api.SetSessionGraphOptimizationLevel(options, ours));
}

/* Whether inputs may come in more shapes than there are sizes of a batch. */
static bool has_free_shapes(const struct kit_config *config)
{
    for (uint32_t i = 0; i < config->input_count; i++) {
        const struct kit_tensor_config *input = &config->inputs[i];

        if (input->ragged)
            return true;
        for (uint32_t k = 0; k < input->dims_count; k++) {
            if (input->dims[k] == -1)
                return true;
        }
    }
    return false;
}

/* The engine plans its memory anew for each shape of the inputs, and keeps every plan
 * for good: that pays for a few shapes, and is a leak for any number of them. */
static TRITONSERVER_Error *set_memory(const struct model *model, OrtSessionOptions *options)
{
    const struct ort_api *api = &model->engine->api;
    int64_t arena = 1, pattern = !has_free_shapes(&model->config);
    OrtStatus *status = NULL;
    TRITONSERVER_Error *err;

    err = kit_config_parameter_int(&model->config, "enable_mem_arena", 0, 1, &arena);
    if (!err)
        err = kit_config_parameter_int(&model->config, "enable_mem_pattern", 0, 1, &pattern);
    if (err)
        return err;
    if (!arena)
        status = api->DisableCpuMemArena(options);
    if (!status && !pattern)
        status = api->DisableMemPattern(options);
    return engine_error(model->engine, status);
}

/* Parameters named session.* are the engine's own settings and go to it as they are. */
static TRITONSERVER_Error *set_entries(const struct model *model, OrtSessionOptions *options)
{
    yyjson_val *key, *value;
    size_t i, max;

    yyjson_obj_foreach(kit_config_at(&model->config, "/parameters"), i, max, key, value)
    {
        const char *name = yyjson_get_str(key);
        const char *text = yyjson_get_str(yyjson_obj_get(value, "string_value"));
        TRITONSERVER_Error *err;

        if (strncmp(name, "session.", strlen("session.")) != 0 || !text)
            continue;
        err = engine_error(model->engine,
                           model->engine->api.AddSessionConfigEntry(options, name, text));
        if (err)
            return kit_error_wrap(err, "parameter '%s'", name);
    }
    return NULL;
}

/* model_operations { op_library_filename }: libraries of custom operators. */
static TRITONSERVER_Error *set_operators(const struct model *model, OrtSessionOptions *options)
{
    yyjson_val *list = kit_config_at(&model->config, "/model_operations/op_library_filename");
    yyjson_val *value;
    size_t i, max;

    yyjson_arr_foreach(list, i, max, value)
    {
        const char *path = yyjson_get_str(value);
        TRITONSERVER_Error *err = engine_error(
            model->engine, model->engine->api.RegisterCustomOpsLibrary_V2(options, path));

        if (err)
            return kit_error_wrap(err, "operator library '%s'", path);
    }
    return NULL;
}

static TRITONSERVER_Error *set_options(const struct model *model, OrtSessionOptions *options)
{
    TRITONSERVER_Error *err;

    err = engine_error(model->engine,
                       model->engine->api.SetSessionLogId(options, model->config.name));
    if (!err)
        err = set_threads(model, options);
    if (!err)
        err = set_optimization(model, options);
    if (!err)
        err = set_memory(model, options);
    if (!err)
        err = set_operators(model, options);
    if (!err)
        err = set_entries(model, options); /* last: the user's word counts */
    return err;
}

/* What a run reports goes back with its error: the engine's own lines about it
 * would let any client fill the log. */
static TRITONSERVER_Error *create_run_options(struct model *model)
{
    static const char SHRINKAGE[] = "memory.enable_memory_arena_shrinkage"; /* such as "cpu:0" */
    const char *value = kit_config_parameter(&model->config, SHRINKAGE);
    const struct ort_api *api = &model->engine->api;
    OrtStatus *status = api->CreateRunOptions(&model->run_options);

    if (!status && !TRITONSERVER_LogIsEnabled(TRITONSERVER_LOG_VERBOSE))
        status = api->RunOptionsSetRunLogSeverityLevel(model->run_options, ORT_LOG_FATAL);
    if (!status && value)
        status = api->AddRunConfigEntry(model->run_options, SHRINKAGE, value);
    return engine_error(model->engine, status);
}

/* ---- The model file ---- */

static TRITONSERVER_Error *model_path(const struct kit_config *config, char path[],
                                      size_t path_bytes)
{
    const char *name = yyjson_get_str(kit_config_at(config, "/default_model_filename"));
    struct stat status;
    int length;

    if (!name || !*name)
        name = "model.onnx";
    length =
        snprintf(path, path_bytes, "%s/%" PRIu64 "/%s", config->directory, config->version, name);
    if (length >= 0 && (size_t)length + sizeof "/model.onnx" > path_bytes)
        return kit_error(TRITONSERVER_ERROR_INVALID_ARG, "the path of '%s' is too long", name);
    if (stat(path, &status) != 0)
        return kit_error(TRITONSERVER_ERROR_NOT_FOUND, "there is no file '%s'", path);
    if (S_ISDIR(status.st_mode)) /* a model of several files */
        snprintf(path + length, path_bytes - (size_t)length, "/model.onnx");
    return NULL;
}

/* Whether a session has threads besides the one that calls it. */
static TRITONSERVER_Error *find_own_threads(const struct model *model, bool *ret_own)
{
    struct thread_counts counts;
    TRITONSERVER_Error *err = read_thread_counts(&model->config, &counts);

    if (!err)
        *ret_own = !model->engine->global_threads &&
                   (counts.intra != 1 || (counts.parallel && counts.inter != 1));
    return err;
}

static TRITONSERVER_Error *create_session(const struct model *model, OrtSession **ret_handle)
{
    const struct ort_api *api = &model->engine->api;
    OrtSessionOptions *options = NULL;
    char path[4096];
    TRITONSERVER_Error *err;

    err = model_path(&model->config, path, sizeof path);
    if (!err)
        err = engine_error(model->engine, api->CreateSessionOptions(&options));
    if (!err)
        err = set_options(model, options);
    if (!err)
        err = engine_error(model->engine,
                           api->CreateSession(model->engine->env, path, options, ret_handle));
    if (options)
        api->ReleaseSessionOptions(options);
    return err;
}

/* ---- Ports ---- */

static bool all_ones(const int64_t *dims, uint32_t dims_count)
{
    for (uint32_t i = 0; i < dims_count; i++) {
        if (dims[i] != 1)
            return false;
    }
    return true;
}

static void fill_port(const struct kit_tensor_config *tensor, struct port *port)
{
    port->name = tensor->name;
    port->datatype = tensor->datatype;
    port->element = element_from_datatype(tensor->datatype);
    port->element_bytes = TRITONSERVER_DataTypeByteSize(tensor->datatype);
    port->config = tensor;
    port->optional = tensor->optional;
    port->ragged = tensor->ragged;
}

/* Works out whether an output's shape is known before a run, and what it is. */
static TRITONSERVER_Error *fix_output(const struct signature_tensor *tensor, bool batching,
                                      struct port *port)
{
    /* Unknown; or a scalar, which is no work to copy; or of no fixed shape. */
    if (tensor->rank == 0 || port->scatter)
        return NULL;
    port->out_dims = calloc(tensor->rank, sizeof *port->out_dims);
    if (!port->out_dims)
        return kit_error_memory(tensor->rank * sizeof *port->out_dims, "an output's shape");
    port->out_rank = tensor->rank;
    port->fixed = true;
    for (uint32_t i = batching; i < tensor->rank; i++) {
        int64_t dim = tensor->dims[i];

        if (dim == -1)
            dim = port->config->dims[i - batching];
        if (dim == -1)
            port->fixed = false;
        port->out_dims[i] = dim;
    }
    return NULL;
}

static TRITONSERVER_Error *create_ports(struct model *model)
{
    const struct kit_config *config = &model->config;
    const struct signature *s = &model->signature;

    model->inputs = calloc(config->input_count + 1, sizeof *model->inputs);
    model->outputs = calloc(config->output_count + 1, sizeof *model->outputs);
    if (!model->inputs || !model->outputs)
        return kit_error_memory(0, "a model's tensors");

    for (uint32_t i = 0; i < config->input_count; i++) {
        const struct signature_tensor *tensor =
            signature_find(s->inputs, s->input_count, config->inputs[i].name);

        fill_port(&config->inputs[i], &model->inputs[i]);
        model->inputs[i].scalar =
            tensor->rank == 0 && all_ones(config->inputs[i].dims, config->inputs[i].dims_count);
        if (model->inputs[i].scalar && model->batching &&
            model->inputs[i].datatype == TRITONSERVER_TYPE_BYTES)
            return kit_error(TRITONSERVER_ERROR_UNSUPPORTED,
                             "input '%s' is a scalar of type BYTES, expected max_batch_size 0 "
                             "for such a model",
                             model->inputs[i].name);
    }
    for (uint32_t i = 0; i < config->output_count; i++) {
        const struct signature_tensor *tensor =
            signature_find(s->outputs, s->output_count, config->outputs[i].name);
        TRITONSERVER_Error *err;

        fill_port(&config->outputs[i], &model->outputs[i]);
        for (uint32_t k = 0; k < config->batch_output_count; k++) {
            if (config->batch_outputs[k].target == i)
                model->outputs[i].scatter = &config->batch_outputs[k];
        }
        err = fix_output(tensor, model->batching, &model->outputs[i]);
        if (err)
            return err;
    }
    return NULL;
}

/* ---- What the configuration asks for and this backend does not have ---- */

static TRITONSERVER_Error *check_features(const struct kit_config *config)
{
    static const struct {
        const char *pointer, *what;
    } LISTS[] = {
        { "/sequence_batching/state", "sequence_batching.state" },
        { "/sequence_batching/control_input", "sequence_batching.control_input" },
        { "/optimization/execution_accelerators/cpu_execution_accelerator",
          "optimization.execution_accelerators.cpu_execution_accelerator" },
    };

    for (size_t i = 0; i < sizeof LISTS / sizeof *LISTS; i++) {
        if (yyjson_arr_size(kit_config_at(config, LISTS[i].pointer)) > 0)
            return kit_error(TRITONSERVER_ERROR_UNSUPPORTED,
                             "the onnxruntime backend does not support %s", LISTS[i].what);
    }
    return NULL;
}

TRITONSERVER_Error *model_open(const struct engine *engine, TRITONBACKEND_Model *handle,
                               struct model **ret_model)
{
    struct model *model = calloc(1, sizeof *model);
    OrtSession *session = NULL;
    bool own_threads = false;
    TRITONSERVER_Error *err;

    if (!model)
        return kit_error_memory(sizeof *model, "a model");
    model->engine = engine;
    err = kit_config_load(handle, &model->config);
    if (err) {
        model_close(model);
        return err;
    }

    err = check_features(&model->config);
    if (!err)
        err = find_own_threads(model, &own_threads);
    if (!err)
        err = sessions_create(model, create_session, own_threads, &model->sessions);
    if (!err)
        err = sessions_first(model->sessions, &session);
    if (!err)
        err = create_run_options(model);
    if (!err)
        err = signature_read(engine, session, &model->signature);
    if (!err)
        err = config_complete(engine, handle, &model->signature, &model->config);
    if (!err)
        err = signature_check(&model->signature, &model->config);
    model->batching = model->config.batch_size_max > 0;
    if (!err)
        err = create_ports(model);
    if (!err)
        err = padding_read(handle, model);
    if (err) {
        err = kit_error_wrap(err, "model '%s' version %" PRIu64,
                             model->config.name ? model->config.name : "", model->config.version);
        model_close(model);
        return err;
    }
    *ret_model = model;
    return NULL;
}

void model_close(struct model *model)
{
    if (!model)
        return;
    for (uint32_t i = 0; model->outputs && i < model->config.output_count; i++) {
        free(model->outputs[i].out_dims);
        free(model->outputs[i].ties);
    }
    for (uint32_t i = 0; model->inputs && i < model->config.input_count; i++)
        free(model->inputs[i].ties);
    free(model->inputs);
    free(model->outputs);
    if (model->run_options)
        model->engine->api.ReleaseRunOptions(model->run_options);
    sessions_destroy(model->sessions);
    signature_fini(&model->signature);
    kit_config_fini(&model->config);
    free(model);
}
