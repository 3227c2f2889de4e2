#include "api/call.h"

#include <assert.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/number.h"
#include "base/slab.h"
#include "infer/reason.h"
#include "infer/slabs.h"
#include "model/validate.h"

enum {
    OUT_BYTES_KEPT_MAX = 16 << 10
};

static const struct slab call_slab = { SLAB_CALL, sizeof(struct call) };

static bool http_is_cancelled(const struct call *call)
{
    return http_exchange_is_cancelled(call->ex);
}

static bool rpc_is_cancelled(const struct call *call)
{
    return grpc_exchange_is_cancelled(call->rpc);
}

static const struct grpc_exchange *rpc_exchange(const struct call *call)
{
    return call->rpc;
}

static void rpc_reply(struct call *call, const struct iovec *parts, uint32_t part_count)
{
    grpc_respond(call->rpc, parts, part_count);
}

static void rpc_fail(struct call *call, enum grpc_code code, const char *text)
{
    grpc_fail(call->rpc, code, text);
}

static const struct sink_ops call_sink_ops;

static const struct carrier http_carrier = {
    .is_cancelled = http_is_cancelled,
    .sink = &call_sink_ops,
};

static const struct carrier rpc_carrier = {
    .is_cancelled = rpc_is_cancelled,
    .exchange = rpc_exchange,
    .reply = rpc_reply,
    .fail = rpc_fail,
    .sink = &call_sink_ops,
};

void call_reply(struct call *call, const struct iovec *parts, uint32_t part_count)
{
    call->carrier->reply(call, parts, part_count);
}

void call_fail(struct call *call, enum grpc_code code, const char *text)
{
    call->carrier->fail(call, code, text);
}

struct call *call_create_on(struct api *api, const struct carrier *carrier, struct loop *loop)
{
    int is_new;
    struct call *call = slab_alloc(&call_slab, &is_new);
    if (!call)
        return NULL;
    struct bytes out = is_new ? (struct bytes){ 0 } : call->out;
    bytes_clear(&out);
    *call = (struct call){ .carrier = carrier, .api = api, .loop = loop, .out = out };
    return call;
}

struct call *call_create(struct api *api, struct http_exchange *ex)
{
    struct call *call = call_create_on(api, &http_carrier, http_exchange_loop(ex));
    if (call) {
        call->ex = ex;
        call->start_ns = ex->recv_start_ns;
    }
    return call;
}

struct call *call_create_rpc(struct api *api, struct grpc_exchange *rpc)
{
    struct call *call = call_create_on(api, &rpc_carrier, grpc_exchange_loop(rpc));
    if (call) {
        call->rpc = rpc;
        call->start_ns = rpc->recv_start_ns;
    }
    return call;
}

void call_destroy(struct call *call)
{
    if (!call)
        return;
    assert(!call->is_running);
    response_destroy(&call->response);
    request_free(&call->request);
    if (call->json)
        call->json_free(call->json);
    version_unref(call->target);
    buffer_unref(call->body);
    if (call->out.capacity > OUT_BYTES_KEPT_MAX)
        bytes_fini(&call->out);
    slab_free(&call_slab, call);
}

tis_error *call_version_number(const struct call *call, int64_t *ret_number)
{
    if (call->version.len == 0) {
        *ret_number = -1;
        return NULL;
    }
    if (number_parse_i64(call->version.at, call->version.len, ret_number) && *ret_number >= 0)
        return NULL;
    char text[64];
    size_t len = call->version.len < sizeof(text) - 1 ? call->version.len : sizeof(text) - 1;
    memcpy(text, call->version.at, len);
    text[len] = '\0';
    return reason_error(REASON_VERSION_INVALID, text);
}

tis_error *call_acquire(struct call *call)
{
    int64_t number;
    tis_error *err = call_version_number(call, &number);
    if (!err)
        err = registry_acquire(call->api->registry, call->model.at, call->model.len, number,
                               &call->target);
    return err;
}

/* ---- Inference ---- */

void call_ended(struct call *call)
{
    call->is_running = false;
    atomic_fetch_sub_explicit(&call->api->in_flight, 1, memory_order_relaxed);
}

void call_answer(struct call *call)
{
    call->request->stamps[STAMP_SEND_START] = loop_now_ns(call->loop);
    tis_error *err = NULL;
    if (!call->response)
        err = error_new(TRITONSERVER_ERROR_INTERNAL,
                        "model '%s': the backend ended the request without a response",
                        call->target->model_name);
    else if (call->response->error)
        err = error_copy(call->response->error);
    else
        err = call->dialect->encode(call);
    if (err)
        call->dialect->fail(call, err);
}

/* On the loop again: answer. */
static void call_done(struct loop_message *m)
{
    struct call *call = CONTAINER_OF(m, struct call, done);
    call_ended(call);
    call_answer(call);
}

/* Answers from outside of the call's own functions. A call of a stream may be over then; one that is
 * alone ends with its exchange, and may be gone. */
static void call_run_then(struct call *call, void (*then)(struct call *call, tis_error *err),
                          tis_error *err)
{
    bool in_stream = call->stream != NULL;
    call->is_held = true;
    then(call, err);
    if (!in_stream)
        return;
    call->is_held = false;
    call->carrier->settle(call);
}

/* Every request of this round of the loop is queued. */
static void call_wake(struct loop_message *m)
{
    struct call *call = CONTAINER_OF(m, struct call, wake);
    tis_error *refused = call->refused;
    call->refused = NULL;
    if (refused)
        call_run_then(call, call->dialect->fail, refused);
    else
        version_wake(call->target);
}

/* A backend's thread. These protocols carry one response for a request: the first counts. */
static void sink_complete(struct sink *sink, struct tis_response *response, uint32_t flags)
{
    struct call *call = sink->user;
    (void)flags;
    if (!response)
        return;
    if (atomic_exchange(&call->has_response, true)) {
        log_warning("model %s sent more than one response to a request of a protocol that carries "
                    "one; dropped",
                    sink->version->model_name);
        response_destroy(&response);
        return;
    }
    call->response = response;
}

static void sink_done(struct sink *sink, struct tis_request *request)
{
    struct call *call = sink->user;
    (void)request;
    loop_post(call->loop, &call->done);
}

static const struct sink_ops call_sink_ops = {
    .complete = sink_complete,
    .done = sink_done,
};

tis_error *call_open_request(struct call *call, int64_t version,
                             const struct infer_dialect *dialect)
{
    tis_error *err = registry_acquire(call->api->registry, call->model.at, call->model.len, version,
                                      &call->target);
    if (err)
        return err;
    call->dialect = dialect;
    if (!call->done.run)
        call->done.run = call_done;
    call->wake.run = call_wake;
    call->request = request_create(call->carrier->sink, call);
    if (!call->request)
        return error_no_memory();
    call->request->stamps[STAMP_RECV_START] = call->start_ns;
    call->request->stamps[STAMP_RECV_END] = call->recv_end_ns;
    request_start(call->request);
    call->request->body = call->body ? buffer_ref(call->body) : NULL;
    return NULL;
}

/* The headers that the model is to see become parameters. */
static tis_error *forward(struct call *call)
{
    const struct api_options *o = &call->api->options;
    if (call->ex)
        return forward_headers(o->http_forward, call->ex->headers, call->ex->header_count, false,
                               call->request);
    const struct grpc_exchange *rpc = o->grpc_forward ? call->carrier->exchange(call) : NULL;
    return rpc ? forward_headers(o->grpc_forward, rpc->metadata, rpc->metadata_count, true,
                                 call->request)
               : NULL;
}

tis_error *call_infer(struct call *call)
{
    struct tis_request *req = call->request;
    if (call->target->config->decoupled && !call->carrier->many_responses)
        return error_new(TRITONSERVER_ERROR_UNSUPPORTED,
                         "%s doesn't support models with decoupled transaction policy",
                         call->dialect->name);
    if (call->wanted_count > 0) {
        req->outputs = arena_alloc(&req->arena, call->wanted_count * sizeof(*req->outputs));
        if (!req->outputs)
            return error_no_memory();
        for (uint32_t i = 0; i < call->wanted_count; i++) {
            /* The backend is asked once for an output that is named twice. */
            if (call_wanted(call, call->wanted[i].name) == &call->wanted[i])
                req->outputs[req->output_count++] = call->wanted[i].name;
        }
    }
    tis_error *err = request_validate(req, call->target->config, call->target->model_name);
    if (!err)
        err = forward(call);
    if (err)
        return err;

    atomic_fetch_add_explicit(&call->api->in_flight, 1, memory_order_relaxed);
    call->is_running = true; /* the answer may be posted before submit returns */
    /* Before the request can run: once it does, done may be posted, and wake must come first. */
    loop_post(call->loop, &call->wake);
    call->refused = version_submit(call->target, &req);
    if (call->refused)
        call_ended(call);
    return NULL;
}

void call_cancel(struct call *call)
{
    if (call->is_running)
        version_cancel(call->target, call->request);
}

/* ---- Workers ---- */

static void work_back(struct loop_message *m)
{
    struct call *call = CONTAINER_OF(m, struct call, work_done);
    tis_error *err = call->work_error;
    call->work_error = NULL;
    if (!err && call->carrier->is_cancelled(call))
        err = reason_error_args(REASON_CANCELLED, NULL, 0);
    call->is_offloaded = false;
    call_run_then(call, call->work_then, err);
}

static void work_run(struct pool_job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, work_job);
    call->work_error = call->work(call);
    loop_post(call->loop, &call->work_done);
}

void call_offload(struct call *call, tis_error *(*work)(struct call *call),
                  void (*then)(struct call *call, tis_error *err))
{
    call->is_offloaded = true;
    call->work = work;
    call->work_then = then;
    call->work_job.run = work_run;
    call->work_done.run = work_back;
    pool_post(call->api->workers, &call->work_job);
}

const struct wanted_output *call_wanted(const struct call *call, const char *output_name)
{
    for (uint32_t i = 0; i < call->wanted_count; i++) {
        if (strcmp(call->wanted[i].name, output_name) == 0)
            return &call->wanted[i];
    }
    return NULL;
}

/* ---- Answers ---- */

void call_respond(struct call *call, int status, const char *headers)
{
    http_respond_copy(call->ex, status, headers, NULL, 0);
}

void call_respond_json(struct call *call, int status, const struct bytes *json)
{
    static const char headers[] = "Content-Type: application/json\r\n";
    if (json->failed)
        http_respond_copy(call->ex, 503, headers, "{\"error\":\"out of memory\"}", 25);
    else
        http_respond_copy(call->ex, status, headers, json->data, json->len);
}
