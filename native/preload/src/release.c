/* SPDX-License-Identifier: Apache-2.0 */
#include "release.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void name_it(char *what, size_t size, const char *text)
{
    const size_t used = strlen(what);
    if (used + 1 < size) {
        snprintf(what + used, size - used, "%s%s", used ? ", " : "", text);
    }
}

static int is_verbs(const char *path)
{
    return NULL != strstr(path, "/dev/infiniband/") || NULL != strstr(path, "[infinibandevent]");
}

int sv_release_scan(char *what, size_t size)
{
    int found = 0;
    char line[512], target[256];
    what[0] = '\0';
    DIR *folder = opendir("/proc/self/fd");
    if (NULL == folder) { /* no descriptor left, or no /proc: what was not seen is not released */
        name_it(what, size, "/proc/self/fd cannot be read");
        found++;
    }
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        const ssize_t n = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);
        if (n <= 0) {
            continue;
        }
        target[n] = '\0';
        if (is_verbs(target)) {
            snprintf(line, sizeof(line), "fd %.16s %.200s", entry->d_name, target);
            name_it(what, size, line);
            found++;
        }
    }
    if (folder) {
        closedir(folder);
    }
    FILE *maps = fopen("/proc/self/maps", "re");
    if (NULL == maps) {
        name_it(what, size, "/proc/self/maps cannot be read");
        found++;
    }
    while (maps && fgets(line, sizeof(line), maps)) {
        if (is_verbs(line)) {
            line[strcspn(line, "\n")] = '\0';
            const char *path = strchr(line, '/');
            snprintf(target, sizeof(target), "mapping of %.200s", path ? path : line);
            name_it(what, size, target);
            found++;
        }
    }
    if (maps) {
        fclose(maps);
    }
    return found;
}
