/* strategy.c - a batching strategy that breaks the rules, one way for each model: the parameter "rule".
 *
 *     pairs                     two requests an execution
 *     all, none                 every request is included, or none is
 *     error_batcher             ModelBatcherInitialize fails
 *     error_initialize, error_include, error_finalize   that function fails for each batch
 *     touch                     asks for what it may not have: releases and answers requests
 *     null                      has nothing for its batches: ModelBatchFinalize is not called
 *
 * What happened goes to the log as "strategy RULE: WHAT".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tis/backend.h"

struct batcher {
    char rule[64];
};

struct batch {
    const struct batcher *batcher;
    int count;
};

static TRITONSERVER_Error *error(const char *text)
{
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, text);
}

static void say(const char *rule, const char *what)
{
    char text[256];
    snprintf(text, sizeof(text), "strategy %s: %s", rule, what);
    TRITONSERVER_ErrorDelete(
        TRITONSERVER_LogMessage(TRITONSERVER_LOG_INFO, __FILE__, __LINE__, text));
}

/* The value of parameter "rule" in {..."rule":{"string_value":"VALUE"}...}. */
static TRITONSERVER_Error *read_rule(TRITONBACKEND_Model *model, struct batcher *b)
{
    static const char key[] = "\"rule\":{\"string_value\":\"";
    TRITONSERVER_Message *message;
    const char *json;
    size_t len;
    TRITONSERVER_Error *err = TRITONBACKEND_ModelConfig(model, 1, &message);
    if (err)
        return err;
    err = TRITONSERVER_MessageSerializeToJson(message, &json, &len);
    const char *at = err ? NULL : strstr(json, key);
    if (at) {
        at += sizeof(key) - 1;
        snprintf(b->rule, sizeof(b->rule), "%.*s", (int)strcspn(at, "\""), at);
    }
    TRITONSERVER_ErrorDelete(TRITONSERVER_MessageDelete(message));
    return err;
}

TRITONSERVER_Error *TRITONBACKEND_ModelBatcherInitialize(TRITONBACKEND_Batcher **batcher,
                                                         TRITONBACKEND_Model *model)
{
    struct batcher *b = calloc(1, sizeof(*b));
    TRITONSERVER_Error *err = read_rule(model, b);
    *batcher = (TRITONBACKEND_Batcher *)b;
    if (!err && strcmp(b->rule, "error_batcher") == 0)
        err = error("this strategy shall not be");
    return err;
}

TRITONSERVER_Error *TRITONBACKEND_ModelBatcherFinalize(TRITONBACKEND_Batcher *batcher)
{
    struct batcher *b = (struct batcher *)batcher;
    say(b->rule, "finalized");
    free(b);
    return NULL;
}

#ifndef HALF
static int batches_open; /* the server calls from one thread at a time */

TRITONSERVER_Error *TRITONBACKEND_ModelBatchInitialize(const TRITONBACKEND_Batcher *batcher,
                                                       void **userp)
{
    const struct batcher *b = (const struct batcher *)batcher;
    if (strcmp(b->rule, "error_initialize") == 0)
        return error("no batch today");
    if (strcmp(b->rule, "null") == 0)
        return NULL;
    struct batch *batch = calloc(1, sizeof(*batch));
    batch->batcher = b;
    *userp = batch;
    if (++batches_open != 1)
        say(b->rule, "two batches at a time");
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelBatchFinalize(void *userp)
{
    struct batch *batch = userp;
    batches_open--;
    int fails = strcmp(batch->batcher->rule, "error_finalize") == 0;
    free(batch);
    return fails ? error("the end has no end") : NULL;
}

/* Requests belong to the scheduler: the answers must be errors, and nothing may happen. */
static void touch(const struct batcher *b, TRITONBACKEND_Request *request)
{
    TRITONBACKEND_Response *response;
    TRITONBACKEND_ResponseFactory *factory;
    TRITONSERVER_Error *errors[] = {
        TRITONBACKEND_RequestRelease(request, TRITONSERVER_REQUEST_RELEASE_ALL),
        TRITONBACKEND_ResponseNew(&response, request),
        TRITONBACKEND_ResponseFactoryNew(&factory, request),
    };
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        say(b->rule, errors[i] ? TRITONSERVER_ErrorCodeString(errors[i]) : "allowed");
        TRITONSERVER_ErrorDelete(errors[i]);
    }
}

TRITONSERVER_Error *TRITONBACKEND_ModelBatchIncludeRequest(TRITONBACKEND_Request *request,
                                                           void *userp, bool *should_include)
{
    struct batch *batch = userp;
    if (!batch) { /* "null" */
        *should_include = true;
        return NULL;
    }
    const char *rule = batch->batcher->rule;
    if (strcmp(rule, "error_include") == 0)
        return error("cannot say");
    if (strcmp(rule, "touch") == 0)
        touch(batch->batcher, request);
    *should_include = strcmp(rule, "none") != 0 && (strcmp(rule, "pairs") != 0 || batch->count < 2);
    batch->count++;
    return NULL;
}
#endif
