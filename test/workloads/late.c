/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last rank computes for seconds without calling MPI while the others pass messages round a
 * ring; between two computations it exchanges a message with rank 0 and gets it back unchanged.
 * The longest gap is that of the others: the late rank counts no iterations.
 */
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { tag_ring = 7, tag_late = 9, tag_stop = 10, tag_echo = 11, largest = 300000 };
static const size_t sizes[] = {8, 200, 3000, 13000, 60000, 300000};
enum { size_count = sizeof sizes / sizeof *sizes };

static size_t late_size(long round)
{
    return round % 2 == 0 ? 60000 : 200;
}

static uint64_t late_key(const struct workload *w, long round)
{
    return w->seed * 1000003u + (uint64_t)round;
}

static void compute_without_mpi(double seconds)
{
    volatile double x = 1;
    double begin = wl_now();
    while (wl_now() - begin < seconds)
        for (int i = 0; i < 100000; i++)
            x = x * 1.0000001;
}

static void run_late(struct workload *w)
{
    char *buffer = wl_alloc(largest);
    int stop = 0;
    for (long round = 0; stop == 0; round++) {
        size_t size = late_size(round);
        compute_without_mpi(w->compute);
        wl_fill(buffer, size, late_key(w, round));
        MPI_Send(buffer, (int)size, MPI_BYTE, 0, tag_late, MPI_COMM_WORLD);
        MPI_Recv(&stop, 1, MPI_INT, 0, tag_stop, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        memset(buffer, 0, size);
        MPI_Recv(buffer, (int)size, MPI_BYTE, 0, tag_echo, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        w->iteration = round;
        wl_check(w, buffer, size, late_key(w, round), "echo to the late rank");
    }
    /* How many rounds there were depends on the time: they do not belong to the result. */
    w->checksum = 0;
    free(buffer);
}

/* Rank 0: answers one message of the late rank. */
static void answer(struct workload *w, char *buffer, size_t size, int stop, long round)
{
    uint64_t checksum = w->checksum;
    wl_check(w, buffer, size, late_key(w, round), "message of the late rank");
    w->checksum = checksum;
    MPI_Send(&stop, 1, MPI_INT, w->ranks - 1, tag_stop, MPI_COMM_WORLD);
    MPI_Send(buffer, (int)size, MPI_BYTE, w->ranks - 1, tag_echo, MPI_COMM_WORLD);
}

static void run_workers(struct workload *w, MPI_Comm comm, int workers)
{
    char *out = wl_alloc(largest), *in = wl_alloc(largest), *late = wl_alloc(largest);
    int up = (w->rank + 1) % workers, down = (w->rank + workers - 1) % workers;
    MPI_Request pending = MPI_REQUEST_NULL;
    long round = 0;
    bool more;
    if (w->rank == 0)
        MPI_Irecv(late, largest, MPI_BYTE, w->ranks - 1, tag_late, MPI_COMM_WORLD, &pending);
    do {
        size_t size = sizes[w->iteration % size_count];
        MPI_Request requests[2];
        wl_fill(out, size, wl_key(w, w->rank, 0));
        MPI_Irecv(in, (int)size, MPI_BYTE, down, tag_ring, comm, &requests[0]);
        MPI_Isend(out, (int)size, MPI_BYTE, up, tag_ring, comm, &requests[1]);
        MPI_Waitall(2, requests, MPI_STATUSES_IGNORE);
        wl_check(w, in, size, wl_key(w, down, 0), "ring message");
        more = wl_next(w, comm);
        int arrived = 0;
        if (w->rank == 0)
            MPI_Test(&pending, &arrived, MPI_STATUS_IGNORE);
        if (arrived && more) {
            answer(w, late, late_size(round), 0, round);
            round++;
            MPI_Irecv(late, largest, MPI_BYTE, w->ranks - 1, tag_late, MPI_COMM_WORLD, &pending);
        } else if (arrived) {
            answer(w, late, late_size(round), 1, round);
        }
    } while (more);
    if (pending != MPI_REQUEST_NULL) {
        MPI_Wait(&pending, MPI_STATUS_IGNORE);
        answer(w, late, late_size(round), 1, round);
    }
    free(out);
    free(in);
    free(late);
}

int main(int argc, char **argv)
{
    struct workload w;
    wl_init(&w, "late", &argc, &argv, MPI_THREAD_SINGLE);
    int workers = w.ranks - 1;
    if (workers < 1) {
        fprintf(stderr, "late: needs two ranks or more\n");
        MPI_Abort(MPI_COMM_WORLD, WL_EXIT_USAGE);
    }
    bool is_late = w.rank == workers;
    MPI_Comm comm;
    MPI_Comm_split(MPI_COMM_WORLD, is_late ? 1 : 0, w.rank, &comm);
    if (is_late)
        run_late(&w);
    else
        run_workers(&w, comm, workers);
    MPI_Comm_free(&comm);
    return wl_finish(&w);
}
