/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that changes faster than a migration can send it: each round writes a stamp into every page
 * of an array (--megabytes, each rank its own), after it has checked that the stamp of the round
 * before is still there. A write that a migration loses is found in the next round. One small message
 * a round to the next rank keeps the ranks in step.
 */
#include "workload.h"

#include <stdlib.h>

enum { page_bytes = 4096, words = page_bytes / 8 };
typedef uint64_t page[words];

/* Which word of a page a round stamps: not always the same cache line. */
static int word_of(long round)
{
    return (int)(round * 8 % words);
}

static uint64_t stamp(const struct workload *w, long round, size_t at)
{
    return ((uint64_t)(round + 1) << 40 | (uint64_t)at) ^ (w->seed << 32) ^ (uint64_t)w->rank;
}

static void stamp_all(struct workload *w, page *array, size_t pages)
{
    const long round = w->iteration;
    uint64_t sum = 0;
    if (round > 0)
        wl_corrupt(w, &array[pages / 2][word_of(round - 1)], 8);
    for (size_t at = 0; at < pages; at++) {
        if (round > 0) {
            const uint64_t got = array[at][word_of(round - 1)], want = stamp(w, round - 1, at);
            if (got != want)
                wl_wrong(w, "page %zu of %zu: stamp 0x%016llx, should be 0x%016llx", at, pages,
                         (unsigned long long)got, (unsigned long long)want);
            sum += got;
        }
        array[at][word_of(round)] = stamp(w, round, at);
    }
    wl_add_checksum(w, &sum, sizeof sum, (uint64_t)round);
}

int main(int argc, char **argv)
{
    struct workload w;
    wl_init(&w, "dirty", &argc, &argv, MPI_THREAD_SINGLE);
    const size_t pages = (size_t)w.megabytes * ((1 << 20) / page_bytes);
    page *array = wl_alloc(pages * sizeof(page));
    const int up = (w.rank + 1) % w.ranks, down = (w.rank + w.ranks - 1) % w.ranks;
    do {
        unsigned char out[64], in[64] = {0};
        stamp_all(&w, array, pages);
        wl_fill(out, sizeof out, wl_key(&w, w.rank, 0));
        MPI_Sendrecv(out, sizeof out, MPI_BYTE, up, 0, in, sizeof in, MPI_BYTE, down, 0, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE);
        wl_check(&w, in, sizeof in, wl_key(&w, down, 0), "small message");
    } while (wl_next(&w, MPI_COMM_WORLD));
    free(array);
    return wl_finish(&w);
}
