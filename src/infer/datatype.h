/* infer/datatype.h - the element types of tensors.
 *
 * One enum everywhere: the plug-in ABI's TRITONSERVER_DataType, whose numbers are also those of
 * DataType in model_config.proto (TYPE_STRING there is BYTES here).
 */
#ifndef TIS_INFER_DATATYPE_H
#define TIS_INFER_DATATYPE_H

#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "tis/backend.h"

/* Bytes of one element; 0 for BYTES, whose elements vary, and for INVALID. */
uint32_t datatype_bytes(TRITONSERVER_DataType type);
/* "FP32", "BYTES", ...: the word of the v2 protocol; "<invalid>" for INVALID. */
const char *datatype_name(TRITONSERVER_DataType type);
/* "TYPE_FP32", "TYPE_STRING", ...: the word of the model configuration. */
const char *datatype_config_name(TRITONSERVER_DataType type);
/* INVALID when the word is none. */
TRITONSERVER_DataType datatype_from_name(const char *name, size_t len);

#endif
