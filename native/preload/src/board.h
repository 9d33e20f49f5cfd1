/* SPDX-License-Identifier: Apache-2.0 */
/* The rank's end of the board: sets of all ranks' posts under (cycle, step, key), as the agent
 * hands them over. Filled by the link's thread under its lock, read by the main thread. */
#ifndef SV_BOARD_H
#define SV_BOARD_H

#include "symvirt/rank_wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sv_board_part {
    unsigned char *bytes;
    uint32_t size, have;
    bool complete;
};

struct sv_board_set {
    struct sv_board_set *next;
    uint32_t cycle, step;
    char key[SV_WIRE_KEY];
    uint32_t complete_parts, world_size;
    struct sv_board_part part[];
};

/* Takes one datagram's worth. Negative errno if it makes no sense (the set is left as it was). */
int sv_board_take(struct sv_board_set **sets, uint32_t world_size, const struct sv_msg_board *header,
                  const void *bytes, size_t size);
/* The set if it is complete, else NULL. */
const struct sv_board_set *sv_board_find(const struct sv_board_set *sets, uint32_t cycle, uint32_t step,
                                         const char *key);
/* Frees all sets older than (cycle, step). */
void sv_board_forget(struct sv_board_set **sets, uint32_t cycle, uint32_t step);

/* ---- for the main thread, over the link ---- */

/* The complete set or NULL; stays valid until sv_board_release_before of a later step. */
const struct sv_board_set *sv_board_ready(uint32_t cycle, uint32_t step, const char *key);
void sv_board_release_before(uint32_t cycle, uint32_t step);

#endif
