/* SPDX-License-Identifier: Apache-2.0 */
#include "hold.h"

#include "cycle.h"
#include "live.h"
#include "proxy.h"
#include "status.h"

#include <errno.h>
#include <stdio.h>

/* As in the drain (park.c): how long a want counts with nobody there to take it back. */
#define HOLD_LEASE_MS 60000u

/* Nothing has to be drained or closed: the card has no user, and what is on the wire waits in tcp's
 * sockets. A rank in the middle of a change of route owes the others its posts, so it cannot stop. */
static bool refused(void)
{
    if (sv_live_active()) {
        snprintf(sv_status.detail, sizeof(sv_status.detail), "cannot be held in the middle of a change of route");
    } else if (!sv_proxy.tcp_only && sv_proxy.openib) {
        snprintf(sv_status.detail, sizeof(sv_status.detail), "cannot be held: it uses its card");
    } else {
        return false;
    }
    sv_publish_failure(-EBUSY);
    return true;
}

void sv_hold(const struct sv_want *want)
{
    const uint64_t start = sv_now_us();
    struct sv_want newer;
    if (refused()) {
        return;
    }
    sv_status.error = 0;
    sv_status.detail[0] = '\0';
    sv_publish(SV_RANK_HELD);
    /* A computing rank is what hinders pre-copy, a polling one is no better: the main thread sleeps.
     * Nothing was given up and no other rank counts on the hold, so it ends with the lease. */
    while (!sv_link_want(want->cycle, want->step, &newer) && sv_link_silence_ms() <= HOLD_LEASE_MS) {
        sv_link_wait(1000000);
    }
    sv_status.timing_us[SV_TIMING_HELD] = sv_since(start);
    const bool superseded = sv_link_want(want->cycle, want->step, &newer);
    if (superseded && SV_PHASE_RUN_TCP != newer.phase) {
        return; /* an abort, or the next order: not this function's to obey */
    }
    if (superseded) {
        sv_cycle_obey(&newer);
    }
    sv_publish(SV_RANK_RUNNING);
    sv_info("cycle %u: goes on over tcp, held %.1f ms%s", sv_handled_cycle,
            sv_status.timing_us[SV_TIMING_HELD] / 1000.0, superseded ? "" : ", no agent for a minute");
}
