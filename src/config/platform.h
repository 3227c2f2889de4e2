/* config/platform.h - the one table that joins platforms, backends and model file names.
 *
 * A platform is the old word: engine and file form at once ("tensorflow_savedmodel"). A backend is
 * today's: the engine ("tensorflow"). What the core has to know of a backend is in its first row. */
#ifndef TIS_CONFIG_PLATFORM_H
#define TIS_CONFIG_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>

struct platform {
    const char *name; /* NULL: the backend has no platform name */
    const char *backend;
    const char *filename; /* default_model_filename; NULL: none */
    /* CPU instances of this backend compute on one thread each and share the weights, so a second one costs
     * little memory. */
    bool has_cheap_instances;
};

/* NULL when the name is not known. */
const struct platform *platform_find(const char *name);
/* The first, usual platform of a backend; NULL when the table does not know the backend. */
const struct platform *platform_find_backend(const char *backend);
/* The entry whose default file name this is; NULL when there is none. */
const struct platform *platform_find_file(const char *filename);
/* The known platform name that was probably meant; NULL when none is near. */
const char *platform_nearest(const char *name);

#endif
