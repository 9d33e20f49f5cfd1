/* SPDX-License-Identifier: Apache-2.0 */
/* One line a message on stderr, by write(2): never through the application's stdio. */
#ifndef SV_LOG_H
#define SV_LOG_H

#include <stdint.h>

enum sv_log_level { SV_LOG_OFF = -1, SV_LOG_ERROR = 0, SV_LOG_WARN = 1, SV_LOG_INFO = 2, SV_LOG_DEBUG = 3 };

extern int sv_log_threshold;

/* Reads SYMVIRT_LOG (off, error, warn, info, debug; default error). */
void sv_log_open(int rank);
void sv_log_write(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define sv_error(...) sv_log(SV_LOG_ERROR, __VA_ARGS__)
#define sv_warn(...) sv_log(SV_LOG_WARN, __VA_ARGS__)
#define sv_info(...) sv_log(SV_LOG_INFO, __VA_ARGS__)
#define sv_debug(...) sv_log(SV_LOG_DEBUG, __VA_ARGS__)
#define sv_log(level, ...) \
    do { \
        if (__builtin_expect((level) <= sv_log_threshold, 0)) { \
            sv_log_write((level), __VA_ARGS__); \
        } \
    } while (0)

/* CLOCK_MONOTONIC in microseconds. */
uint64_t sv_now_us(void);

#endif
