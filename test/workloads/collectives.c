/* SPDX-License-Identifier: Apache-2.0 */
/* Collectives with known answers, on the world and on communicators made and freed during the job. */
#include "workload.h"

#include <stdlib.h>

enum { small = 4, large = 12500, block = 2500 };

/* What rank r of a communicator contributes as element i. Small, so that sums stay exact. */
static int64_t value(const struct workload *w, int r, int i)
{
    return (int64_t)(w->iteration % 1000) * 7 + (int64_t)r * 31 + i;
}

/* Sum of value() over the ranks 0 to n-1. */
static int64_t sum_of_values(const struct workload *w, int n, int i)
{
    return n * ((int64_t)(w->iteration % 1000) * 7 + i) + 31 * ((int64_t)n * (n - 1) / 2);
}

static void allreduce(struct workload *w, MPI_Comm comm, int rank, int n, int length)
{
    int64_t *in = wl_alloc(sizeof *in * (size_t)length), *out = wl_alloc(sizeof *out * (size_t)length);
    for (int i = 0; i < length; i++)
        in[i] = value(w, rank, i);
    MPI_Allreduce(in, out, length, MPI_INT64_T, MPI_SUM, comm);
    wl_corrupt(w, out, sizeof *out * (size_t)length);
    for (int i = 0; i < length; i++)
        if (out[i] != sum_of_values(w, n, i))
            wl_wrong(w, "allreduce of %d: element %d is %ld, should be %ld", length, i, (long)out[i],
                     (long)sum_of_values(w, n, i));
    wl_add_checksum(w, out, sizeof *out * (size_t)length, 1);
    free(in);
    free(out);
}

static void reduce_scatter(struct workload *w, MPI_Comm comm, int rank, int n)
{
    int64_t *in = wl_alloc(sizeof *in * block * (size_t)n), *out = wl_alloc(sizeof *out * block);
    int *counts = wl_alloc(sizeof *counts * (size_t)n);
    for (int r = 0; r < n; r++)
        counts[r] = block;
    for (int i = 0; i < block * n; i++)
        in[i] = value(w, rank, i);
    MPI_Reduce_scatter(in, out, counts, MPI_INT64_T, MPI_SUM, comm);
    for (int i = 0; i < block; i++)
        if (out[i] != sum_of_values(w, n, rank * block + i))
            wl_wrong(w, "reduce_scatter: element %d is %ld", i, (long)out[i]);
    wl_add_checksum(w, out, sizeof *out * block, 2);
    free(counts);
    free(in);
    free(out);
}

static void alltoall(struct workload *w, MPI_Comm comm, int rank, int n, size_t size)
{
    char *out = wl_alloc(size * (size_t)n), *in = wl_alloc(size * (size_t)n);
    for (int r = 0; r < n; r++)
        wl_fill(out + size * (size_t)r, size, wl_key(w, rank, 1000 + r));
    MPI_Alltoall(out, (int)size, MPI_BYTE, in, (int)size, MPI_BYTE, comm);
    for (int r = 0; r < n; r++)
        wl_check(w, in + size * (size_t)r, size, wl_key(w, r, 1000 + rank), "alltoall block");
    free(out);
    free(in);
}

/* Bytes rank `from` sends to rank `to`: all different, some of them none at all. */
static int bytes_between(const struct workload *w, int from, int to)
{
    return (int)((w->iteration + from * 5 + to * 3) % 7) * 4001;
}

static void alltoallv(struct workload *w, MPI_Comm comm, int rank, int n)
{
    int *table = wl_alloc(sizeof *table * 4 * (size_t)n);
    int *out_count = table, *out_at = table + n, *in_count = table + 2 * n, *in_at = table + 3 * n;
    int out_total = 0, in_total = 0;
    for (int r = 0; r < n; r++) {
        out_count[r] = bytes_between(w, rank, r);
        in_count[r] = bytes_between(w, r, rank);
        out_at[r] = out_total;
        in_at[r] = in_total;
        out_total += out_count[r];
        in_total += in_count[r];
    }
    char *out = wl_alloc((size_t)out_total), *in = wl_alloc((size_t)in_total);
    for (int r = 0; r < n; r++)
        wl_fill(out + out_at[r], (size_t)out_count[r], wl_key(w, rank, 2000 + r));
    MPI_Alltoallv(out, out_count, out_at, MPI_BYTE, in, in_count, in_at, MPI_BYTE, comm);
    for (int r = 0; r < n; r++)
        wl_check(w, in + in_at[r], (size_t)in_count[r], wl_key(w, r, 2000 + rank), "alltoallv block");
    free(out);
    free(in);
    free(table);
}

static void rooted(struct workload *w, MPI_Comm comm, int rank, int n)
{
    enum { gathered = 3000, told = 90000 };
    int root = (int)(w->iteration % n);
    char *one = wl_alloc(told), *all = wl_alloc(gathered * (size_t)n);

    if (rank == root)
        wl_fill(one, told, wl_key(w, root, 3000));
    MPI_Bcast(one, told, MPI_BYTE, root, comm);
    wl_check(w, one, told, wl_key(w, root, 3000), "broadcast");

    wl_fill(one, gathered, wl_key(w, rank, 3001));
    MPI_Gather(one, gathered, MPI_BYTE, all, gathered, MPI_BYTE, root, comm);
    if (rank == root)
        for (int r = 0; r < n; r++)
            wl_check(w, all + gathered * (size_t)r, gathered, wl_key(w, r, 3001), "gathered block");
    free(one);
    free(all);

    int64_t mine = value(w, rank, 0), before = 0;
    MPI_Scan(&mine, &before, 1, MPI_INT64_T, MPI_SUM, comm);
    wl_expect(w, before, sum_of_values(w, rank + 1, 0), "scan");
}

static void run_all(struct workload *w, MPI_Comm comm)
{
    int rank, n;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &n);
    allreduce(w, comm, rank, n, small);
    allreduce(w, comm, rank, n, large);
    reduce_scatter(w, comm, rank, n);
    alltoall(w, comm, rank, n, 64);
    alltoall(w, comm, rank, n, 20000);
    alltoallv(w, comm, rank, n);
    rooted(w, comm, rank, n);
}

int main(int argc, char **argv)
{
    struct workload w;
    wl_init(&w, "collectives", &argc, &argv, MPI_THREAD_SINGLE);
    do {
        MPI_Comm other;
        run_all(&w, MPI_COMM_WORLD);
        if (w.iteration % 2 == 0)
            MPI_Comm_dup(MPI_COMM_WORLD, &other);
        else /* neighbours in number are apart: with two ranks a VM both halves span the VMs */
            MPI_Comm_split(MPI_COMM_WORLD, w.rank % 2, -w.rank, &other);
        run_all(&w, other);
        MPI_Comm_free(&other);
    } while (wl_next(&w, MPI_COMM_WORLD));
    return wl_finish(&w);
}
