/* SPDX-License-Identifier: Apache-2.0 */
#include "throttle.h"

#include "remote.h"

/* Fragments; see throttle.h. */
#define AHEAD_LIMIT 4096
/* So far ahead the peer is asked: its answer is there before the limit, if it is there at all. */
#define ASK_AT 1024

static void ask(sv_endpoint_t *e)
{
    const bool left_openib = SV_VIA_TCP == e->via;
    e->asked = OPAL_SUCCESS == sv_remote_ask(e, left_openib ? e->sent[SV_VIA_OPENIB] : 0, e->flips);
}

void sv_throttle_begin(const struct sv_ranks *peers)
{
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (sv_endpoint_is_self(e) || (peers && !sv_ranks_has(peers, e->peer))) {
            continue;
        }
        const int old = SV_VIA_TCP == e->via ? SV_VIA_OPENIB : SV_VIA_TCP;
        e->flips++;
        e->asked = false;
        e->throttled = e->sent[old] > 0; /* nothing can be on its way there */
        if (e->throttled && SV_VIA_TCP == old) {
            ask(e); /* at once: when this rank has drained, tcp may go at any moment */
        }
    }
}

void sv_throttle_end(void)
{
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        e->throttled = false;
    }
}

bool sv_throttle_holds(sv_endpoint_t *e)
{
    const uint64_t ahead = e->sent[e->via] - e->sent_at_flip;
    if (ahead >= ASK_AT && !e->asked && SV_VIA_TCP == e->via) {
        ask(e);
    }
    return ahead > AHEAD_LIMIT;
}

void sv_throttle_passed(sv_endpoint_t *e, uint64_t flips)
{
    if (flips == e->flips) {
        e->throttled = false;
    }
}
