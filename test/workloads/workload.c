/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Connections are made in the first iterations: they are no gap of a running job. */
static const long warm_up = 5;
static const double stop_file_period = 0.2;

double wl_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double wall(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void *wl_alloc(size_t size)
{
    void *p = malloc(size > 0 ? size : 1);
    if (p == NULL) {
        fprintf(stderr, "workload: no memory for %zu bytes\n", size);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    return p;
}

/* ---- options ---- */

static const char usage[] =
    "options: --seconds S --iterations N --seed N --stop-file PATH --corrupt-at N\n"
    "         --progress S (0.5: at most one progress line in this time)\n"
    "         --hold S (sizes) --compute S (late) --no-atomics (onesided) --megabytes N (dirty, memtest)\n"
    "         --size N (cg: rows, is: keys, ft, lu: edge)\n";

static bool read_seconds(const char *text, double *value)
{
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (errno != 0 || end == text || *end != '\0' || !(v >= 0 && v <= 1e6))
        return false;
    *value = v;
    return true;
}

static bool read_number(const char *text, long *value)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || v < 0)
        return false;
    *value = v;
    return true;
}

static bool read_options(struct workload *w, int argc, char **argv)
{
    static const struct option options[] = {
        {"seconds", required_argument, NULL, 's'},    {"iterations", required_argument, NULL, 'i'},
        {"seed", required_argument, NULL, 'd'},       {"corrupt-at", required_argument, NULL, 'c'},
        {"hold", required_argument, NULL, 'h'},       {"compute", required_argument, NULL, 'p'},
        {"stop-file", required_argument, NULL, 'f'},  {"no-atomics", no_argument, NULL, 'n'},
        {"progress", required_argument, NULL, 'r'},   {"megabytes", required_argument, NULL, 'm'},
        {"size", required_argument, NULL, 'z'},       {NULL, 0, NULL, 0},
    };
    int c;
    bool ok = true;
    opterr = w->rank == 0;
    while (ok && (c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        long number = 0;
        switch (c) {
        case 's': ok = read_seconds(optarg, &w->seconds); break;
        case 'i': ok = read_number(optarg, &w->iterations); break;
        case 'd':
            ok = read_number(optarg, &number);
            w->seed = (uint64_t)number;
            break;
        case 'c': ok = read_number(optarg, &w->corrupt_at); break;
        case 'h': ok = read_seconds(optarg, &w->hold); break;
        case 'p': ok = read_seconds(optarg, &w->compute); break;
        case 'r': ok = read_seconds(optarg, &w->progress); break;
        case 'm': ok = read_number(optarg, &w->megabytes) && w->megabytes > 0 && w->megabytes <= 65536; break;
        case 'z': ok = read_number(optarg, &w->size) && w->size > 0; break;
        case 'f': w->stop_file = optarg; break;
        case 'n': w->atomics = false; break;
        default: ok = false;
        }
    }
    return ok && optind == argc;
}

void wl_init(struct workload *w, const char *name, int *argc, char ***argv, int thread_level)
{
    int provided;
    *w = (struct workload){
        .name = name, .seed = 1, .corrupt_at = -1, .hold = 0.05, .compute = 5, .megabytes = 16, .atomics = true,
        .progress = 0.5};
    MPI_Init_thread(argc, argv, thread_level, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &w->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &w->ranks);
    bool ok = read_options(w, *argc, *argv);
    if (ok && provided < thread_level) {
        fprintf(stderr, "%s: this MPI gives thread level %d, %d is needed\n", name, provided, thread_level);
        ok = false;
    }
    if (!ok) {
        if (w->rank == 0)
            fprintf(stderr, "%s: bad options\n%s", name, usage);
        MPI_Finalize();
        exit(WL_EXIT_USAGE);
    }
    if (w->seconds == 0 && w->iterations == 0 && w->stop_file == NULL)
        w->seconds = 10;
    wl_start_clock(w);
}

void wl_start_clock(struct workload *w)
{
    MPI_Barrier(MPI_COMM_WORLD);
    w->started = w->last = w->printed = wl_now();
}

void wl_usage(const struct workload *w, const char *problem)
{
    if (w->rank == 0)
        fprintf(stderr, "%s: bad options: %s\n%s", w->name, problem, usage);
    MPI_Finalize();
    exit(WL_EXIT_USAGE);
}

long wl_size(const struct workload *w, long fallback, long least, long most, bool power_of_two)
{
    const long size = w->size > 0 ? w->size : fallback;
    char problem[96];
    if (size >= least && size <= most && !(power_of_two && (size & (size - 1)) != 0))
        return size;
    snprintf(problem, sizeof problem, "--size must be %sfrom %ld to %ld", power_of_two ? "a power of two " : "", least,
             most);
    wl_usage(w, problem);
}

/* ---- known data ---- */

static inline uint64_t mix(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15u;
    return x ^ (x >> 29);
}

uint64_t wl_key(const struct workload *w, int sender, int kind)
{
    uint64_t k = mix(w->seed + 0x51);
    k = mix(k ^ (uint64_t)w->iteration);
    k = mix(k ^ ((uint64_t)sender << 20));
    return mix(k ^ (uint64_t)kind);
}

void wl_fill(void *buffer, size_t size, uint64_t key)
{
    unsigned char *p = buffer;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t word = mix(key + i);
        memcpy(p + i, &word, 8);
    }
    if (i < size) {
        uint64_t word = mix(key + i);
        memcpy(p + i, &word, size - i);
    }
}

void wl_add_checksum(struct workload *w, const void *data, size_t size, uint64_t tag)
{
    const unsigned char *p = data;
    uint64_t h = mix(tag + size);
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, p + i, size - i < 8 ? size - i : 8);
        h = mix(h ^ word);
    }
    w->checksum += h; /* a sum: checks may come in any order */
    w->checks++;
}

void wl_corrupt(struct workload *w, void *buffer, size_t size)
{
    if (w->corrupt_at < 0 || w->corrupted || size == 0 || w->iteration < w->corrupt_at
        || w->rank != w->ranks - 1)
        return;
    w->corrupted = true;
    ((unsigned char *)buffer)[size / 2] ^= 0x10;
}

void wl_check(struct workload *w, void *buffer, size_t size, uint64_t key, const char *what)
{
    unsigned char *p = buffer;
    wl_corrupt(w, buffer, size);
    for (size_t i = 0; i < size; i += 8) {
        uint64_t want = mix(key + i);
        size_t part = size - i < 8 ? size - i : 8;
        if (memcmp(p + i, &want, part) == 0)
            continue;
        unsigned char expected[8];
        memcpy(expected, &want, sizeof expected);
        for (size_t j = 0; j < part; j++)
            if (p[i + j] != expected[j])
                wl_wrong(w, "%s of %zu bytes: byte %zu is 0x%02x, should be 0x%02x", what, size, i + j,
                         p[i + j], expected[j]);
    }
    wl_add_checksum(w, buffer, size, key);
}

void wl_expect(struct workload *w, int64_t got, int64_t want, const char *what)
{
    wl_corrupt(w, &got, sizeof got);
    if (got != want)
        wl_wrong(w, "%s is %" PRId64 ", should be %" PRId64, what, got, want);
    wl_add_checksum(w, &got, sizeof got, (uint64_t)w->iteration);
}

void wl_wrong(const struct workload *w, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "WRONG %s rank %d iteration %ld t %.3f: %s\n", w->name, w->rank, w->iteration,
            wl_now() - w->started, text);
    fflush(stderr);
    MPI_Abort(MPI_COMM_WORLD, WL_EXIT_WRONG);
    abort(); /* MPI_Abort does not come back */
}

/* ---- clock and result ---- */

static void print_progress(struct workload *w, double now)
{
    printf("iter %ld t %.3f gap %.1f wall %.3f\n", w->iteration, now - w->started, w->recent_gap * 1e3,
           wall());
    fflush(stdout);
    w->printed = now;
    w->recent_gap = 0;
}

/* Rank 0: whether this iteration is to be the last. */
static bool is_over(struct workload *w)
{
    double now = wl_now();
    if (w->seconds > 0 && now - w->started >= w->seconds)
        return true;
    if (w->iterations > 0 && w->iteration + 1 >= w->iterations)
        return true;
    if (w->stop_file == NULL || now - w->looked < stop_file_period)
        return false;
    w->looked = now;
    return access(w->stop_file, F_OK) == 0;
}

bool wl_next(struct workload *w, MPI_Comm comm)
{
    int stop = w->rank == 0 && is_over(w);
    MPI_Allreduce(MPI_IN_PLACE, &stop, 1, MPI_INT, MPI_MAX, comm);

    double now = wl_now(), gap = now - w->last;
    w->last = now;
    w->iteration++;
    if (gap > w->recent_gap)
        w->recent_gap = gap;
    if (w->iteration > warm_up && gap > w->longest_gap) {
        w->longest_gap = gap;
        w->longest_at = now - w->started;
    }
    if (w->rank == 0 && now - w->printed >= w->progress)
        print_progress(w, now);
    return stop == 0;
}

int wl_finish(struct workload *w)
{
    struct result {
        double longest_gap, longest_at;
        uint64_t checksum;
        int64_t checks;
    } mine = {w->longest_gap, w->longest_at, mix(w->checksum + (uint64_t)w->rank), w->checks};
    struct result *all = w->rank == 0 ? wl_alloc(sizeof mine * (size_t)w->ranks) : NULL;
    double seconds = w->last - w->started;

    MPI_Gather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, 0, MPI_COMM_WORLD);
    bool ok = true;
    if (w->rank == 0) {
        struct result total = {0};
        for (int r = 0; r < w->ranks; r++) {
            total.checksum += all[r].checksum;
            /* A rank that checked nothing has proven nothing. */
            ok = ok && all[r].checks > 0;
            if (all[r].longest_gap > total.longest_gap) {
                total.longest_gap = all[r].longest_gap;
                total.longest_at = all[r].longest_at;
            }
        }
        free(all);
        if (w->last > w->printed)
            print_progress(w, w->last);
        printf("{\"workload\":\"%s\",\"ok\":%s,\"ranks\":%d,\"iterations\":%ld,\"seconds\":%.3f,"
               "\"meanMs\":%.4f,\"longestGapMs\":%.1f,\"longestGapAt\":%.3f,\"checksum\":\"%016" PRIx64 "\"}\n",
               w->name, ok ? "true" : "false", w->ranks, w->iteration, seconds,
               seconds * 1e3 / (double)(w->iteration > 0 ? w->iteration : 1), total.longest_gap * 1e3,
               total.longest_at, total.checksum);
        fflush(stdout);
    }
    MPI_Finalize();
    return ok ? 0 : WL_EXIT_WRONG;
}
