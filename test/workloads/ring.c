/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of 8 bytes to 1 MB round the ring, every byte checked. */
#include "workload.h"

#include <stdlib.h>

static const size_t sizes[] = {8, 8, 200, 3000, 8, 13000, 60000, 8, 300000, 1000000};
enum { size_count = sizeof sizes / sizeof *sizes, largest = 1000000, tag = 7 };

int main(int argc, char **argv)
{
    struct workload w;
    wl_init(&w, "ring", &argc, &argv, MPI_THREAD_SINGLE);
    char *out = wl_alloc(largest), *in = wl_alloc(largest);
    int up = (w.rank + 1) % w.ranks, down = (w.rank + w.ranks - 1) % w.ranks;
    do {
        size_t size = sizes[w.iteration % size_count];
        MPI_Request requests[2];
        wl_fill(out, size, wl_key(&w, w.rank, 0));
        MPI_Irecv(in, (int)size, MPI_BYTE, down, tag, MPI_COMM_WORLD, &requests[0]);
        MPI_Isend(out, (int)size, MPI_BYTE, up, tag, MPI_COMM_WORLD, &requests[1]);
        MPI_Waitall(2, requests, MPI_STATUSES_IGNORE);
        wl_check(&w, in, size, wl_key(&w, down, 0), "ring message");
    } while (wl_next(&w, MPI_COMM_WORLD));
    free(out);
    free(in);
    return wl_finish(&w);
}
