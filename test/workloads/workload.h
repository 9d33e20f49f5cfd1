/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the self-verifying MPI programs have in common: options, patterns whose every byte is
 * known, a clock over the iterations, and the one line of JSON at the end.
 *
 * Output of rank 0: about every half second (--progress)
 *     iter N t SECONDS gap MS wall EPOCH_SECONDS
 * where gap is the longest pause between two iterations since the line before, then exactly one
 * line of JSON. A wrong byte is told on stderr (what, where) and ends the job by MPI_Abort(…, 3).
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WL_EXIT_USAGE = 2, WL_EXIT_WRONG = 3 };

struct workload {
    const char *name;
    int rank, ranks;

    /* options */
    double seconds;   /* --seconds: rank 0 ends the job after that long; 0 = not by time */
    long iterations;  /* --iterations: end after that many; 0 = not by number */
    uint64_t seed;    /* --seed: other data, same checks */
    const char *stop_file; /* --stop-file: rank 0 ends the job when this file is there; NULL = never */
    long corrupt_at;  /* --corrupt-at: the last rank spoils a received byte in that iteration; -1 = never */
    double hold;      /* --hold: seconds messages stay unmatched (sizes) */
    double compute;   /* --compute: seconds without a call of MPI (late) */
    double progress;  /* --progress: seconds between progress lines at least; 0 = one an iteration */
    long megabytes;   /* --megabytes: size of a rank's array (dirty, memtest) */
    long size;        /* --size: of the problem, see wl_size; 0 = the program's own */
    bool atomics;     /* --no-atomics: no accumulate, fetch-and-op, compare-and-swap (onesided) */

    /* clock */
    long iteration; /* number of the present iteration, from 0 */
    double started, last, printed, looked;
    double recent_gap, longest_gap, longest_at; /* seconds; the last two leave out the warm-up */

    uint64_t checksum; /* of all data checked; does not depend on the order of the checks */
    long checks;
    bool corrupted;
};

/* Reads the options, starts MPI with at least the given thread level and the clock. */
void wl_init(struct workload *w, const char *name, int *argc, char ***argv, int thread_level);

/*
 * --size if it was given, else `fallback`; a size outside of least to most, or no power of two where it must be
 * one, ends the job with WL_EXIT_USAGE. What it counts (rows, keys, an edge) is the program's matter.
 */
long wl_size(const struct workload *w, long fallback, long least, long most, bool power_of_two);

/* Ends all ranks with WL_EXIT_USAGE; rank 0 says why. All must call it. */
_Noreturn void wl_usage(const struct workload *w, const char *problem);

/* Starts the clock again, on all ranks, after preparations that are no part of the job's time. */
void wl_start_clock(struct workload *w);

/* Ends an iteration: the ranks of comm agree (rank 0 decides by time) whether there is another. */
bool wl_next(struct workload *w, MPI_Comm comm);

/* Gathers all ranks' results, prints the line of JSON, ends MPI. Returns the exit code. */
int wl_finish(struct workload *w);

/* A key for the pattern of one message: who sent it, which of its kind, in which iteration. */
uint64_t wl_key(const struct workload *w, int sender, int kind);

void wl_fill(void *buffer, size_t size, uint64_t key);

/* Checks every byte against wl_fill(key) and adds them to the checksum; `what` names the transfer. */
void wl_check(struct workload *w, void *buffer, size_t size, uint64_t key, const char *what);

/* Checks one number with a known answer. */
void wl_expect(struct workload *w, int64_t got, int64_t want, const char *what);

/* Spoils a byte of received data when --corrupt-at says so (for checkers of their own). */
void wl_corrupt(struct workload *w, void *buffer, size_t size);

/* Adds checked data to the checksum under a tag that says what it is. */
void wl_add_checksum(struct workload *w, const void *data, size_t size, uint64_t tag);

/* Tells that something is wrong, and where, and ends the job with WL_EXIT_WRONG. */
_Noreturn void wl_wrong(const struct workload *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* malloc that ends the job when there is no memory. */
void *wl_alloc(size_t size);

double wl_now(void);

#endif
