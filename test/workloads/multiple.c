/* SPDX-License-Identifier: Apache-2.0 */
/* A program that asks for MPI_THREAD_MULTIPLE: the preload leaves it alone. One message a neighbour. */
#include "workload.h"

#include <stdlib.h>

enum { size = 20000 };

int main(int argc, char **argv)
{
    struct workload w;
    char *out = wl_alloc(size), *in = wl_alloc(size);
    wl_init(&w, "multiple", &argc, &argv, MPI_THREAD_MULTIPLE);
    do {
        int up = (w.rank + 1) % w.ranks, down = (w.rank + w.ranks - 1) % w.ranks;
        wl_fill(out, size, wl_key(&w, w.rank, 0));
        MPI_Sendrecv(out, size, MPI_BYTE, up, 0, in, size, MPI_BYTE, down, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        wl_check(&w, in, size, wl_key(&w, down, 0), "message of the neighbour");
    } while (wl_next(&w, MPI_COMM_WORLD));
    free(out);
    free(in);
    return wl_finish(&w);
}
