/* SPDX-License-Identifier: Apache-2.0 */
#include "board.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool older(uint32_t cycle, uint32_t step, uint32_t than_cycle, uint32_t than_step)
{
    return cycle < than_cycle || (cycle == than_cycle && step < than_step);
}

static struct sv_board_set *make(uint32_t world_size, uint32_t cycle, uint32_t step, const char *key)
{
    struct sv_board_set *set = calloc(1, sizeof(*set) + world_size * sizeof(set->part[0]));
    if (set) {
        set->cycle = cycle;
        set->step = step;
        set->world_size = world_size;
        memcpy(set->key, key, SV_WIRE_KEY);
    }
    return set;
}

static void destroy(struct sv_board_set *set)
{
    for (uint32_t i = 0; i < set->world_size; i++) {
        free(set->part[i].bytes);
    }
    free(set);
}

int sv_board_take(struct sv_board_set **sets, uint32_t world_size, const struct sv_msg_board *header,
                  const void *bytes, size_t size)
{
    struct sv_board_set *set = *sets;
    if (header->rank >= world_size || header->total > SV_WIRE_MAX_POST || size > header->total ||
        header->offset > header->total - size || NULL == memchr(header->key, '\0', SV_WIRE_KEY)) {
        return -EPROTO;
    }
    while (set && (set->cycle != header->h.cycle || set->step != header->h.step ||
                   0 != strncmp(set->key, header->key, SV_WIRE_KEY))) {
        set = set->next;
    }
    if (NULL == set) {
        set = make(world_size, header->h.cycle, header->h.step, header->key);
        if (NULL == set) {
            return -ENOMEM;
        }
        set->next = *sets;
        *sets = set;
    }
    struct sv_board_part *part = &set->part[header->rank];
    if (part->complete) {
        return 0; /* repeated after a reconnect */
    }
    if (0 == header->offset && header->total != part->size) {
        free(part->bytes);
        part->bytes = malloc(header->total ? header->total : 1);
        part->size = part->bytes ? header->total : 0;
        part->have = 0;
        if (NULL == part->bytes) {
            return -ENOMEM;
        }
    }
    if (header->total != part->size || header->offset > part->have) {
        return -EPROTO; /* a gap: the sender starts over after its reconnect */
    }
    if (size) {
        memcpy(part->bytes + header->offset, bytes, size);
    }
    if (header->offset + size > part->have) {
        part->have = header->offset + (uint32_t)size;
    }
    if (part->have == part->size) {
        part->complete = true;
        set->complete_parts++;
    }
    return 0;
}

const struct sv_board_set *sv_board_find(const struct sv_board_set *sets, uint32_t cycle, uint32_t step,
                                         const char *key)
{
    for (const struct sv_board_set *set = sets; set; set = set->next) {
        if (set->cycle == cycle && set->step == step && 0 == strncmp(set->key, key, SV_WIRE_KEY)) {
            return set->complete_parts == set->world_size ? set : NULL;
        }
    }
    return NULL;
}

void sv_board_forget(struct sv_board_set **sets, uint32_t cycle, uint32_t step)
{
    while (*sets) {
        struct sv_board_set *set = *sets;
        if (older(set->cycle, set->step, cycle, step)) {
            *sets = set->next;
            destroy(set);
        } else {
            sets = &set->next;
        }
    }
}
