/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection to the guest agent, kept by one helper thread for the life of the rank: it
 * reconnects by itself (the agent may be restarted), repeats HELLO, STATE and the posts of the
 * current step, and answers QUERY while the main thread computes.
 */
#ifndef SV_AGENT_LINK_H
#define SV_AGENT_LINK_H

#include "ranks.h"
#include "symvirt/rank_wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sv_want {
    uint32_t cycle, step, phase, flags;
    uint64_t arrived_us;
    struct sv_ranks moving; /* none: all */
};

/* Is the agent's socket there? Otherwise the library stays inert. */
bool sv_link_available(void);
/* Starts the thread with this HELLO. 0 or negative errno. */
int sv_link_start(const struct sv_msg_hello *hello);
/* For a rank that stays inert: says why, once, and keeps the connection without a thread. */
void sv_link_announce_inert(const struct sv_msg_hello *hello);
/* BYE, then ends the thread. */
void sv_link_stop(void);

/* The newest want; false if there is none newer than (cycle, step). */
bool sv_link_want(uint32_t cycle, uint32_t step, struct sv_want *want);
/* Publishes a new state; header fields are filled in here. */
void sv_link_state(const struct sv_msg_state *state);
/* Posts this rank's part under a key of (cycle, step) and remembers it until the step changes. */
int sv_link_post(uint32_t cycle, uint32_t step, const char *key, const void *bytes, size_t size);
/* Waits until something has arrived since the last call returned, or this many microseconds have
 * passed: what came between the caller's look and this call is not slept over. */
void sv_link_wait(uint32_t microseconds);
/* A line for the agent's log: what an operator should see although this rank's stderr goes nowhere he looks. A
 * later one takes the place of one that is not out yet. Levels as SV_LOG_*. */
void sv_link_log(int level, const char *text);
/* Milliseconds without a connection, 0 while connected. */
uint64_t sv_link_silence_ms(void);

#endif
