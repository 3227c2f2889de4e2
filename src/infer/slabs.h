/* infer/slabs.h - the kinds of slab objects (base/slab.h). */
#ifndef TIS_INFER_SLABS_H
#define TIS_INFER_SLABS_H

enum slab_kind {
    SLAB_REQUEST,
    SLAB_RESPONSE,
    SLAB_SINK,
    SLAB_FACTORY,
    SLAB_CALL,  /* api/call */
    SLAB_REPLY, /* api/call_stream */
};

#endif
