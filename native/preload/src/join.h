/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proof that openib is connected after a re-init. Its endpoints connect at their first message, and
 * udcm's handshake can stop half way without an error (seen about once in fifty re-inits of four
 * ranks over soft-RoCE: the endpoint never became connected and its messages waited for ever). So
 * every rank sends one message to each peer before it routes anything over the card: its completion
 * says that this side's endpoint is connected and the other side's queue pair answers. Only to peers it
 * has ever talked to: a job of a thousand ranks must not get a thousand times as many queue pairs. To the
 * others openib connects at first use, as it does in a job that never moved.
 */
#ifndef SV_JOIN_H
#define SV_JOIN_H

#include "ranks.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A handshake takes milliseconds; udcm repeats a lost message every half second. */
#define SV_JOIN_MS 15000u
/* So long the higher rank of a pair waits to be called by the lower one. */
#define SV_JOIN_CALL_MS 3000u

/* Before this rank's address card goes out: from then on a peer may call. */
void sv_join_listen(void);
/* To those peers, or to all that have an openib endpoint and were ever talked to. */
void sv_join_begin(const struct sv_ranks *peers);
/* Every rank has begun: only from now on it counts how long it takes. */
void sv_join_all_called(void);
/* Sends what could not be sent yet. 1 when all messages have completed, 0 not yet, -ETIMEDOUT SV_JOIN_MS
 * after all have begun, with a rank that is not reached in `why`. The BTL must be progressed meanwhile. */
int sv_join_state(char *why, size_t size);

#endif
