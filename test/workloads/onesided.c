/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One-sided communication with known answers: fence, post/start/complete/wait and lock/unlock on
 * one window, and lock_all/flush with put, get and atomics on another whose access epoch lasts as
 * long as the job.
 */
#include "workload.h"

#include <stdlib.h>
#include <string.h>

enum { block = 20000, small = 64, sums = 500 }; /* bytes, bytes, numbers */

/* Memory of the window with short epochs: each part has one writer at a time. */
struct part {
    char put[block], offered[block], posted[block], locked[small];
    int64_t sum[sums], swapped;
};

/* Memory of the window that is locked all the time. */
struct shared {
    int64_t counter;
    char put[block * 5];
};

struct ring {
    int up, down;
};

static void fence_put_get(struct workload *w, MPI_Win win, struct part *mine, struct ring at)
{
    char *out = wl_alloc(block), *in = wl_alloc(block);
    wl_fill(out, block, wl_key(w, w->rank, 1));
    wl_fill(mine->offered, block, wl_key(w, w->rank, 2));
    MPI_Win_fence(0, win);
    MPI_Put(out, block, MPI_BYTE, at.up, offsetof(struct part, put), block, MPI_BYTE, win);
    MPI_Get(in, block, MPI_BYTE, at.down, offsetof(struct part, offered), block, MPI_BYTE, win);
    MPI_Win_fence(0, win);
    wl_check(w, mine->put, block, wl_key(w, at.down, 1), "put in a fence");
    wl_check(w, in, block, wl_key(w, at.down, 2), "get in a fence");
    free(out);
    free(in);
}

static void fence_accumulate(struct workload *w, MPI_Win win, struct part *mine)
{
    int64_t numbers[sums];
    memset(mine->sum, 0, sizeof mine->sum);
    for (int i = 0; i < sums; i++)
        numbers[i] = w->iteration + w->rank * 1000 + i;
    MPI_Win_fence(0, win);
    for (int r = 0; r < w->ranks; r++)
        MPI_Accumulate(numbers, sums, MPI_INT64_T, r, offsetof(struct part, sum), sums, MPI_INT64_T,
                       MPI_SUM, win);
    MPI_Win_fence(0, win);
    int64_t ranks = w->ranks;
    for (int i = 0; i < sums; i++)
        wl_expect(w, mine->sum[i], ranks * (w->iteration + i) + 1000 * (ranks * (ranks - 1) / 2),
                  "accumulated number");
}

static void post_start(struct workload *w, MPI_Win win, struct part *mine, struct ring at, MPI_Group world)
{
    char *out = wl_alloc(block);
    MPI_Group writer, reader;
    MPI_Group_incl(world, 1, &at.down, &writer);
    MPI_Group_incl(world, 1, &at.up, &reader);
    wl_fill(out, block, wl_key(w, w->rank, 3));
    MPI_Win_post(writer, 0, win);
    MPI_Win_start(reader, 0, win);
    MPI_Put(out, block, MPI_BYTE, at.up, offsetof(struct part, posted), block, MPI_BYTE, win);
    MPI_Win_complete(win);
    MPI_Win_wait(win);
    wl_check(w, mine->posted, block, wl_key(w, at.down, 3), "put between start and complete");
    MPI_Group_free(&writer);
    MPI_Group_free(&reader);
    free(out);
}

static void lock_unlock(struct workload *w, MPI_Win win, struct part *mine, struct ring at)
{
    char out[small], in[small];
    wl_fill(out, small, wl_key(w, w->rank, 4));
    MPI_Win_lock(MPI_LOCK_EXCLUSIVE, at.up, 0, win);
    MPI_Put(out, small, MPI_BYTE, at.up, offsetof(struct part, locked), small, MPI_BYTE, win);
    MPI_Win_unlock(at.up, win);
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Win_lock(MPI_LOCK_SHARED, w->rank, 0, win);
    memcpy(in, mine->locked, small);
    MPI_Win_unlock(w->rank, win);
    wl_check(w, in, small, wl_key(w, at.down, 4), "put under a lock");
}

static void flush_put_get(struct workload *w, MPI_Win win, struct shared *mine, struct ring at)
{
    enum { size = sizeof mine->put };
    char *out = wl_alloc(size), *in = wl_alloc(size);
    wl_fill(out, size, wl_key(w, w->rank, 5));
    MPI_Put(out, size, MPI_BYTE, at.up, offsetof(struct shared, put), size, MPI_BYTE, win);
    MPI_Win_flush(at.up, win);
    memset(in, 0, size);
    MPI_Get(in, size, MPI_BYTE, at.up, offsetof(struct shared, put), size, MPI_BYTE, win);
    MPI_Win_flush(at.up, win);
    wl_check(w, in, size, wl_key(w, w->rank, 5), "get of what was put");
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Win_sync(win);
    memcpy(in, mine->put, size);
    wl_check(w, in, size, wl_key(w, at.down, 5), "put and flush");
    free(out);
    free(in);
}

static void fetch_and_add(struct workload *w, MPI_Win win)
{
    const int64_t one = 1;
    int64_t before = -1, sum = 0, ranks = w->ranks;
    MPI_Fetch_and_op(&one, &before, MPI_INT64_T, 0, offsetof(struct shared, counter), MPI_SUM, win);
    MPI_Win_flush(0, win);
    MPI_Allreduce(&before, &sum, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
    /* Every rank drew another number of iteration*ranks, …, iteration*ranks + ranks - 1. */
    wl_expect(w, sum, ranks * ranks * w->iteration + ranks * (ranks - 1) / 2, "sum of fetched counters");
}

/*
 * All ranks but rank 0 compete for a number of rank 0. Open MPI 4.1.4's osc/rdma hands a
 * compare-and-swap to the BTL even where it should act on memory directly: with itself (no
 * endpoint) and in allocated windows of the same node (an address of the wrong process). So rank
 * 0 does not compete, and the number lives in the window that was created on private memory.
 */
static void compare_and_swap(struct workload *w, MPI_Win win)
{
    int64_t old = w->iteration, next = old + 1, found = -1, won = 0, winners = 0;
    if (w->rank > 0) {
        MPI_Win_lock(MPI_LOCK_SHARED, 0, 0, win);
        MPI_Compare_and_swap(&next, &old, &found, MPI_INT64_T, 0, offsetof(struct part, swapped), win);
        MPI_Win_unlock(0, win);
        won = found == old ? 1 : 0;
        if (won == 0 && found != next) /* who loses is chance: no part of the checksum */
            wl_wrong(w, "value that lost the swap is %ld, should be %ld", (long)found, (long)next);
    }
    MPI_Allreduce(&won, &winners, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
    wl_expect(w, winners, w->ranks > 1 ? 1 : 0, "winners of the swap");
}

int main(int argc, char **argv)
{
    struct workload w;
    wl_init(&w, "onesided", &argc, &argv, MPI_THREAD_SINGLE);
    struct ring at = {(w.rank + 1) % w.ranks, (w.rank + w.ranks - 1) % w.ranks};
    struct part *part = wl_alloc(sizeof *part);
    struct shared *shared;
    MPI_Win short_epochs, long_epoch;
    MPI_Group world;
    memset(part, 0, sizeof *part);
    MPI_Comm_group(MPI_COMM_WORLD, &world);
    MPI_Win_create(part, sizeof *part, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &short_epochs);
    MPI_Win_allocate(sizeof *shared, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &shared, &long_epoch);
    memset(shared, 0, sizeof *shared);
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Win_lock_all(0, long_epoch);
    do {
        fence_put_get(&w, short_epochs, part, at);
        if (w.atomics)
            fence_accumulate(&w, short_epochs, part);
        MPI_Win_fence(MPI_MODE_NOSUCCEED, short_epochs);
        post_start(&w, short_epochs, part, at, world);
        lock_unlock(&w, short_epochs, part, at);
        flush_put_get(&w, long_epoch, shared, at);
        if (w.atomics) {
            compare_and_swap(&w, short_epochs);
            fetch_and_add(&w, long_epoch);
        }
    } while (wl_next(&w, MPI_COMM_WORLD));
    MPI_Win_unlock_all(long_epoch);
    MPI_Win_free(&long_epoch);
    MPI_Win_free(&short_epochs);
    MPI_Group_free(&world);
    free(part);
    return wl_finish(&w);
}
