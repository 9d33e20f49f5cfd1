/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int sv_log_threshold = SV_LOG_ERROR;
static int log_rank = -1;

uint64_t sv_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

void sv_log_open(int rank)
{
    static const struct { const char *name; int level; } levels[] = {
        {"off", SV_LOG_OFF}, {"error", SV_LOG_ERROR}, {"warn", SV_LOG_WARN},
        {"info", SV_LOG_INFO}, {"debug", SV_LOG_DEBUG},
    };
    const char *wanted = secure_getenv("SYMVIRT_LOG");
    log_rank = rank;
    for (size_t i = 0; wanted && i < sizeof(levels) / sizeof(levels[0]); i++) {
        if (0 == strcmp(wanted, levels[i].name)) {
            sv_log_threshold = levels[i].level;
        }
    }
}

void sv_log_write(int level, const char *format, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    const int kept = errno;
    char line[1024];
    const uint64_t now = sv_now_us();
    int n = snprintf(line, sizeof(line), "[symvirt rank %d %llu.%03llu] %s: ", log_rank,
                     (unsigned long long)(now / 1000000u), (unsigned long long)(now / 1000u % 1000u), names[level & 3]);
    va_list arguments;
    va_start(arguments, format);
    n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, format, arguments);
    va_end(arguments);
    if (n > (int)sizeof(line) - 2) {
        n = (int)sizeof(line) - 2;
    }
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)n) < 0) {
        /* nowhere left to complain */
    }
    errno = kept;
}
