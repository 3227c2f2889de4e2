#include "exec/host_alias.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#define HOST_NAME "libtritonserver"
#define HOST_SONAME HOST_NAME ".so"

enum {
    NAME_BYTES_MAX = 256
};

/* A file in memory; every access to it is checked against its size. */
struct image {
    const char *bytes;
    size_t size;
    const char *path;
};

static const void *image_at(const struct image *im, uint64_t offset, uint64_t bytes)
{
    if (offset > im->size || bytes > im->size - offset)
        return NULL;
    return im->bytes + offset;
}

static tis_error *not_elf(const struct image *im)
{
    return error_new(TRITONSERVER_ERROR_INVALID_ARG,
                     "'%s' is not a shared object for this machine (64-bit ELF expected)",
                     im->path);
}

/* The program header of type `type` that satisfies: covers the address when address is not 0. */
static bool find_segment(const struct image *im, const Elf64_Ehdr *head, uint32_t type,
                         uint64_t address, Elf64_Phdr *ret_segment)
{
    for (uint16_t i = 0; i < head->e_phnum; i++) {
        const void *at = image_at(im, head->e_phoff + i * sizeof(Elf64_Phdr), sizeof(Elf64_Phdr));
        if (!at)
            return false;
        Elf64_Phdr segment;
        memcpy(&segment, at, sizeof(segment));
        if (segment.p_type != type)
            continue;
        if (address && (address < segment.p_vaddr || address - segment.p_vaddr >= segment.p_filesz))
            continue;
        *ret_segment = segment;
        return true;
    }
    return false;
}

/* Entry `index` of the dynamic section; false at its end. */
static bool dynamic_entry(const struct image *im, const Elf64_Phdr *dynamic, uint64_t index,
                          Elf64_Dyn *ret_entry)
{
    if (index >= dynamic->p_filesz / sizeof(Elf64_Dyn))
        return false;
    const void *at = image_at(im, dynamic->p_offset + index * sizeof(Elf64_Dyn), sizeof(Elf64_Dyn));
    if (!at)
        return false;
    memcpy(ret_entry, at, sizeof(*ret_entry));
    return ret_entry->d_tag != DT_NULL;
}

/* ---- The empty library ---- */

/* What the loader wants of a library that defines nothing: one segment, a dynamic section, an empty
 * symbol table with its hash, and the name. */
struct empty_library {
    Elf64_Ehdr head;
    Elf64_Phdr segments[2];
    Elf64_Dyn dynamic[7];
    Elf64_Sym null_symbol;
    uint32_t hash[4]; /* one bucket, one symbol: the null symbol */
    char strings[1 + NAME_BYTES_MAX];
};

static void fill_library(struct empty_library *e, const char *soname, uint16_t machine)
{
    *e = (struct empty_library){
        .head = {
            .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
            .e_type = ET_DYN,
            .e_machine = machine,
            .e_version = EV_CURRENT,
            .e_phoff = offsetof(struct empty_library, segments),
            .e_ehsize = sizeof(Elf64_Ehdr),
            .e_phentsize = sizeof(Elf64_Phdr),
            .e_phnum = 2,
        },
        .segments = {
            { .p_type = PT_LOAD, .p_flags = PF_R | PF_W, .p_filesz = sizeof(*e),
              .p_memsz = sizeof(*e), .p_align = 4096 },
            { .p_type = PT_DYNAMIC, .p_flags = PF_R | PF_W,
              .p_offset = offsetof(struct empty_library, dynamic),
              .p_vaddr = offsetof(struct empty_library, dynamic),
              .p_filesz = sizeof(e->dynamic), .p_memsz = sizeof(e->dynamic), .p_align = 8 },
        },
        .dynamic = {
            { DT_SONAME, { 1 } },
            { DT_STRTAB, { offsetof(struct empty_library, strings) } },
            { DT_STRSZ, { sizeof(e->strings) } },
            { DT_SYMTAB, { offsetof(struct empty_library, null_symbol) } },
            { DT_SYMENT, { sizeof(Elf64_Sym) } },
            { DT_HASH, { offsetof(struct empty_library, hash) } },
            { DT_NULL, { 0 } },
        },
        .hash = { 1, 1, 0, 0 },
    };
    snprintf(e->strings + 1, NAME_BYTES_MAX, "%s", soname);
}

static tis_error *provide_name(const char *soname, uint16_t machine)
{
    void *loaded = dlopen(soname, RTLD_NOW | RTLD_NOLOAD);
    if (loaded)
        return NULL; /* by an earlier plug-in */

    struct empty_library e;
    fill_library(&e, soname, machine);
    int fd = memfd_create(HOST_NAME, MFD_CLOEXEC);
    if (fd < 0)
        return error_new(TRITONSERVER_ERROR_UNAVAILABLE, "cannot create a memory file: %s",
                         strerror(errno));
    tis_error *err = NULL;
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (write(fd, &e, sizeof(e)) != (ssize_t)sizeof(e))
        err = error_new(TRITONSERVER_ERROR_UNAVAILABLE, "cannot write a memory file: %s",
                        strerror(errno));
    else if (!dlopen(path, RTLD_NOW | RTLD_GLOBAL))
        err = error_new(TRITONSERVER_ERROR_UNAVAILABLE, "cannot provide library '%s': %s", soname,
                        dlerror());
    else
        log_verbose("library provided name=%s", soname);
    close(fd);
    return err;
}

/* ---- What the plug-in needs ---- */

static bool is_host_name(const char *name)
{
    return strncmp(name, HOST_NAME, strlen(HOST_NAME)) == 0 && strstr(name, ".so") &&
           strcmp(name, HOST_SONAME) != 0;
}

/* Where the dynamic section's strings begin in the file. */
static bool find_strings(const struct image *im, const Elf64_Ehdr *head, const Elf64_Phdr *dynamic,
                         uint64_t *ret_offset)
{
    Elf64_Dyn entry;
    Elf64_Phdr segment;
    for (uint64_t i = 0; dynamic_entry(im, dynamic, i, &entry); i++) {
        if (entry.d_tag != DT_STRTAB)
            continue;
        if (!find_segment(im, head, PT_LOAD, entry.d_un.d_ptr, &segment))
            return false;
        *ret_offset = segment.p_offset + (entry.d_un.d_ptr - segment.p_vaddr);
        return true;
    }
    return false;
}

tis_error *host_alias_scan(const char *path, const void *bytes, size_t size,
                           tis_error *(*found)(const char *name, uint16_t machine))
{
    struct image im = { .bytes = bytes, .size = size, .path = path };
    const void *at = image_at(&im, 0, sizeof(Elf64_Ehdr));
    Elf64_Ehdr head;
    Elf64_Phdr dynamic;
    uint64_t strings;
    if (!at)
        return not_elf(&im);
    memcpy(&head, at, sizeof(head));
    if (memcmp(head.e_ident, ELFMAG, SELFMAG) != 0 || head.e_ident[EI_CLASS] != ELFCLASS64 ||
        head.e_phentsize != sizeof(Elf64_Phdr) ||
        !find_segment(&im, &head, PT_DYNAMIC, 0, &dynamic) ||
        !find_strings(&im, &head, &dynamic, &strings))
        return not_elf(&im);

    tis_error *err = NULL;
    Elf64_Dyn entry;
    for (uint64_t i = 0; !err && dynamic_entry(&im, &dynamic, i, &entry); i++) {
        uint64_t offset;
        if (entry.d_tag != DT_NEEDED)
            continue;
        if (__builtin_add_overflow(strings, entry.d_un.d_val, &offset) || offset >= size)
            return not_elf(&im);
        const char *name = im.bytes + offset;
        size_t len = strnlen(name, size - offset);
        if (len < size - offset && len < NAME_BYTES_MAX && is_host_name(name))
            err = found(name, head.e_machine);
    }
    return err;
}

tis_error *host_alias_provide(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        tis_error *err = error_new(TRITONSERVER_ERROR_UNAVAILABLE, "cannot open '%s': %s", path,
                                   strerror(errno));
        if (fd >= 0)
            close(fd);
        return err;
    }
    struct image im = { .size = (size_t)st.st_size, .path = path };
    void *bytes = im.size ? mmap(NULL, im.size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    close(fd);
    if (bytes == MAP_FAILED)
        return not_elf(&im);
    tis_error *err = host_alias_scan(path, bytes, im.size, provide_name);
    munmap(bytes, im.size);
    return err;
}
