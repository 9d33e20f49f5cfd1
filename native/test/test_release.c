/* SPDX-License-Identifier: Apache-2.0 */
/* The scan sees a card's files by their path, so files of that path under a temporary folder stand
 * for them. */
#include "release.h"
#include "check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[] = "/tmp/symvirt-release-XXXXXX";

static void path_of(char *path, size_t size, const char *rest)
{
    snprintf(path, size, "%s%s", root, rest);
}

static void clean_up(void)
{
    static const char *const rests[] = {"/dev/infiniband/uverbs0", "/dev/infiniband", "/dev", ""};
    char path[256];
    for (size_t i = 0; i < sizeof(rests) / sizeof(rests[0]); i++) {
        path_of(path, sizeof(path), rests[i]);
        remove(path);
    }
}

static int open_fake_card(void)
{
    char path[256];
    CHECK(NULL != mkdtemp(root));
    atexit(clean_up);
    path_of(path, sizeof(path), "/dev");
    CHECK_EQ(mkdir(path, 0700), 0);
    path_of(path, sizeof(path), "/dev/infiniband");
    CHECK_EQ(mkdir(path, 0700), 0);
    path_of(path, sizeof(path), "/dev/infiniband/uverbs0");
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, 4096), 0);
    return fd;
}

CASE(nothing_open)
{
    char what[160] = "left over";
    CHECK_EQ(sv_release_scan(what, sizeof(what)), 0);
    CHECK_EQ(strlen(what), 0);
}

CASE(descriptor_and_mapping)
{
    char what[160];
    const int fd = open_fake_card();
    CHECK_EQ(sv_release_scan(what, sizeof(what)), 1);
    CHECK_TEXT(what, "/dev/infiniband/uverbs0");
    void *doorbell = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(MAP_FAILED != doorbell);
    CHECK_EQ(sv_release_scan(what, sizeof(what)), 2);
    CHECK_TEXT(what, "fd ");
    CHECK_TEXT(what, "mapping of /tmp");
    close(fd);
    CHECK_EQ(sv_release_scan(what, sizeof(what)), 1);
    CHECK_TEXT(what, "mapping of /tmp");
    munmap(doorbell, 4096);
    CHECK_EQ(sv_release_scan(what, sizeof(what)), 0);
}

CASE(event_channel)
{
    char what[160];
    const int fd = memfd_create("[infinibandevent]", MFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(sv_release_scan(what, sizeof(what)), 1);
    CHECK_TEXT(what, "[infinibandevent]");
    close(fd);
}

CASE(short_room)
{
    char what[12];
    const int fd = open_fake_card();
    memset(what, 'x', sizeof(what));
    CHECK_EQ(sv_release_scan(what, sizeof(what)), 1);
    CHECK(strlen(what) < sizeof(what));
    close(fd);
}

/* "Cannot look" must not read as "nothing there". */
CASE(scan_that_cannot_look_proves_nothing)
{
    char what[160];
    const int fd = open_fake_card();
    struct rlimit before, none;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){3, before.rlim_max};
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    const int found = sv_release_scan(what, sizeof(what));
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    CHECK(found > 0);
    CHECK_TEXT(what, "/proc/self/");
    close(fd);
}
