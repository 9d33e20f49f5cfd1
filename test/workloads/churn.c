/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Message rate: 8 bytes at a time to both sides, by two threads that take turns
 * (MPI_THREAD_SERIALIZED): MPI is entered by one thread at a time, but not always by the same.
 */
#include "workload.h"

#include <pthread.h>
#include <stdlib.h>

enum { turns = 5, batch = 10 };

struct game {
    struct workload *w;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int turn; /* 0: the main thread's, 1: the other's, -1: over */
};

static void exchange(struct workload *w, int thread, int turn)
{
    int up = (w->rank + 1) % w->ranks, down = (w->rank + w->ranks - 1) % w->ranks;
    for (int i = 0; i < batch; i++) {
        int kind = (thread * turns + turn) * batch + i;
        /* every other message the other way round */
        int to = i % 2 == 0 ? up : down, from = i % 2 == 0 ? down : up;
        unsigned char out[8], in[8] = {0};
        wl_fill(out, sizeof out, wl_key(w, w->rank, kind));
        MPI_Sendrecv(out, sizeof out, MPI_BYTE, to, thread, in, sizeof in, MPI_BYTE, from, thread,
                     MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        wl_check(w, in, sizeof in, wl_key(w, from, kind), "small message");
    }
}

/* Waits for a turn; returns whether the game goes on. The lock is held from here to give_turn. */
static int take_turn(struct game *g, int mine)
{
    while (g->turn != mine && g->turn != -1)
        pthread_cond_wait(&g->changed, &g->lock);
    return g->turn == mine;
}

static void give_turn(struct game *g, int to)
{
    g->turn = to;
    pthread_cond_signal(&g->changed);
}

static void *other_thread(void *argument)
{
    struct game *g = argument;
    pthread_mutex_lock(&g->lock);
    for (int turn = 0; take_turn(g, 1); turn++) {
        exchange(g->w, 1, turn % turns);
        give_turn(g, 0);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

int main(int argc, char **argv)
{
    struct workload w;
    wl_init(&w, "churn", &argc, &argv, MPI_THREAD_SERIALIZED);
    struct game g = {.w = &w, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    pthread_t thread;
    bool more;
    pthread_mutex_lock(&g.lock);
    if (pthread_create(&thread, NULL, other_thread, &g) != 0)
        wl_wrong(&w, "no second thread");
    do {
        for (int turn = 0; turn < turns; turn++) {
            exchange(&w, 0, turn);
            give_turn(&g, 1);
            take_turn(&g, 0);
        }
        more = wl_next(&w, MPI_COMM_WORLD);
    } while (more);
    give_turn(&g, -1);
    pthread_mutex_unlock(&g.lock);
    pthread_join(thread, NULL);
    return wl_finish(&w);
}
