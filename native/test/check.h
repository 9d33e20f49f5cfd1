/* SPDX-License-Identifier: Apache-2.0 */
/* Assertions and cases. A failed check ends the process: each case runs in one of its own. */
#ifndef SV_CHECK_H
#define SV_CHECK_H

#include <stddef.h>
#include <stdint.h>

/* CASE(name) { ... } at the beginning of a line: CMake finds the cases by that. */
#define CASE(name) \
    static void case_##name(void); \
    __attribute__((constructor)) static void register_##name(void) \
    { \
        check_case(#name, case_##name); \
    } \
    static void case_##name(void)

#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))
#define CHECK_EQ(actual, expected) \
    check_equal(__FILE__, __LINE__, #actual " == " #expected, (long long)(actual), (long long)(expected))
#define CHECK_TEXT(actual, expected) check_text(__FILE__, __LINE__, #actual, (actual), (expected))

void check_case(const char *name, void (*run)(void));
_Noreturn void check_failed(const char *file, int line, const char *what);
void check_equal(const char *file, int line, const char *what, long long actual, long long expected);
/* `actual` contains `expected`. */
void check_text(const char *file, int line, const char *what, const char *actual, const char *expected);

/* xorshift64*: the same numbers in every run. */
uint64_t check_random(uint64_t *state);
/* Below `limit`, which is not 0. */
uint32_t check_below(uint64_t *state, uint32_t limit);

#endif
