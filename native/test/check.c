/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    const char *name;
    void (*run)(void);
} cases[64];
static int case_count;

void check_case(const char *name, void (*run)(void))
{
    cases[case_count].name = name;
    cases[case_count++].run = run;
}

void check_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    exit(1);
}

void check_equal(const char *file, int line, const char *what, long long actual, long long expected)
{
    if (actual != expected) {
        fprintf(stderr, "%s:%d: does not hold: %s (%lld, not %lld)\n", file, line, what, actual, expected);
        exit(1);
    }
}

void check_text(const char *file, int line, const char *what, const char *actual, const char *expected)
{
    if (NULL == strstr(actual, expected)) {
        fprintf(stderr, "%s:%d: %s is \"%s\", without \"%s\"\n", file, line, what, actual, expected);
        exit(1);
    }
}

uint64_t check_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

uint32_t check_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)((check_random(state) >> 32) % limit);
}

int main(int argc, char **argv)
{
    for (int i = 0; 2 == argc && i < case_count; i++) {
        if (0 == strcmp(cases[i].name, argv[1])) {
            alarm(50); /* a hang is a failure with a name */
            cases[i].run();
            return 0;
        }
    }
    fprintf(stderr, "usage: %s CASE\n", argv[0]);
    for (int i = 0; i < case_count; i++) {
        fprintf(stderr, "  %s\n", cases[i].name);
    }
    return 2;
}
