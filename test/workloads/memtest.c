/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequential writes over an array (--megabytes, each rank its own): a pass goes through all words in
 * order, checks what the pass before has written and writes the next value. So memory changes as fast
 * as it can, and a write that gets lost is found one pass later. After each pass the ranks exchange the
 * sums of what they have read; the sum of every rank is known in closed form.
 */
#include "workload.h"

#include <inttypes.h>
#include <stdlib.h>

static const uint64_t step = 0x2545f4914f6cdd1du; /* odd: no two words of an array are equal */

/* Word 0 of a rank's array after a pass; word i is i * step more. */
static uint64_t base_of(const struct workload *w, int rank, long pass)
{
    /* Differences in the low bits: a sum of very many words forgets the high ones. */
    return w->seed * 0x9e3779b97f4a7c15u + (uint64_t)rank * 0xbf58476d1ce4e5b9u + (uint64_t)(pass + 2) * 0x94d049bb133111ebu;
}

/* Sum of all words after a pass; their number is even. */
static uint64_t sum_of(uint64_t base, uint64_t words)
{
    return words * base + words / 2 * (words - 1) * step;
}

static void write_all(uint64_t *array, size_t words, uint64_t base)
{
    for (size_t i = 0; i < words; i++)
        array[i] = base + i * step;
}

/* Checks each word of the pass before and overwrites it; returns the sum of what was read. */
static uint64_t sweep(struct workload *w, uint64_t *array, size_t words)
{
    uint64_t old = base_of(w, w->rank, w->iteration - 1), next = base_of(w, w->rank, w->iteration), sum = 0;
    wl_corrupt(w, array, words * sizeof *array);
    for (size_t i = 0; i < words; i++, old += step, next += step) {
        const uint64_t got = array[i];
        if (got != old)
            wl_wrong(w, "word %zu of %zu is 0x%016" PRIx64 ", should be 0x%016" PRIx64, i, words, got, old);
        sum += got;
        array[i] = next;
    }
    return sum;
}

static void exchange(struct workload *w, uint64_t mine, uint64_t *sums, size_t words)
{
    MPI_Allgather(&mine, 1, MPI_UINT64_T, sums, 1, MPI_UINT64_T, MPI_COMM_WORLD);
    for (int r = 0; r < w->ranks; r++) {
        const uint64_t want = sum_of(base_of(w, r, w->iteration - 1), words);
        if (sums[r] != want)
            wl_wrong(w, "sum of rank %d is 0x%016" PRIx64 ", should be 0x%016" PRIx64, r, sums[r], want);
    }
    wl_add_checksum(w, sums, sizeof *sums * (size_t)w->ranks, (uint64_t)w->iteration);
}

int main(int argc, char **argv)
{
    struct workload w;
    wl_init(&w, "memtest", &argc, &argv, MPI_THREAD_SINGLE);
    const size_t words = (size_t)w.megabytes * ((1 << 20) / sizeof(uint64_t));
    uint64_t *array = wl_alloc(words * sizeof *array), *sums = wl_alloc(sizeof *sums * (size_t)w.ranks);
    write_all(array, words, base_of(&w, w.rank, -1));
    wl_start_clock(&w);
    do
        exchange(&w, sweep(&w, array, words), sums, words);
    while (wl_next(&w, MPI_COMM_WORLD));
    /* What the last pass has written is checked as well. */
    exchange(&w, sweep(&w, array, words), sums, words);
    free(array);
    free(sums);
    return wl_finish(&w);
}
