/* SPDX-License-Identifier: Apache-2.0 */
/* Random and mutated datagrams from the agent, against the handler itself; for the sanitizers. */
#include "../preload/src/agent_link.c"

#include "check.h"

extern atomic_int sv_pending;
atomic_int sv_pending;
uint32_t sv_state_peers(uint32_t first, struct sv_wire_peer *room, uint32_t most, uint32_t *total)
{
    enum { PEERS = 1200 }; /* more than a datagram holds */
    uint32_t count = 0;
    for (*total = PEERS; first + count < PEERS && count < most; count++) {
        room[count] = (struct sv_wire_peer){.rank = first + count, .openib_bytes = 7 * (first + count)};
    }
    return count;
}

void sv_state_counters(struct sv_msg_state *state)
{
    state->registrations++;
}

enum { WORLD = 3, DATAGRAMS = 100000 };

static size_t sensible(uint64_t *seed, unsigned char *bytes)
{
    static const uint16_t types[] = {SV_MSG_WELCOME, SV_MSG_WANT, SV_MSG_BOARD, SV_MSG_BOARD, SV_MSG_BOARD,
                                     SV_MSG_QUERY, SV_MSG_QUERY_PEERS, SV_MSG_REJECT};
    static const char *const keys[] = {"drain.0", "quiet", "blob", "handles"};
    struct sv_msg_header *h = (struct sv_msg_header *)bytes;
    size_t size = sizeof(*h);
    memset(bytes, 0, sizeof(struct sv_msg_want));
    const uint16_t type = types[check_below(seed, sizeof(types) / sizeof(types[0]))];
    if (SV_MSG_WANT == type) {
        struct sv_msg_want *m = (struct sv_msg_want *)bytes;
        m->phase = check_below(seed, 5);
        m->flags = check_below(seed, 2);
        size = sizeof(*m);
    } else if (SV_MSG_BOARD == type) {
        struct sv_msg_board *m = (struct sv_msg_board *)bytes;
        strcpy(m->key, keys[check_below(seed, 4)]);
        m->rank = check_below(seed, WORLD);
        m->total = check_below(seed, 3) ? 64u : check_below(seed, 4096);
        m->offset = m->total ? check_below(seed, m->total) & ~15u : 0;
        const uint32_t most = m->total - m->offset;
        const uint32_t n = most > 16 && check_below(seed, 2) ? 16 : most;
        size = sizeof(*m) + n;
        memset(m + 1, 'x', n);
    } else if (SV_MSG_REJECT == type) {
        struct sv_msg_log *m = (struct sv_msg_log *)bytes;
        memset(m->text, check_below(seed, 2) ? 'r' : 0, sizeof(m->text));
        size = sizeof(*m);
    }
    fill_header(h, type, 1 + check_below(seed, 2), 1, size);
    return size;
}

CASE(random_datagrams)
{
    static unsigned char bytes[SV_WIRE_MAX_DATAGRAM];
    uint64_t seed = 0x5eed5eed5eedu;
    long taken = 0, refused = 0, complete = 0;
    struct sv_want want;
    sv_log_threshold = SV_LOG_OFF;
    link_.hello.world_size = WORLD;
    for (long i = 0; i < DATAGRAMS; i++) {
        size_t size = sensible(&seed, bytes);
        switch (check_below(&seed, 4)) {
        case 0: /* as it is */
        case 1:
            break;
        case 2: /* some bytes changed, or the end cut off or grown */
            for (uint32_t n = check_below(&seed, 4); n > 0; n--) {
                bytes[check_below(&seed, (uint32_t)size)] = (unsigned char)check_random(&seed);
            }
            if (check_below(&seed, 3) == 0) {
                size = check_below(&seed, 200);
                if (size >= sizeof(struct sv_msg_header) && check_below(&seed, 2)) {
                    ((struct sv_msg_header *)bytes)->length = (uint32_t)(size - sizeof(struct sv_msg_header));
                }
            }
            break;
        default: /* numbers at their edges behind a good header */
            for (size_t at = sizeof(struct sv_msg_header) + SV_WIRE_KEY; at + 4 <= size && at < 64; at += 4) {
                static const uint32_t edges[] = {0, 1, WORLD, 16, SV_WIRE_MAX_POST, SV_WIRE_MAX_POST + 1, INT32_MAX,
                                                 UINT32_MAX};
                if (check_below(&seed, 2)) {
                    memcpy(bytes + at, &edges[check_below(&seed, 8)], 4);
                }
            }
        }
        /* a copy of just that size: reading past it is an error the sanitizer sees */
        unsigned char *exact = malloc(size ? size : 1);
        memcpy(exact, bytes, size);
        const int rc = handle(exact, size);
        free(exact);
        CHECK(0 == rc || -EPROTO == rc || -ECONNREFUSED == rc);
        taken += 0 == rc;
        refused += 0 != rc;
        CHECK(0 == pthread_mutex_trylock(&link_.lock)); /* no way out keeps the lock */
        pthread_mutex_unlock(&link_.lock);
        if (0 == i % 400) {
            const struct sv_board_set *set = sv_board_ready(1, 1, "quiet");
            for (uint32_t r = 0; set && r < set->world_size; r++) {
                complete++;
                CHECK(set->part[r].complete && set->part[r].have == set->part[r].size);
            }
            sv_board_release_before(UINT32_MAX, UINT32_MAX);
        }
    }
    CHECK(taken > DATAGRAMS / 4);
    CHECK(refused > DATAGRAMS / 10);
    CHECK(complete > 0);
    CHECK(sv_link_want(0, 0, &want));
    sv_board_forget(&link_.sets, UINT32_MAX, UINT32_MAX);
    while (link_.sets) { /* of (UINT32_MAX, UINT32_MAX) itself */
        struct sv_board_set *set = link_.sets;
        link_.sets = set->next;
        free(set);
    }
}
