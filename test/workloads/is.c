/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bucket sort of integers, in the manner of the NAS benchmark IS: each iteration sorts other keys, --size
 * of them over all ranks. Ranks count their keys by bucket (one a rank), exchange the counts
 * (MPI_Alltoall) and the keys (MPI_Alltoallv), and sort their own bucket by counting.
 *
 * The keys are a permutation of 0 … size-1, divided by `repeats`: so each value comes just that often, and
 * the key at every place of the sorted sequence is known. Every place is checked.
 */
#include "workload.h"

#include <stdlib.h>
#include <string.h>

enum { repeats = 4, default_size = 1 << 16, least_size = 1 << 10, largest_size = 1 << 26 };

struct sort {
    uint32_t size;                /* keys over all ranks, a power of two */
    uint32_t first, count;        /* own keys before the sort: which of the sequence */
    uint32_t place, own;          /* own keys after the sort: where in the sorted sequence */
    uint32_t *keys, *out, *in, *sorted;
    int *out_count, *out_at, *in_count, *in_at;
    uint32_t *histogram;
};

/* Where the part of a rank begins, in multiples of `repeats`, as equal keys must not be torn apart. */
static uint32_t begin_of(const struct sort *s, int rank, int ranks)
{
    return (uint32_t)((uint64_t)(s->size / repeats) * (uint64_t)rank / (uint64_t)ranks) * repeats;
}

/* A permutation of 0 … size-1: each step can be undone. */
static uint32_t permuted(uint32_t i, uint32_t mask, uint64_t key)
{
    const int half = __builtin_popcount(mask) / 2;
    uint32_t x = (i + (uint32_t)key) & mask;
    for (int round = 0; round < 2; round++) {
        x = (x * 0x9e3779b1u) & mask;
        x ^= x >> half;
    }
    return (x * ((uint32_t)(key >> 32) | 1)) & mask;
}

static void make_keys(const struct workload *w, struct sort *s)
{
    /* The same on all ranks: no sender in it. */
    const uint64_t key = wl_key(w, 0, 0);
    for (uint32_t i = 0; i < s->count; i++)
        s->keys[i] = permuted(s->first + i, s->size - 1, key) / repeats;
}

/* The rank whose bucket has the key: part r begins at floor(n * r / ranks). */
static int bucket_of(const struct sort *s, uint32_t key, int ranks)
{
    const uint64_t n = s->size / repeats;
    return (int)((((uint64_t)key + 1) * (uint64_t)ranks - 1) / n);
}

static void exchange_keys(struct workload *w, struct sort *s)
{
    memset(s->out_count, 0, sizeof *s->out_count * (size_t)w->ranks);
    for (uint32_t i = 0; i < s->count; i++)
        s->out_count[bucket_of(s, s->keys[i], w->ranks)]++;
    MPI_Alltoall(s->out_count, 1, MPI_INT, s->in_count, 1, MPI_INT, MPI_COMM_WORLD);
    int64_t out = 0, in = 0;
    for (int r = 0; r < w->ranks; r++) {
        if (s->in_count[r] < 0)
            wl_wrong(w, "rank %d has %d keys for this rank", r, s->in_count[r]);
        s->out_at[r] = (int)out;
        s->in_at[r] = (int)in;
        out += s->out_count[r];
        in += s->in_count[r];
        if (in > s->own)
            break;
    }
    if (in != (int64_t)s->own)
        wl_wrong(w, "the bucket gets %ld keys, should get %u", (long)in, s->own);
    for (uint32_t i = 0; i < s->count; i++)
        s->out[s->out_at[bucket_of(s, s->keys[i], w->ranks)]++] = s->keys[i];
    for (int r = 0; r < w->ranks; r++)
        s->out_at[r] -= s->out_count[r];
    MPI_Alltoallv(s->out, s->out_count, s->out_at, MPI_UINT32_T, s->in, s->in_count, s->in_at, MPI_UINT32_T,
                  MPI_COMM_WORLD);
    wl_corrupt(w, s->in, sizeof *s->in * s->own);
}

static void sort_bucket(struct workload *w, struct sort *s)
{
    const uint32_t least = s->place / repeats, values = s->own / repeats;
    memset(s->histogram, 0, sizeof *s->histogram * values);
    for (uint32_t i = 0; i < s->own; i++) {
        const uint32_t key = s->in[i];
        if (key < least || key - least >= values)
            wl_wrong(w, "key %u is in the bucket of %u to %u", key, least, least + values - 1);
        s->histogram[key - least]++;
    }
    uint32_t at = 0;
    for (uint32_t v = 0; v < values; v++)
        for (uint32_t n = s->histogram[v]; n > 0; n--)
            s->sorted[at++] = least + v;
}

static void verify(struct workload *w, struct sort *s)
{
    for (uint32_t i = 0; i < s->own; i++) {
        const uint32_t want = (s->place + i) / repeats;
        if (s->sorted[i] != want)
            wl_wrong(w, "place %u of the sorted keys has %u, should have %u", s->place + i, s->sorted[i], want);
    }
    /* The keys as they came: sorted they are the same in every iteration. */
    wl_add_checksum(w, s->in, sizeof *s->in * s->own, (uint64_t)w->iteration);
}

int main(int argc, char **argv)
{
    struct workload w;
    wl_init(&w, "is", &argc, &argv, MPI_THREAD_SINGLE);
    struct sort s = {.size = (uint32_t)wl_size(&w, default_size, least_size, largest_size, true)};
    if (w.ranks > (int)(s.size / repeats))
        wl_usage(&w, "there are more ranks than different keys");
    s.first = s.place = begin_of(&s, w.rank, w.ranks);
    s.count = s.own = begin_of(&s, w.rank + 1, w.ranks) - s.first;
    uint32_t *keys = wl_alloc(sizeof *keys * s.count * 5);
    s.keys = keys;
    s.out = keys + s.count;
    s.in = keys + 2 * s.count;
    s.sorted = keys + 3 * s.count;
    s.histogram = keys + 4 * s.count;
    int *table = wl_alloc(sizeof *table * 4 * (size_t)w.ranks);
    s.out_count = table;
    s.out_at = table + w.ranks;
    s.in_count = table + 2 * w.ranks;
    s.in_at = table + 3 * w.ranks;
    do {
        make_keys(&w, &s);
        exchange_keys(&w, &s);
        sort_bucket(&w, &s);
        verify(&w, &s);
    } while (wl_next(&w, MPI_COMM_WORLD));
    free(keys);
    free(table);
    return wl_finish(&w);
}
