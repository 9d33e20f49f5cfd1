/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every protocol of the PML, with messages left unmatched for a while: non-blocking sends of all
 * sizes, a wait in which only the progress engine runs, then receives in reverse order. Also
 * synchronous sends, persistent requests that live as long as the job, and receives from any
 * source.
 */
#include "workload.h"

#include <stdlib.h>
#include <string.h>

static const size_t sizes[] = {0,     1,      8,       3000,   12 * 1024 - 1, 12 * 1024, 12 * 1024 + 1,
                               13000, 60000, 300000, 1000000, 2000000};
enum { count = sizeof sizes / sizeof *sizes };
enum { tag_unmatched = 100, tag_never = 99, tag_sync = 200, tag_persistent = 300, tag_any = 400 };
enum { sync_size = 20000, persistent_count = 2, any_size = 5000 };
static const size_t persistent_sizes[persistent_count] = {512, 40000};

static void leave_unmatched(struct workload *w, char **out, char **in, int up, int down)
{
    MPI_Request requests[count];
    for (int k = 0; k < count; k++) {
        wl_fill(out[k], sizes[k], wl_key(w, w->rank, k));
        MPI_Isend(out[k], (int)sizes[k], MPI_BYTE, up, tag_unmatched + k, MPI_COMM_WORLD, &requests[k]);
    }
    double begin = wl_now();
    do {
        int found;
        MPI_Iprobe(MPI_ANY_SOURCE, tag_never, MPI_COMM_WORLD, &found, MPI_STATUS_IGNORE);
    } while (wl_now() - begin < w->hold);
    for (int k = count - 1; k >= 0; k--) {
        MPI_Status status;
        int got;
        memset(in[k], 0, sizes[k]);
        MPI_Recv(in[k], (int)sizes[k], MPI_BYTE, down, tag_unmatched + k, MPI_COMM_WORLD, &status);
        MPI_Get_count(&status, MPI_BYTE, &got);
        wl_expect(w, got, (int64_t)sizes[k], "length of an unmatched message");
        wl_check(w, in[k], sizes[k], wl_key(w, down, k), "unmatched message");
    }
    MPI_Waitall(count, requests, MPI_STATUSES_IGNORE);
}

static void synchronous(struct workload *w, char *out, char *in, int up, int down)
{
    MPI_Request request;
    wl_fill(out, sync_size, wl_key(w, w->rank, tag_sync));
    MPI_Irecv(in, sync_size, MPI_BYTE, down, tag_sync, MPI_COMM_WORLD, &request);
    MPI_Ssend(out, sync_size, MPI_BYTE, up, tag_sync, MPI_COMM_WORLD);
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    wl_check(w, in, sync_size, wl_key(w, down, tag_sync), "synchronous message");
}

static void any_source(struct workload *w, char *out, char *in)
{
    MPI_Request *requests = wl_alloc(sizeof *requests * (size_t)w->ranks);
    wl_fill(out, any_size, wl_key(w, w->rank, tag_any));
    for (int r = 0; r < w->ranks; r++)
        MPI_Isend(out, any_size, MPI_BYTE, r, tag_any, MPI_COMM_WORLD, &requests[r]);
    for (int n = 0; n < w->ranks; n++) {
        MPI_Status status;
        MPI_Recv(in, any_size, MPI_BYTE, MPI_ANY_SOURCE, tag_any, MPI_COMM_WORLD, &status);
        wl_check(w, in, any_size, wl_key(w, status.MPI_SOURCE, tag_any), "message from any source");
    }
    MPI_Waitall(w->ranks, requests, MPI_STATUSES_IGNORE);
    free(requests);
}

int main(int argc, char **argv)
{
    struct workload w;
    wl_init(&w, "sizes", &argc, &argv, MPI_THREAD_SINGLE);
    char *out[count], *in[count];
    for (int k = 0; k < count; k++) {
        out[k] = wl_alloc(sizes[k]);
        in[k] = wl_alloc(sizes[k]);
    }
    int up = (w.rank + 1) % w.ranks, down = (w.rank + w.ranks - 1) % w.ranks;

    char *kept_out[persistent_count], *kept_in[persistent_count];
    MPI_Request kept[2 * persistent_count];
    for (int k = 0; k < persistent_count; k++) {
        kept_out[k] = wl_alloc(persistent_sizes[k]);
        kept_in[k] = wl_alloc(persistent_sizes[k]);
        MPI_Recv_init(kept_in[k], (int)persistent_sizes[k], MPI_BYTE, down, tag_persistent + k,
                      MPI_COMM_WORLD, &kept[2 * k]);
        MPI_Send_init(kept_out[k], (int)persistent_sizes[k], MPI_BYTE, up, tag_persistent + k,
                      MPI_COMM_WORLD, &kept[2 * k + 1]);
    }
    do {
        for (int k = 0; k < persistent_count; k++)
            wl_fill(kept_out[k], persistent_sizes[k], wl_key(&w, w.rank, tag_persistent + k));
        MPI_Startall(2 * persistent_count, kept);
        leave_unmatched(&w, out, in, up, down);
        MPI_Waitall(2 * persistent_count, kept, MPI_STATUSES_IGNORE);
        for (int k = 0; k < persistent_count; k++)
            wl_check(&w, kept_in[k], persistent_sizes[k], wl_key(&w, down, tag_persistent + k),
                     "persistent message");
        synchronous(&w, out[count - 1], in[count - 1], up, down);
        any_source(&w, out[count - 1], in[count - 1]);
    } while (wl_next(&w, MPI_COMM_WORLD));

    for (int k = 0; k < 2 * persistent_count; k++)
        MPI_Request_free(&kept[k]);
    for (int k = 0; k < persistent_count; k++) {
        free(kept_out[k]);
        free(kept_in[k]);
    }
    for (int k = 0; k < count; k++) {
        free(out[k]);
        free(in[k]);
    }
    return wl_finish(&w);
}
