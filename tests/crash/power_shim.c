/* LD_PRELOAD: writes down, in order, every change that a process makes below POWER_ROOT, and every sync.

   The journal (POWER_JOURNAL) lies outside; power.py replays it. One change at a time: the mutex is held over the call
   and its record, so that the order of the records is the order of the changes, and the time before a change is later
   than the end of the one before it. A call that changes files in a way not written down here ends the process. SQLite's
   -shm is left out: it is mapped, and SQLite builds it anew after a crash.

   POWER_KILL "NUMBER PATH" kills the process when it is about to sync, for the NUMBERth time, what ends in PATH. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The same numbers as power.Kind. */
enum kind { CREATE = 1, WRITE, RESIZE, EXTEND, RENAME, LINK, UNLINK, MKDIR, RMDIR, SYNC_FILE, SYNC_FOLDER };

struct header {
    uint32_t magic, kind, pid, spare;
    uint64_t begin_ns, end_ns, inode;
    int64_t number; /* an offset or a size */
    uint32_t first_length, second_length;
};

static const uint32_t MAGIC = 0x50575231;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static int journal = -1;
static uint64_t begin_ns;

static void refuse(const char *what, const char *path) {
    dprintf(2, "power_shim: %s below the root, which is not written down: %s\n", what, path);
    abort();
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

__attribute__((constructor)) static void start(void) {
    const char *folder = getenv("POWER_ROOT"), *path = getenv("POWER_JOURNAL");
    if (!folder || !path || !realpath(folder, root)) {
        dprintf(2, "power_shim: POWER_ROOT must be a folder, POWER_JOURNAL a path\n");
        abort();
    }
    root_length = strlen(root);
    int low = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    journal = fcntl(low, F_DUPFD_CLOEXEC, 900); /* out of the way of whoever counts descriptors */
    if (journal < 0) {
        dprintf(2, "power_shim: %s: %s\n", path, strerror(errno));
        abort();
    }
    close(low);
}

/* The part of a path behind the root; NULL where it is not below it, or is nobody's business. */
static const char *below(const char *path) {
    if (!root_length || strncmp(path, root, root_length) != 0) return NULL;
    if (path[root_length] == 0) return "";
    if (path[root_length] != '/') return NULL;
    size_t length = strlen(path);
    if (length > 4 && strcmp(path + length - 4, "-shm") == 0) return NULL;
    return path + root_length + 1;
}

static int path_of(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, out, PATH_MAX - 1);
    if (length < 0) return -1;
    out[length] = 0;
    return 0;
}

/* The path that a call names, its folder resolved, its last part as it stands. */
static const char *named(int folder, const char *path, char *out) {
    char whole[2 * PATH_MAX], base[PATH_MAX];
    if (!root_length || !path) return NULL;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        char start_at[PATH_MAX];
        if (folder == AT_FDCWD ? !getcwd(start_at, sizeof start_at) : path_of(folder, start_at) < 0) return NULL;
        snprintf(whole, sizeof whole, "%s/%s", start_at, path);
    }
    for (size_t end = strlen(whole); end > 1 && whole[end - 1] == '/'; end--) whole[end - 1] = 0;
    char *slash = strrchr(whole, '/');
    snprintf(base, sizeof base, "%s", slash + 1);
    if (!*base || !strcmp(base, ".") || !strcmp(base, "..")) return realpath(whole, out) ? below(out) : NULL;
    *(slash == whole ? slash + 1 : slash) = 0;
    if (!realpath(whole, out)) return NULL;
    size_t length = strlen(out), base_length = strlen(base);
    if (length + base_length + 2 > PATH_MAX) return NULL;
    if (length > 1) out[length++] = '/';
    memcpy(out + length, base, base_length + 1);
    return below(out);
}

/* Is it a regular file below the root? */
static int is_ours(int fd, struct stat *found) {
    char path[PATH_MAX];
    int before = errno;
    int is = root_length && fstat(fd, found) == 0 && S_ISREG(found->st_mode) && path_of(fd, path) == 0 && below(path);
    errno = before;
    return is;
}

static void begin(void) {
    pthread_mutex_lock(&mutex);
    begin_ns = now_ns();
}

static void end(void) {
    int before = errno;
    pthread_mutex_unlock(&mutex);
    errno = before;
}

static void put(const void *bytes, size_t length) {
    for (const char *next = bytes; length;) {
        ssize_t done = syscall(SYS_write, journal, next, length);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) {
            dprintf(2, "power_shim: the journal cannot be written: %s\n", strerror(errno));
            abort();
        }
        next += done;
        length -= (size_t)done;
    }
}

static void note(enum kind kind, uint64_t inode, int64_t number, const void *first, size_t first_length,
                 const char *second) {
    int before = errno;
    struct header header = {MAGIC, kind, (uint32_t)getpid(), 0, begin_ns, now_ns(), inode, number,
                            (uint32_t)first_length, (uint32_t)(second ? strlen(second) : 0)};
    put(&header, sizeof header);
    put(first, first_length);
    put(second, header.second_length);
    errno = before;
}

static void note_path(enum kind kind, uint64_t inode, const char *path) {
    note(kind, inode, 0, path, strlen(path), NULL);
}

/* Files come into being and are emptied. */

static int open_at(int folder, const char *path, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const char *ours = flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR) ? named(folder, path, buffer) : NULL;
    if (!ours) return (int)syscall(SYS_openat, folder, path, flags, mode);
    if ((flags & O_TMPFILE) == O_TMPFILE) refuse("O_TMPFILE", path);
    struct stat was, is;
    begin();
    int existed = fstatat(folder, path, &was, AT_SYMLINK_NOFOLLOW) == 0;
    if (existed && S_ISLNK(was.st_mode)) refuse("a symbolic link", path);
    int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    if (fd >= 0 && !existed && fstat(fd, &is) == 0) note_path(CREATE, is.st_ino, ours);
    if (fd >= 0 && existed && (flags & O_TRUNC) && was.st_size > 0) note(RESIZE, was.st_ino, 0, NULL, 0, NULL);
    end();
    return fd;
}

#define WITH_MODE(flags, last)                    \
    mode_t mode = 0;                              \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list more;                             \
        va_start(more, last);                     \
        mode = va_arg(more, mode_t);              \
        va_end(more);                             \
    }
int open(const char *path, int flags, ...) { WITH_MODE(flags, flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { WITH_MODE(flags, flags) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int folder, const char *path, int flags, ...) { WITH_MODE(flags, flags) return open_at(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { WITH_MODE(flags, flags) return open_at(folder, path, flags, mode); }
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __openat_2(int folder, const char *path, int flags) { return open_at(folder, path, flags, 0); }
int __openat64_2(int folder, const char *path, int flags) { return open_at(folder, path, flags, 0); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* Data and sizes. */

static ssize_t write_here(int fd, const struct iovec *parts, int count, off_t offset, int has_offset) {
    struct stat found;
    int is = is_ours(fd, &found);
    if (is) begin();
    ssize_t done = has_offset ? syscall(SYS_pwritev, fd, parts, count, (long)offset, 0L) : syscall(SYS_writev, fd, parts, count);
    if (!is) return done;
    if (done > 0) {
        if (!has_offset) offset = lseek(fd, 0, SEEK_CUR) - done;
        if (has_offset && fcntl(fd, F_GETFL) & O_APPEND) refuse("pwrite with O_APPEND", "?");
        char *data = malloc((size_t)done);
        size_t filled = 0;
        for (int i = 0; i < count && filled < (size_t)done; i++) {
            size_t length = parts[i].iov_len < (size_t)done - filled ? parts[i].iov_len : (size_t)done - filled;
            memcpy(data + filled, parts[i].iov_base, length);
            filled += length;
        }
        note(WRITE, found.st_ino, offset, data, filled, NULL);
        free(data);
    }
    end();
    return done;
}

ssize_t write(int fd, const void *data, size_t length) {
    struct iovec part = {(void *)data, length};
    struct stat found;
    return is_ours(fd, &found) ? write_here(fd, &part, 1, 0, 0) : syscall(SYS_write, fd, data, length);
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    struct iovec part = {(void *)data, length};
    return write_here(fd, &part, 1, offset, 1);
}
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) { return pwrite(fd, data, length, offset); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return write_here(fd, parts, count, 0, 0); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return write_here(fd, parts, count, offset, 1); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset) { return write_here(fd, parts, count, offset, 1); }

int ftruncate(int fd, off_t size) {
    struct stat found;
    if (!is_ours(fd, &found)) return (int)syscall(SYS_ftruncate, fd, size);
    begin();
    int result = (int)syscall(SYS_ftruncate, fd, size);
    if (result == 0) note(RESIZE, found.st_ino, size, NULL, 0, NULL);
    end();
    return result;
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

int fallocate(int fd, int mode, off_t offset, off_t length) {
    struct stat found;
    if (!is_ours(fd, &found)) return (int)syscall(SYS_fallocate, fd, mode, offset, length);
    if (mode & ~FALLOC_FL_KEEP_SIZE) refuse("fallocate that changes data", "?");
    begin();
    int result = (int)syscall(SYS_fallocate, fd, mode, offset, length);
    if (result == 0 && mode == 0) note(EXTEND, found.st_ino, offset + length, NULL, 0, NULL);
    end();
    return result;
}
int fallocate64(int fd, int mode, off_t offset, off_t length) { return fallocate(fd, mode, offset, length); }
int posix_fallocate(int fd, off_t offset, off_t length) { return fallocate(fd, 0, offset, length) == 0 ? 0 : errno; }
int posix_fallocate64(int fd, off_t offset, off_t length) { return posix_fallocate(fd, offset, length); }

/* Names. */

static int rename_at(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    char first[PATH_MAX], second[PATH_MAX];
    const char *ours = named(from_folder, from, first), *target = named(to_folder, to, second);
    if (!ours && !target) return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    if (!ours || !target) refuse("a rename across the root's border", from);
    if (flags & ~1u) refuse("an exchanging rename", from);
    begin();
    int result = (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    if (result == 0) note(RENAME, 0, 0, ours, strlen(ours), target);
    end();
    return result;
}
int rename(const char *from, const char *to) { return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return rename_at(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return rename_at(a, from, b, to, flags); }

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    char first[PATH_MAX], second[PATH_MAX];
    const char *ours = named(from_folder, from, first), *target = named(to_folder, to, second);
    if (!target) return (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
    if (!ours) refuse("a link to a file outside", from);
    begin();
    int result = (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
    if (result == 0) note(LINK, 0, 0, ours, strlen(ours), target);
    end();
    return result;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int folder, const char *path, int flags) {
    char buffer[PATH_MAX];
    const char *ours = named(folder, path, buffer);
    if (!ours) return (int)syscall(SYS_unlinkat, folder, path, flags);
    begin();
    int result = (int)syscall(SYS_unlinkat, folder, path, flags);
    if (result == 0) note_path(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, ours);
    end();
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    struct stat found;
    if (lstat(path, &found) != 0) return -1;
    return unlinkat(AT_FDCWD, path, S_ISDIR(found.st_mode) ? AT_REMOVEDIR : 0);
}

int mkdirat(int folder, const char *path, mode_t mode) {
    char buffer[PATH_MAX];
    const char *ours = named(folder, path, buffer);
    if (!ours) return (int)syscall(SYS_mkdirat, folder, path, mode);
    begin();
    int result = (int)syscall(SYS_mkdirat, folder, path, mode);
    if (result == 0) note_path(MKDIR, 0, ours);
    end();
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* Syncs. */

static void kill_where_asked(const char *path) {
    static int seen;
    const char *asked = getenv("POWER_KILL"), *tail = asked ? strchr(asked, ' ') : NULL;
    if (!tail || strlen(path) < strlen(tail + 1) || strcmp(path + strlen(path) - strlen(tail + 1), tail + 1)) return;
    if (++seen == atoi(asked)) kill(getpid(), SIGKILL);
}

static int sync_one(long number, int fd) {
    struct stat found;
    char path[PATH_MAX];
    int is_known = fstat(fd, &found) == 0 && path_of(fd, path) == 0;
    const char *ours = is_known ? below(path) : NULL;
    if (!ours) return (int)syscall(number, fd);
    begin();
    kill_where_asked(ours);
    int result = (int)syscall(number, fd);
    if (result == 0 && S_ISREG(found.st_mode)) note_path(SYNC_FILE, found.st_ino, ours);
    if (result == 0 && S_ISDIR(found.st_mode)) note_path(SYNC_FOLDER, 0, ours);
    end();
    return result;
}
int fsync(int fd) { return sync_one(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_one(SYS_fdatasync, fd); }
void sync(void) { refuse("sync", "everything"); }
int syncfs(int fd) { (void)fd; refuse("syncfs", "everything"); return -1; }

/* What would change files unseen. */

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    struct stat found;
    char path[PATH_MAX];
    if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE) && is_ours(fd, &found) && path_of(fd, path) == 0)
        refuse("a shared mapping for writing", path);
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}
void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return mmap(address, length, protection, flags, fd, offset);
}

static FILE *fopen_as(const char *name, const char *path, const char *mode) {
    char buffer[PATH_MAX];
    if (strpbrk(mode, "wa+") && named(AT_FDCWD, path, buffer)) refuse("fopen for writing", path);
    FILE *(*real)(const char *, const char *) = (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, name);
    return real(path, mode);
}
FILE *fopen(const char *path, const char *mode) { return fopen_as("fopen", path, mode); }
FILE *fopen64(const char *path, const char *mode) { return fopen_as("fopen64", path, mode); }

static void refuse_named(const char *what, int folder, const char *path) {
    char buffer[PATH_MAX];
    if (named(folder, path, buffer)) refuse(what, path);
}
static void refuse_open(const char *what, int fd) {
    struct stat found;
    if (is_ours(fd, &found)) refuse(what, "?");
}
int symlinkat(const char *target, int folder, const char *path) {
    refuse_named("a symbolic link", folder, path);
    return (int)syscall(SYS_symlinkat, target, folder, path);
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }
int truncate(const char *path, off_t size) {
    refuse_named("truncate", AT_FDCWD, path);
    return (int)syscall(SYS_truncate, path, size);
}
int truncate64(const char *path, off_t size) { return truncate(path, size); }
ssize_t sendfile(int to, int from, off_t *offset, size_t length) {
    refuse_open("sendfile", to);
    return syscall(SYS_sendfile, to, from, offset, length);
}
ssize_t sendfile64(int to, int from, off_t *offset, size_t length) { return sendfile(to, from, offset, length); }
ssize_t copy_file_range(int from, off_t *from_offset, int to, off_t *to_offset, size_t length, unsigned flags) {
    refuse_open("copy_file_range", to);
    return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, length, flags);
}
ssize_t splice(int from, off_t *from_offset, int to, off_t *to_offset, size_t length, unsigned flags) {
    refuse_open("splice", to);
    return syscall(SYS_splice, from, from_offset, to, to_offset, length, flags);
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    refuse_open("pwritev2", fd);
    return syscall(SYS_pwritev2, fd, parts, count, (long)offset, 0L, flags);
}
