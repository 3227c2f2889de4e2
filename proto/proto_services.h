/* proto/proto_services.h - descriptors of every service that the server offers over gRPC, with all the
 * files they import: a google.protobuf.FileDescriptorSet, made at build time. */
#ifndef TIS_PROTO_PROTO_SERVICES_H
#define TIS_PROTO_PROTO_SERVICES_H

#include <stddef.h>

extern const unsigned char proto_services[];
extern const size_t proto_services_len;

#endif
