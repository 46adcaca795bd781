/* Loaded by LD_PRELOAD: counts, records and spoils the operations that change files under a folder.

   The environment variable TORTURE_CONTROL names a file of 8192 bytes, shared by all processes of a command
   (tests/torture/faults/control.py writes it). Without it every call is passed on unchanged.

   An operation is a call that changes a file or a folder, or makes changes durable. Operations are numbered from 1
   over all processes. Not seen: calls that glibc makes inside itself (fopen), static programs, and stores into mapped
   memory; a mapped file is recorded as a whole when it is flushed or unmapped. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
enum { CREATE = 1, TRUNCATE, WRITE, RENAME, UNLINK, RMDIR, MKDIR, FSYNC, LINK, SYMLINK, CLOSE, OPEN, CONTENT, ALLOCATE,
       EXCHANGE, SYNC };
enum { NONE, KILL, TORN, FULL_ONCE, FULL, FULL_SHORT, BUDGET, IO_ERROR, PAUSE };
enum { HALF = -1, PART = -2 };  /* of a write is done */

typedef struct {
    _Atomic uint64_t count, bytes;
    uint64_t number;
    uint32_t mode;
    _Atomic uint32_t fired;
    uint32_t tracing, unused[5];
    char root[2048], log[2048];
} Control;

static Control *control;
static size_t root_length;
static int log_fd = -1;
static pid_t log_owner;

typedef long (*Syscall)(long, ...);
static long raw(long n, long a, long b, long c, long d, long e, long f) {
    static _Atomic(Syscall) real;
    if (!real) real = (Syscall)dlsym(RTLD_NEXT, "syscall");
    return real(n, a, b, c, d, e, f);
}
#define RAW1(n, a) raw(n, (long)(a), 0, 0, 0, 0, 0)
#define RAW2(n, a, b) raw(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define RAW3(n, a, b, c) raw(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define RAW4(n, a, b, c, d) raw(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

/* Use another control file from now on; the fork server calls it in each process that it forks. */
EXPORT void torture_open(const char *path) {
    int fd = (int)RAW4(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) abort();
    Control *found = (Control *)raw(SYS_mmap, 0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    RAW1(SYS_close, fd);
    if (found == MAP_FAILED) abort();
    root_length = strlen(found->root);
    log_fd = -1;
    control = found;
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TORTURE_CONTROL");
    if (path && *path) torture_open(path);
}

/* Paths. */

static int under_root(const char *path) {
    return !strncmp(path, control->root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* The path of an open file, if it is under the folder and has not been removed. */
static int path_of(int fd, char *out) {
    char name[64];
    if (!control || fd < 0) return 0;
    int before = errno;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    long length = RAW4(SYS_readlinkat, AT_FDCWD, name, out, PATH_MAX - 1);
    errno = before;
    if (length <= 0) return 0;
    out[length] = 0;
    return under_root(out) && !(length > 10 && !strcmp(out + length - 10, " (deleted)"));
}

/* The absolute path of a name, without "." and ".."; links are not followed. */
static int path_at(int folder, const char *name, char *out) {
    char whole[2 * PATH_MAX], base[PATH_MAX] = "";
    if (!control || !name) return 0;
    int before = errno;
    if (name[0] != '/') {
        char link[64] = "/proc/self/cwd";
        if (folder != AT_FDCWD) snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        long length = RAW4(SYS_readlinkat, AT_FDCWD, link, base, PATH_MAX - 1);
        errno = before;
        if (length <= 0) return 0;
        base[length] = 0;
    }
    snprintf(whole, sizeof whole, "%s/%s", base, name);
    size_t end = 0;
    for (char *part = whole; *part;) {
        while (*part == '/') part++;
        size_t length = strcspn(part, "/");
        if (length == 2 && part[0] == '.' && part[1] == '.') {
            while (end && out[--end] != '/') {}
        } else if (length && !(length == 1 && part[0] == '.')) {
            if (end + length + 2 > PATH_MAX) return 0;
            out[end++] = '/';
            memcpy(out + end, part, length);
            end += length;
        }
        part += length;
    }
    out[end] = 0;
    return under_root(out);
}

/* The log: records of a head, two paths and data. The file's inode tells a rename that was not seen: some Rust
   libraries call the kernel without libc. */

typedef struct __attribute__((packed)) {
    uint32_t size, operation;
    uint64_t number, inode;
    int64_t offset;
    uint32_t process, durable;
    uint16_t first, second;
} Head;

static void record(int operation, uint64_t number, const char *path, const char *other, int64_t offset,
                   const void *data, size_t length, int durable) {
    if (!control->tracing) return;
    int before = errno;
    if (log_fd < 0 || log_owner != getpid()) {
        log_owner = getpid();
        log_fd = (int)RAW4(SYS_openat, AT_FDCWD, control->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        /* Away from the low numbers, which programs close or count on. */
        int high = log_fd < 0 ? -1 : fcntl(log_fd, F_DUPFD_CLOEXEC, 700);
        if (high >= 0) RAW1(SYS_close, log_fd), log_fd = high;
    }
    size_t first = strlen(path), second = other ? strlen(other) : 0;
    struct stat facts = {0};
    if (RAW4(SYS_newfstatat, AT_FDCWD, operation == RENAME ? other : path, &facts, AT_SYMLINK_NOFOLLOW)) facts.st_ino = 0;
    Head head = {(uint32_t)(sizeof(Head) + first + second + length), (uint32_t)operation, number, facts.st_ino, offset,
                 (uint32_t)getpid(), (uint32_t)durable, (uint16_t)first, (uint16_t)second};
    struct iovec parts[4] = {{&head, sizeof head}, {(void *)path, first}, {(void *)other, second},
                             {(void *)data, length}};
    RAW3(SYS_writev, log_fd, parts, 4);
    errno = before;
}

/* Record what a file holds from `offset` on, `length` bytes at most; for data that were never in this process. */
static void record_content(int operation, uint64_t number, const char *path, int64_t offset, size_t length,
                           int durable) {
    if (!control->tracing) return;
    int before = errno;
    int fd = (int)RAW4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    struct stat facts;
    if (fd >= 0 && !fstat(fd, &facts) && facts.st_size > offset) {
        if (length > (size_t)(facts.st_size - offset)) length = (size_t)(facts.st_size - offset);
        char *data = malloc(length + 1);
        ssize_t got = data ? pread(fd, data, length, offset) : -1;
        if (got >= 0) record(operation, number, path, NULL, offset, data, (size_t)got, durable);
        free(data);
    }
    if (fd >= 0) RAW1(SYS_close, fd);
    errno = before;
}

/* Faults. */

static int stops_at_full_disk(int operation) {
    return operation == CREATE || operation == WRITE || operation == MKDIR || operation == LINK ||
           operation == SYMLINK || operation == ALLOCATE || operation == FSYNC || operation == RENAME;
}

/* Number an operation, and return 0 to do it, an error number to fail with, or HALF or PART. */
static int enter(int operation, uint64_t *number, size_t length) {
    *number = atomic_fetch_add(&control->count, 1) + 1;
    uint64_t written = operation == WRITE ? atomic_fetch_add(&control->bytes, length) : atomic_load(&control->bytes);
    uint32_t mode = control->mode;
    if (mode == NONE) return 0;
    int here = *number == control->number, later = *number > control->number;
    if (mode == BUDGET) here = written + length > control->number, later = 0;
    if (!here && !later) return 0;
    switch (mode) {
        case KILL:
            if (!here) return 0;
            control->fired = 1;
            kill(0, SIGKILL);
            return EIO;
        case PAUSE:
            if (!here) return 0;
            control->fired = 1;
            kill(0, SIGSTOP);
            return 0;
        case TORN:
            if (!here) return 0;
            control->fired = 1;
            if (operation == WRITE) return HALF;
            kill(0, SIGKILL);
            return EIO;
        case IO_ERROR:
            if (here) control->fired = 1;
            return here ? EIO : 0;
        case FULL_ONCE:
            if (later) return 0;
            break;
        case FULL_SHORT:
            if (here && operation == WRITE) { control->fired = 1; return HALF; }
            break;
        case BUDGET:
            if (operation == WRITE && written < control->number) { control->fired = 1; return PART; }
            break;
    }
    if (!stops_at_full_disk(operation)) return 0;
    control->fired = 1;
    return ENOSPC;
}

static long failed(int error) {
    errno = error;
    return -1;
}

/* The length that a write may have. */
static size_t allowed(int verdict, size_t length) {
    if (verdict == HALF) return length / 2;
    uint64_t after = atomic_load(&control->bytes), limit = control->number;
    uint64_t before = after >= length ? after - length : 0;
    uint64_t room = limit > before ? limit - before : 0;
    return room < length ? (size_t)room : length;
}

static void end_torn(int verdict) {
    if (verdict == HALF && control->mode == TORN) kill(0, SIGKILL);
}

/* Mapped files. */

static struct { char *address; size_t length; char path[PATH_MAX]; } mapped[64];

EXPORT void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    void *found = (void *)raw(SYS_mmap, (long)address, (long)length, protection, flags, fd, offset);
    char path[PATH_MAX];
    int writes = (protection & PROT_WRITE) && (flags & MAP_SHARED) && fd >= 0;
    if (writes && found != MAP_FAILED && path_of(fd, path)) {
        for (int slot = 0; slot < 64; slot++) {
            if (mapped[slot].address) continue;
            mapped[slot].length = length;
            strcpy(mapped[slot].path, path);
            mapped[slot].address = found;
            break;
        }
    }
    return found;
}
EXPORT void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return mmap(address, length, protection, flags, fd, offset);
}

EXPORT int munmap(void *address, size_t length) {
    for (int slot = 0; slot < 64 && control; slot++) {
        if (mapped[slot].address != address || !address) continue;
        record_content(CONTENT, atomic_load(&control->count), mapped[slot].path, 0, SIZE_MAX, 0);
        mapped[slot].address = NULL;
    }
    return (int)RAW2(SYS_munmap, address, length);
}

EXPORT int msync(void *address, size_t length, int flags) {
    uint64_t number = 0;
    char path[PATH_MAX];
    for (int slot = 0; slot < 64 && control && !number; slot++) {
        char *start = mapped[slot].address;
        if (!start || (char *)address < start || (char *)address >= start + mapped[slot].length) continue;
        strcpy(path, mapped[slot].path);
        int verdict = enter(FSYNC, &number, 0);
        if (verdict) return (int)failed(verdict);
    }
    int result = (int)RAW3(SYS_msync, address, length, flags);
    if (number && !result) record_content(CONTENT, number, path, 0, SIZE_MAX, !!(flags & MS_SYNC));
    return result;
}

/* Opening and closing. */

static int open_at(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    int changes = (flags & (O_CREAT | O_TRUNC)) || (flags & O_ACCMODE) != O_RDONLY;
    if (!changes || (flags & O_PATH) || !path_at(folder, name, path))
        return (int)RAW4(SYS_openat, folder, name, flags, mode);
    int before = errno;
    struct stat facts;
    int there = !RAW4(SYS_newfstatat, AT_FDCWD, path, &facts, AT_SYMLINK_NOFOLLOW);
    errno = before;
    uint64_t number;
    int operation = !there && (flags & O_CREAT) ? CREATE : (flags & O_TRUNC) ? TRUNCATE : OPEN;
    int verdict = enter(operation, &number, 0);
    if (verdict) return (int)failed(verdict);
    int result = (int)RAW4(SYS_openat, folder, name, flags, mode);
    if (result >= 0 && ((flags & O_TMPFILE) != O_TMPFILE)) record(operation, number, path, NULL, 0, NULL, 0, 0);
    return result;
}

#define MODE_OF(flags)                                    \
    mode_t mode = 0;                                      \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {              \
        va_list list;                                     \
        va_start(list, flags);                            \
        mode = va_arg(list, mode_t);                      \
        va_end(list);                                     \
    }
EXPORT int open(const char *name, int flags, ...) { MODE_OF(flags) return open_at(AT_FDCWD, name, flags, mode); }
EXPORT int open64(const char *name, int flags, ...) { MODE_OF(flags) return open_at(AT_FDCWD, name, flags, mode); }
EXPORT int openat(int folder, const char *name, int flags, ...) {
    MODE_OF(flags) return open_at(folder, name, flags, mode);
}
EXPORT int openat64(int folder, const char *name, int flags, ...) {
    MODE_OF(flags) return open_at(folder, name, flags, mode);
}
EXPORT int __open_2(const char *name, int flags) { return open_at(AT_FDCWD, name, flags, 0); }
EXPORT int __open64_2(const char *name, int flags) { return open_at(AT_FDCWD, name, flags, 0); }
EXPORT int __openat_2(int folder, const char *name, int flags) { return open_at(folder, name, flags, 0); }
EXPORT int __openat64_2(int folder, const char *name, int flags) { return open_at(folder, name, flags, 0); }
EXPORT int creat(const char *name, mode_t mode) { return open_at(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
EXPORT int creat64(const char *name, mode_t mode) { return creat(name, mode); }

EXPORT int close(int fd) {
    char path[PATH_MAX];
    if (control && path_of(fd, path) && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY) {
        uint64_t number;
        int verdict = enter(CLOSE, &number, 0);
        int result = (int)RAW1(SYS_close, fd);
        if (verdict) return (int)failed(verdict);
        record(CLOSE, number, path, NULL, 0, NULL, 0, 0);
        return result;
    }
    return (int)RAW1(SYS_close, fd);
}

/* Writing. */

EXPORT ssize_t write(int fd, const void *data, size_t length) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return RAW3(SYS_write, fd, data, length);
    uint64_t number;
    int verdict = enter(WRITE, &number, length);
    if (verdict > 0) return failed(verdict);
    if (verdict) length = allowed(verdict, length);
    ssize_t result = RAW3(SYS_write, fd, data, length);
    end_torn(verdict);
    if (result > 0) record(WRITE, number, path, NULL, RAW3(SYS_lseek, fd, 0, SEEK_CUR) - result, data, (size_t)result, 0);
    return result;
}

EXPORT ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return RAW4(SYS_pwrite64, fd, data, length, offset);
    uint64_t number;
    int verdict = enter(WRITE, &number, length);
    if (verdict > 0) return failed(verdict);
    if (verdict) length = allowed(verdict, length);
    ssize_t result = RAW4(SYS_pwrite64, fd, data, length, offset);
    end_torn(verdict);
    if (result > 0) record(WRITE, number, path, NULL, offset, data, (size_t)result, 0);
    return result;
}
EXPORT ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) { return pwrite(fd, data, length, offset); }

/* As one write of the parts after another: a caller must expect that a writev writes less. */
EXPORT ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return RAW3(SYS_writev, fd, parts, count);
    ssize_t total = 0;
    for (int part = 0; part < count; part++) {
        if (!parts[part].iov_len) continue;
        ssize_t done = write(fd, parts[part].iov_base, parts[part].iov_len);
        if (done < 0) return total ? total : done;
        total += done;
        if ((size_t)done < parts[part].iov_len) break;
    }
    return total;
}
EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return raw(SYS_pwritev, fd, (long)parts, count, offset, 0, 0);
    ssize_t total = 0;
    for (int part = 0; part < count; part++) {
        ssize_t done = pwrite(fd, parts[part].iov_base, parts[part].iov_len, offset + total);
        if (done < 0) return total ? total : done;
        total += done;
        if ((size_t)done < parts[part].iov_len) break;
    }
    return total;
}
EXPORT ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset) {
    return pwritev(fd, parts, count, offset);
}

EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t length) {
    char path[PATH_MAX];
    if (!path_of(out, path)) return RAW4(SYS_sendfile, out, in, offset, length);
    /* The kernel would copy up to 2 GB at once; what the caller asks for may be more than there is. */
    struct stat facts;
    if (!fstat(in, &facts) && S_ISREG(facts.st_mode) && length > (size_t)facts.st_size) length = (size_t)facts.st_size;
    uint64_t number;
    int verdict = enter(WRITE, &number, length);
    if (verdict > 0) return failed(verdict);
    if (verdict) length = allowed(verdict, length);
    ssize_t result = RAW4(SYS_sendfile, out, in, offset, length);
    end_torn(verdict);
    if (result > 0)
        record_content(WRITE, number, path, RAW3(SYS_lseek, out, 0, SEEK_CUR) - result, (size_t)result, 0);
    return result;
}
EXPORT ssize_t sendfile64(int out, int in, off_t *offset, size_t length) { return sendfile(out, in, offset, length); }

EXPORT ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t length, unsigned flags) {
    char path[PATH_MAX];
    if (!path_of(out, path)) return raw(SYS_copy_file_range, in, (long)from, out, (long)to, (long)length, flags);
    struct stat facts;
    if (!fstat(in, &facts) && S_ISREG(facts.st_mode) && length > (size_t)facts.st_size) length = (size_t)facts.st_size;
    uint64_t number;
    int verdict = enter(WRITE, &number, length);
    if (verdict > 0) return failed(verdict);
    if (verdict) length = allowed(verdict, length);
    ssize_t result = raw(SYS_copy_file_range, in, (long)from, out, (long)to, (long)length, flags);
    end_torn(verdict);
    off_t end = to ? *to : RAW3(SYS_lseek, out, 0, SEEK_CUR);
    if (result > 0) record_content(WRITE, number, path, end - result, (size_t)result, 0);
    return result;
}

/* Sizes and flushing. */

EXPORT int ftruncate(int fd, off_t length) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return (int)RAW2(SYS_ftruncate, fd, length);
    uint64_t number;
    int verdict = enter(TRUNCATE, &number, 0);
    if (verdict) return (int)failed(verdict);
    int result = (int)RAW2(SYS_ftruncate, fd, length);
    if (!result) record(TRUNCATE, number, path, NULL, length, NULL, 0, 0);
    return result;
}
EXPORT int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

EXPORT int truncate(const char *name, off_t length) {
    char path[PATH_MAX];
    if (!path_at(AT_FDCWD, name, path)) return (int)RAW2(SYS_truncate, name, length);
    uint64_t number;
    int verdict = enter(TRUNCATE, &number, 0);
    if (verdict) return (int)failed(verdict);
    int result = (int)RAW2(SYS_truncate, name, length);
    if (!result) record(TRUNCATE, number, path, NULL, length, NULL, 0, 0);
    return result;
}
EXPORT int truncate64(const char *name, off_t length) { return truncate(name, length); }

EXPORT int fallocate(int fd, int mode, off_t offset, off_t length) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return (int)RAW4(SYS_fallocate, fd, mode, offset, length);
    uint64_t number;
    int verdict = enter(ALLOCATE, &number, 0);
    if (verdict) return (int)failed(verdict);
    int result = (int)RAW4(SYS_fallocate, fd, mode, offset, length);
    if (!result && !mode) record(ALLOCATE, number, path, NULL, offset + length, NULL, 0, 0);
    return result;
}
EXPORT int fallocate64(int fd, int mode, off_t offset, off_t length) { return fallocate(fd, mode, offset, length); }
EXPORT int posix_fallocate(int fd, off_t offset, off_t length) {
    int before = errno, error = fallocate(fd, 0, offset, length) ? errno : 0;
    errno = before;
    return error;
}
EXPORT int posix_fallocate64(int fd, off_t offset, off_t length) { return posix_fallocate(fd, offset, length); }

static int flush(long call, int fd) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return (int)RAW1(call, fd);
    uint64_t number;
    int verdict = enter(FSYNC, &number, 0);
    if (verdict) return (int)failed(verdict);
    for (int slot = 0; slot < 64; slot++)
        if (mapped[slot].address && !strcmp(mapped[slot].path, path))
            record_content(CONTENT, number, path, 0, SIZE_MAX, 0);
    int result = (int)RAW1(call, fd);
    if (!result) record(FSYNC, number, path, NULL, 0, NULL, 0, 1);
    return result;
}
EXPORT int fsync(int fd) { return flush(SYS_fsync, fd); }
EXPORT int fdatasync(int fd) { return flush(SYS_fdatasync, fd); }

/* Flushes everything, so it is counted without a path. */
static int flush_all(long call, long fd) {
    uint64_t number;
    int verdict = control ? enter(SYNC, &number, 0) : 0;
    if (verdict) return (int)failed(verdict);
    int result = (int)RAW1(call, fd);
    if (control && !result) record(SYNC, number, control->root, NULL, 0, NULL, 0, 1);
    return result;
}
EXPORT void sync(void) { flush_all(SYS_sync, 0); }
EXPORT int syncfs(int fd) { return flush_all(SYS_syncfs, fd); }

/* Names. */

/* An operation on one name, or on two; `call` and its arguments are the system call. */
static int change(int operation, int folder, const char *name, int other_folder, const char *other, int keeps_text,
                  long call, long a, long b, long c, long d, long e) {
    char path[PATH_MAX], second[PATH_MAX] = "";
    int concerned = path_at(folder, name, path);
    if (other && !keeps_text) concerned |= path_at(other_folder, other, second);
    if (!concerned) return (int)raw(call, a, b, c, d, e, 0);
    uint64_t number;
    int verdict = enter(operation, &number, 0);
    if (verdict) return (int)failed(verdict);
    int result = (int)raw(call, a, b, c, d, e, 0);
    if (!result) record(operation, number, path, keeps_text ? other : second, 0, NULL, 0, 0);
    return result;
}

EXPORT int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    return change(flags & RENAME_EXCHANGE ? EXCHANGE : RENAME, from, old, to, new, 0, SYS_renameat2, from, (long)old, to,
                  (long)new, flags);
}
EXPORT int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }
EXPORT int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

EXPORT int unlinkat(int folder, const char *name, int flags) {
    return change(flags & AT_REMOVEDIR ? RMDIR : UNLINK, folder, name, 0, NULL, 0, SYS_unlinkat, folder, (long)name,
                  flags, 0, 0);
}
EXPORT int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
EXPORT int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
EXPORT int remove(const char *name) {
    int result = unlink(name);
    return result && errno == EISDIR ? rmdir(name) : result;
}

EXPORT int mkdirat(int folder, const char *name, mode_t mode) {
    return change(MKDIR, folder, name, 0, NULL, 0, SYS_mkdirat, folder, (long)name, mode, 0, 0);
}
EXPORT int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

EXPORT int linkat(int from, const char *old, int to, const char *new, int flags) {
    return change(LINK, from, old, to, new, 0, SYS_linkat, from, (long)old, to, (long)new, flags);
}
EXPORT int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

EXPORT int symlinkat(const char *target, int folder, const char *name) {
    return change(SYMLINK, folder, name, 0, target, 1, SYS_symlinkat, (long)target, folder, (long)name, 0, 0);
}
EXPORT int symlink(const char *target, const char *name) { return symlinkat(target, AT_FDCWD, name); }

EXPORT long syscall(long number, ...) {
    va_list list;
    long a[6];
    va_start(list, number);
    for (int index = 0; index < 6; index++) a[index] = va_arg(list, long);
    va_end(list);
    if (control && number == SYS_renameat2)
        return renameat2((int)a[0], (const char *)a[1], (int)a[2], (const char *)a[3], (unsigned)a[4]);
    if (control && number == SYS_copy_file_range)
        return copy_file_range((int)a[0], (off_t *)a[1], (int)a[2], (off_t *)a[3], (size_t)a[4], (unsigned)a[5]);
    return raw(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
