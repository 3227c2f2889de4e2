/* unit/folder.h - a directory that a test makes for itself and removes.
 *
 *     static char root[] = "/tmp/test_NAME_XXXXXX";
 *     if (!mkdtemp(root))
 *         return -1;
 */
#ifndef TIS_UNIT_FOLDER_H
#define TIS_UNIT_FOLDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Writes root/path, with the directories on the way. */
static inline void folder_write(const char *root, const char *path, const char *text)
{
    char full[512];
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(full, sizeof(full), "%s/%.*s", root, (int)(slash - path), path);
        mkdir(full, 0700);
    }
    snprintf(full, sizeof(full), "%s/%s", root, path);
    FILE *f = fopen(full, "we");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* 0 when it is gone, as a tear-down of cmocka returns it. */
static inline int folder_remove(const char *root)
{
    char command[300];
    snprintf(command, sizeof(command), "rm -rf '%s'", root);
    return system(command);
}

#endif
