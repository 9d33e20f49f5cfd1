/* SPDX-License-Identifier: Apache-2.0 */
/* A set of ranks of MPI_COMM_WORLD, as it travels in a WANT. */
#ifndef SV_RANKS_H
#define SV_RANKS_H

#include "symvirt/rank_wire.h"

#include <stdbool.h>
#include <string.h>

struct sv_ranks {
    unsigned char bits[SV_WIRE_MAX_WORLD / 8];
};

static inline bool sv_ranks_has(const struct sv_ranks *set, uint32_t rank)
{
    return rank < SV_WIRE_MAX_WORLD && set->bits[rank / 8] & 1u << rank % 8;
}

static inline uint32_t sv_ranks_count(const struct sv_ranks *set, uint32_t world_size)
{
    uint32_t count = 0;
    for (uint32_t rank = 0; rank < world_size; rank++) {
        count += sv_ranks_has(set, rank);
    }
    return count;
}

#endif
