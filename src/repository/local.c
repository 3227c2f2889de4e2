#include "repository/local.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/number.h"

static tis_error *io_error(const char *what, const char *path)
{
    TRITONSERVER_Error_Code code = errno == ENOENT || errno == ENOTDIR
                                       ? TRITONSERVER_ERROR_NOT_FOUND
                                       : TRITONSERVER_ERROR_UNAVAILABLE;
    return error_new(code, "cannot %s '%s': %s", what, path, strerror(errno));
}

static tis_error *open_directory(const char *path, DIR **ret_dir)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        tis_error *err = io_error("read directory", path);
        if (fd >= 0)
            close(fd);
        return err;
    }
    *ret_dir = dir;
    return NULL;
}

/* NULL in *ret_entry at the end. */
static tis_error *next_entry(DIR *dir, const char *path, struct dirent **ret_entry)
{
    errno = 0;
    *ret_entry = readdir(dir);
    return !*ret_entry && errno != 0 ? io_error("read directory", path) : NULL;
}

/* Follows symbolic links: a model may be a link into another place. */
static bool is_directory(DIR *dir, const char *name)
{
    struct stat st;
    return fstatat(dirfd(dir), name, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void local_free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

/* Doubles *array when `count` elements fill it. */
static bool grow(void **array, size_t count, size_t element_bytes)
{
    if (count != 0 && (count & (count - 1)) != 0)
        return true;
    void *grown = realloc(*array, (count ? count * 2 : 1) * element_bytes);
    if (!grown)
        return false;
    *array = grown;
    return true;
}

static tis_error *list_names(const char *directory, bool directories_only, char ***ret_names,
                             size_t *ret_count)
{
    DIR *dir;
    tis_error *err = open_directory(directory, &dir);
    if (err)
        return err;

    void *names = NULL;
    size_t count = 0;
    for (struct dirent *e; !err && (err = next_entry(dir, directory, &e)) == NULL && e;) {
        if (e->d_name[0] == '.' || (directories_only && !is_directory(dir, e->d_name)))
            continue;
        char *copy = strdup(e->d_name);
        if (!copy || !grow(&names, count, sizeof(char *))) {
            free(copy);
            err = error_no_memory();
        } else {
            ((char **)names)[count++] = copy;
        }
    }
    closedir(dir);
    if (err) {
        local_free_names(names, count);
        return err;
    }
    if (count > 0)
        qsort(names, count, sizeof(char *), compare_names);
    *ret_names = names;
    *ret_count = count;
    return NULL;
}

tis_error *local_list_models(const char *repository, char ***ret_names, size_t *ret_count)
{
    return list_names(repository, true, ret_names, ret_count);
}

tis_error *local_list_files(const char *directory, char ***ret_names, size_t *ret_count)
{
    return list_names(directory, false, ret_names, ret_count);
}

static int compare_versions(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* "2" is a version, "02" is not: nobody could tell which of them version 2 is. */
static bool parse_version(const char *name, int64_t *ret_version)
{
    uint64_t number;
    if ((name[0] == '0' && name[1] != '\0') || !number_parse_u64(name, strlen(name), &number) ||
        number > INT64_MAX)
        return false;
    *ret_version = (int64_t)number;
    return true;
}

tis_error *local_list_versions(const char *model_directory, int64_t **ret_versions,
                               size_t *ret_count)
{
    DIR *dir;
    tis_error *err = open_directory(model_directory, &dir);
    if (err)
        return err;

    void *versions = NULL;
    size_t count = 0;
    for (struct dirent *e; !err && (err = next_entry(dir, model_directory, &e)) == NULL && e;) {
        int64_t number;
        if (!parse_version(e->d_name, &number) || !is_directory(dir, e->d_name))
            continue;
        if (!grow(&versions, count, sizeof(int64_t)))
            err = error_no_memory();
        else
            ((int64_t *)versions)[count++] = number;
    }
    closedir(dir);
    if (err) {
        free(versions);
        return err;
    }
    if (count > 0)
        qsort(versions, count, sizeof(int64_t), compare_versions);
    *ret_versions = versions;
    *ret_count = count;
    return NULL;
}

static tis_error *read_all(int fd, const char *path, size_t bytes, char **ret_text, size_t *ret_len)
{
    char *text = malloc(bytes + 1);
    if (!text)
        return error_no_memory();
    size_t len = 0;
    while (len < bytes) {
        ssize_t n = read(fd, text + len, bytes - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            tis_error *err = io_error("read", path);
            free(text);
            return err;
        }
        if (n == 0)
            break;
        len += (size_t)n;
    }
    text[len] = '\0';
    *ret_text = text;
    *ret_len = len;
    return NULL;
}

tis_error *local_read_file(const char *path, size_t bytes_max, char **ret_text, size_t *ret_len)
{
    /* O_NONBLOCK: a named pipe must not keep the thread until somebody writes into it. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return io_error("open", path);

    struct stat st;
    tis_error *err = NULL;
    if (fstat(fd, &st) != 0)
        err = io_error("read", path);
    else if (!S_ISREG(st.st_mode))
        err = error_new(TRITONSERVER_ERROR_INVALID_ARG, "'%s' is not a regular file", path);
    else if ((uint64_t)st.st_size > bytes_max)
        err = error_new(TRITONSERVER_ERROR_INVALID_ARG,
                        "'%s' has %lld bytes, more than the %zu that such a file may have", path,
                        (long long)st.st_size, bytes_max);
    else
        err = read_all(fd, path, (size_t)st.st_size, ret_text, ret_len);
    close(fd);
    return err;
}

struct file_stamp local_stamp(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return (struct file_stamp){ 0 };
    return (struct file_stamp){
        .modified_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec,
        .bytes = (uint64_t)st.st_size,
        .inode = st.st_ino,
    };
}
