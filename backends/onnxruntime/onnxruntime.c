/* onnxruntime.c - the entry points of the ONNX Runtime backend.
 *
 * engine.c      the library and its environment, one in the process
 * signature.c   what a model says about its tensors
 * complete.c    configurations made from that
 * model.c       one version of a model
 * session.c     which of its instances share a session
 * instance.c    executing batches, with inputs.c and outputs.c
 */
#include "onnxruntime/instance.h"

#include <stdlib.h>

TRITONSERVER_Error *TRITONBACKEND_Initialize(TRITONBACKEND_Backend *backend)
{
    struct engine *engine = NULL;
    yyjson_doc *settings = NULL;
    TRITONSERVER_Error *err = kit_api_check(14); /* BackendAttributeSetParallel... */

    if (!err)
        err = kit_backend_config_load(backend, &settings);
    if (!err) {
        engine = calloc(1, sizeof *engine);
        err =
            engine ? engine_open(settings, engine) : kit_error_memory(sizeof *engine, "a backend");
    }
    if (!err)
        err = TRITONBACKEND_BackendSetState(backend, engine);
    yyjson_doc_free(settings);
    if (err) {
        if (engine)
            engine_close(engine);
        free(engine);
    }
    return err;
}

TRITONSERVER_Error *TRITONBACKEND_Finalize(TRITONBACKEND_Backend *backend)
{
    void *state;
    TRITONSERVER_Error *err = TRITONBACKEND_BackendState(backend, &state);

    if (err)
        return err;
    if (state)
        engine_close(state);
    free(state);
    return NULL;
}

TRITONSERVER_Error *
TRITONBACKEND_GetBackendAttribute(TRITONBACKEND_Backend *backend,
                                  TRITONBACKEND_BackendAttribute *backend_attributes)
{
    (void)backend;
    return TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(backend_attributes, true);
}

TRITONSERVER_Error *TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model *handle)
{
    TRITONBACKEND_Backend *backend;
    struct model *model = NULL;
    void *engine;
    TRITONSERVER_Error *err;

    err = TRITONBACKEND_ModelBackend(handle, &backend);
    if (!err)
        err = TRITONBACKEND_BackendState(backend, &engine);
    if (!err)
        err = model_open(engine, handle, &model);
    if (!err)
        err = TRITONBACKEND_ModelSetState(handle, model);
    if (err)
        model_close(model);
    return err;
}

TRITONSERVER_Error *TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model *handle)
{
    void *state;
    TRITONSERVER_Error *err = TRITONBACKEND_ModelState(handle, &state);

    if (err)
        return err;
    model_close(state);
    return NULL;
}

static TRITONSERVER_Error *check_kind(TRITONBACKEND_ModelInstance *handle,
                                      const struct model *model)
{
    TRITONSERVER_InstanceGroupKind kind;
    TRITONSERVER_Error *err = TRITONBACKEND_ModelInstanceKind(handle, &kind);

    if (!err && kind == TRITONSERVER_INSTANCEGROUPKIND_GPU)
        err = kit_error(TRITONSERVER_ERROR_UNSUPPORTED,
                        "model '%s': an instance has kind KIND_GPU, expected KIND_CPU: the "
                        "onnxruntime backend runs on the CPU",
                        model->config.name);
    return err;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance *handle)
{
    TRITONBACKEND_Model *model_handle;
    struct instance *instance = NULL;
    void *model;
    TRITONSERVER_Error *err;

    err = TRITONBACKEND_ModelInstanceModel(handle, &model_handle);
    if (!err)
        err = TRITONBACKEND_ModelState(model_handle, &model);
    if (!err)
        err = check_kind(handle, model);
    if (!err)
        err = instance_create(model, handle, &instance);
    if (!err)
        err = TRITONBACKEND_ModelInstanceSetState(handle, instance);
    if (err)
        instance_destroy(instance);
    return err;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance *handle)
{
    void *state;
    TRITONSERVER_Error *err = TRITONBACKEND_ModelInstanceState(handle, &state);

    if (err)
        return err;
    instance_destroy(state);
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *handle,
                                                       TRITONBACKEND_Request **requests,
                                                       uint32_t request_count)
{
    void *state;
    TRITONSERVER_Error *err = TRITONBACKEND_ModelInstanceState(handle, &state);

    if (err)
        return err; /* the requests stay with the server */
    return instance_execute(state, requests, request_count);
}
