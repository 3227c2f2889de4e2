/* config/config.h - the configuration of one model: read, completed, checked, published.
 *
 * A configuration grows in a struct config_builder (read from text or JSON, or empty; a backend may
 * change it; defaults are filled in; rules are checked) and ends in a struct model_config, which
 * never changes again. Both keep everything in one arena of bounded size.
 *
 *     config_parse_text | config_parse_json | config_create_empty | config_edit
 *       -> config_normalize -> config_validate -> config_finish -> struct model_config
 *
 * A model_config holds the configuration twice: as message and tensor tables for the server, and as
 * canonical JSON for backends and the v2 endpoint. It knows nothing of files: label files and model
 * files are looked for in model/.
 *
 * Ownership: a builder belongs to whoever created it; config_finish() takes it. A model_config is
 *            counted; the creator has one reference.
 * Threads:   a builder one at a time; a model_config any, its count is atomic.
 */
#ifndef TIS_CONFIG_CONFIG_H
#define TIS_CONFIG_CONFIG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/attr.h"
#include "base/bytes.h"
#include "base/error.h"
#include "proto/model_config.pb-c.h"
#include "proto/v1/model_config.pb-c.h"
#include "tis/backend.h"

enum {
    CONFIG_TEXT_BYTES_MAX = 4 << 20,    /* of a config.pbtxt or its JSON */
    CONFIG_MEMORY_BYTES_MAX = 64 << 20, /* of one configuration with its labels */
    CONFIG_METRIC_BUCKETS_MAX = 32,     /* of one histogram */
    CONFIG_PRIORITY_LEVELS_MAX = 1000,
    CONFIG_WARMUP_REQUESTS_MAX = 8192, /* in one execution of a warm-up */
    CONFIG_WARMUP_BYTES_MAX = 1 << 30, /* of one input of a warm-up request */
    CONFIG_GPUS_MAX = 32,              /* that a backend may name */
};

/* One input or output. Dimensions never include the batch dimension; -1 is any size. */
struct tensor_spec {
    const char *name;
    uint32_t name_len;
    TRITONSERVER_DataType data_type;
    const int64_t *dims; /* rank of them; what clients see */
    uint32_t rank;
    uint32_t reshape_rank;
    const int64_t *reshape; /* what the engine sees; only with has_reshape */
    bool has_reshape;
    bool optional;               /* inputs: a request may leave it out */
    bool allow_ragged;           /* inputs: may differ in shape within a batch */
    bool is_shape_tensor;        /* inputs: must be the same throughout a batch */
    const char *label_filename;  /* outputs; "" when there is none */
    const char *const *labels;   /* outputs: label_count of them, index = class; see below */
    const uint32_t *label_bytes; /* their lengths */
    uint32_t label_count;
};

/* Constant once config_finish() and, perhaps, config_set_labels() have returned. */
struct model_config {
    const Inference__ModelConfig *message;
    const char *name;
    const char *backend;
    const char *json; /* canonical, one line, NUL-terminated */
    size_t json_len;
    int32_t max_batch_size; /* 0: tensors have no batch dimension */
    uint32_t input_count;
    uint32_t output_count;
    struct tensor_spec *inputs; /* in the order of the file */
    struct tensor_spec *outputs;
    uint32_t required_input_count; /* inputs that are not optional */
    bool decoupled;
    bool instances_by_default; /* no instance group was given */
    bool has_unlike_requests;  /* not every two of them, though: their inputs differ in shape, or in
                               * which are there */

    struct arena arena;
    uint32_t *input_slots; /* hash tables: index + 1, 0 = empty; NULL for few tensors */
    uint32_t *output_slots;
    uint32_t input_slot_mask;
    uint32_t output_slot_mask;
    _Atomic uint32_t refs;
};

struct config_builder {
    bool instances_by_default;       /* no instance group was given */
    Inference__ModelConfig *message; /* never NULL; everything below it lives in the arena */
    struct arena arena;
};

/* ---- reading ---- */

/* Reads a config.pbtxt; file_name appears in errors. 0.9's `tags` is read as `metric_tags`.
 * Errors: as text_parse(). */
MUST_USE tis_error *config_parse_text(const char *text, size_t len, const char *file_name,
                                      struct config_builder **ret_builder);

/* Reads the JSON form (the config override of a load request). Errors: as json_parse_message(). */
MUST_USE tis_error *config_parse_json(const char *text, size_t len,
                                      struct config_builder **ret_builder);

/* For a model without a config.pbtxt. */
MUST_USE tis_error *config_create_empty(struct config_builder **ret_builder);

/* A copy of c, to be changed. */
MUST_USE tis_error *config_edit(const struct model_config *c, struct config_builder **ret_builder);

/* A copy of c with the instance groups of `from`, perhaps none, instead of its own: not yet normalised and
 * checked again. */
MUST_USE tis_error *config_edit_groups(const struct model_config *c,
                                       const struct config_builder *from,
                                       struct config_builder **ret_builder);

/* A copy of b. */
MUST_USE tis_error *config_builder_copy(const struct config_builder *b,
                                        struct config_builder **ret_builder);

/* What TRITONBACKEND_ModelSetConfig may do: a copy of c with max_batch_size, input, output,
 * model_transaction_policy and, when c has no scheduler, the scheduler of the JSON text; the rest
 * of the text is ignored. Not yet normalised and checked again. */
MUST_USE tis_error *config_update(const struct model_config *c, const char *json, size_t len,
                                  struct config_builder **ret_builder);

/* Appends the names of the fields in which the two differ, with ", " between them. */
void config_append_differences(struct bytes *out, const struct config_builder *a,
                               const struct config_builder *b);

/* NULL is accepted. */
void config_builder_destroy(struct config_builder *b);

/* ---- completing and checking ---- */

/* An instance group that a backend would choose for itself. */
struct group_preference {
    Inference__ModelInstanceGroup__Kind kind;
    int32_t count;                  /* 0: the default */
    uint32_t gpus[CONFIG_GPUS_MAX]; /* gpu_count of them; none: all */
    uint32_t gpu_count;
};

/* What the directory and the machine say. Zero and NULL mean "not known" and "none". */
struct config_context {
    const char *directory_name;       /* of the model's directory */
    const char *const *version_files; /* names found in the version directories, for guessing the */
    size_t version_file_count;        /* engine when the configuration names none */
    uint32_t gpu_count;
    uint32_t processor_count;                   /* that the process may keep busy */
    const struct group_preference *preferences; /* of the backend, the best one first */
    size_t preference_count;
    bool incomplete; /* data types and dims may be missing: a backend will fill them in */
};

/* Fills in what was left out: name, backend and platform (each from the other, from the model file
 * or from "<model>.<backend>"), default_model_filename, version_policy, instance
 * groups (name, kind, count, gpus), preferred batch sizes. Given values are never changed, except
 * where they mean a default (count below 1, KIND_AUTO). Running it twice changes nothing. */
MUST_USE tis_error *config_normalize(struct config_builder *b,
                                     const struct config_context *context);

/* Checks a normalised configuration; finds every problem, not just the first.
 * Errors: INVALID_ARG  the problems joined by "; ", each as
 *                      "model '<name>' <field>: <what> (found <x>, expected <y>)". Features that
 *                      this server does not have yet are problems too. */
MUST_USE tis_error *config_validate(const struct config_builder *b,
                                    const struct config_context *context);

/* The same for a final configuration that was checked with context->incomplete, once its backend has
 * had the chance to complete it. */
MUST_USE tis_error *config_check(const struct model_config *c,
                                 const struct config_context *context);

/* Makes the configuration final. Takes *b and sets it to NULL on success. */
MUST_USE tis_error *config_finish(struct config_builder **b, struct model_config **ret_config);

/* ---- using ---- */

struct model_config *config_ref(struct model_config *c);
/* NULL is accepted. */
void config_unref(struct model_config *c);

/* Gives output `index` its labels, one a line of text[0..len); "\r\n" ends a line too. Only before c
 * is shared. Errors: UNAVAILABLE  more than CONFIG_MEMORY_BYTES_MAX */
MUST_USE tis_error *config_set_labels(struct model_config *c, uint32_t index, const char *text,
                                      size_t len);

/* Index of the tensor called name[0..len), -1 when there is none. Constant time. */
int32_t config_find_input(const struct model_config *c, const char *name, size_t len);
int32_t config_find_output(const struct model_config *c, const char *name, size_t len);

/* Chooses the versions to serve: ret_selected (room for count) gets them in ascending order.
 * available need not be sorted. policy NULL: the highest one. */
void config_select_versions(const Inference__ModelVersionPolicy *policy, const int64_t *available,
                            size_t count, int64_t *ret_selected, size_t *ret_count);

/* The configuration as 1.x clients read it, in the caller's arena; what 1.x does not know is left
 * out. (0.9 clients read the same bytes: its numbers are a part of those of 1.x.) */
MUST_USE tis_error *config_to_v1(const struct model_config *c, struct arena *a,
                                 Nvidia__Inferenceserver__ModelConfig **ret_config);

/* Appends the configuration as config.pbtxt. */
void config_append_text(struct bytes *b, const struct model_config *c);

/* "TYPE_FP32", the configuration's word for a data type. "TYPE_INVALID" for an unknown one. */
const char *config_type_name(TRITONSERVER_DataType type);

#endif
