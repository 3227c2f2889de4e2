/* repository/local.h - a model repository in a local directory.
 *
 *     <repository>/<model>/config.pbtxt
 *     <repository>/<model>/<version>/<model files>
 *
 * A model is a directory in the repository (names that begin with '.' are not; files are ignored). A
 * version is a directory in the model whose name is a decimal number without leading zeros.
 *
 * Threads: any; the functions read the file system and may block.
 */
#ifndef TIS_REPOSITORY_LOCAL_H
#define TIS_REPOSITORY_LOCAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Names of the models, sorted; free with local_free_names(). Errors: NOT_FOUND, UNAVAILABLE. */
MUST_USE tis_error *local_list_models(const char *repository, char ***ret_names, size_t *ret_count);
void local_free_names(char **names, size_t count);

/* Names of all that lies in a directory but begins with no '.', sorted; free with
 * local_free_names(). */
MUST_USE tis_error *local_list_files(const char *directory, char ***ret_names, size_t *ret_count);

/* Version numbers of a model, ascending; free() them. */
MUST_USE tis_error *local_list_versions(const char *model_directory, int64_t **ret_versions,
                                        size_t *ret_count);

/* A whole file of at most bytes_max, NUL-terminated (the NUL not counted); free() it.
 * Errors: NOT_FOUND when there is none; INVALID_ARG when larger; UNAVAILABLE. */
MUST_USE tis_error *local_read_file(const char *path, size_t bytes_max, char **ret_text,
                                    size_t *ret_len);

/* What changes when a file is written or replaced; all zeros when there is none. */
struct file_stamp {
    int64_t modified_ns; /* since 1970, by the clock of the file system */
    uint64_t bytes;
    uint64_t inode;
};

struct file_stamp local_stamp(const char *path);

#endif
