/* SPDX-License-Identifier: Apache-2.0 */
/* What this rank tells the agent of itself. */
#ifndef SV_STATUS_H
#define SV_STATUS_H

#include "symvirt/rank_wire.h"

#include <stdint.h>

/* Route, error, detail, timings and so on are set here before publishing. */
extern struct sv_msg_state sv_status;
/* The last want obeyed (or refused): what the published state is about. */
extern uint32_t sv_handled_cycle, sv_handled_step;

void sv_publish(enum sv_wire_rank_state what);
/* The step failed with a negative errno; sv_status.detail says why. */
void sv_publish_failure(int error);
/* Traffic counters and registrations as they are now (also from the link's thread). */
void sv_state_counters(struct sv_msg_state *state);
/* The peers from number `first` on, at most `most`; returns how many, and in `total` how many there are
 * (also from the link's thread). */
uint32_t sv_state_peers(uint32_t first, struct sv_wire_peer *room, uint32_t most, uint32_t *total);
/* Microseconds since, for a timing field. */
uint32_t sv_since(uint64_t start_us);

/* Remembered for HELLO. */
void sv_status_openmpi_version(const char *version);
void sv_fill_hello(struct sv_msg_hello *hello, uint32_t flags, const char *reason);

#endif
