/* SPDX-License-Identifier: Apache-2.0 */
#include "cycle.h"

#include "board.h"
#include "hold.h"
#include "live.h"
#include "park.h"
#include "proxy.h"
#include "roce.h"
#include "status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool linked, stepping;

void sv_cycle_inert(const char *reason)
{
    struct sv_msg_hello hello;
    sv_fill_hello(&hello, SV_HELLO_INERT, reason);
    sv_info("inert: %s", reason);
    if (sv_link_available()) {
        sv_link_announce_inert(&hello);
    }
}

void sv_cycle_prepare(const char *version)
{
    sv_status_openmpi_version(version);
    atomic_store(&sv_pending, 1); /* the first safe point says hello */
}

/* At the first safe point the PML is chosen. */
static void say_hello(void)
{
    struct sv_msg_hello hello;
    const char *pml = sv_opal.selected_pml->mca_component_name;
    if ('\0' == pml[0] || sv_proxy.undecided) {
        return; /* not chosen yet: stay pending */
    }
    linked = true;
    if (0 != strcmp(pml, "ob1")) {
        char reason[128];
        snprintf(reason, sizeof(reason), "the PML is %.32s, not ob1", pml);
        atomic_store(&sv_pending, 0);
        sv_cycle_inert(reason);
        return;
    }
    sv_fill_hello(&hello, (sv_proxy.tcp_only ? SV_HELLO_TCP_ONLY : 0u) | (sv_roce_on() ? SV_HELLO_ROCE : 0u), "");
    sv_status.route = SV_VIA_TCP == sv_proxy.via ? SV_ROUTE_TCP : SV_ROUTE_OPENIB;
    atomic_store(&sv_pending, 0);
    sv_publish(SV_RANK_RUNNING);
    const int rc = sv_link_start(&hello);
    if (rc) {
        sv_error("no thread for the agent's connection: %s", strerror(-rc));
    }
}

void sv_cycle_obey(const struct sv_want *want)
{
    sv_handled_cycle = want->cycle;
    sv_handled_step = want->step;
    sv_board_release_before(sv_handled_cycle, sv_handled_step);
}

static void refuse(const char *why)
{
    snprintf(sv_status.detail, sizeof(sv_status.detail), "%s", why);
    sv_publish_failure(-EINVAL);
}

static void obey(const struct sv_want *want)
{
    sv_cycle_obey(want);
    switch (want->phase) {
    case SV_PHASE_PARK:
        if (sv_live_active()) {
            refuse("cannot park in the middle of a change of route");
            break;
        }
        if (sv_endpoint_foreign()) {
            refuse("is connected to processes of another job, which take no part in this");
            break;
        }
        sv_park(want);
        sv_live_settle();
        if (!sv_link_want(sv_handled_cycle, sv_handled_step, &(struct sv_want){0})) {
            sv_publish(SV_RANK_RUNNING); /* after the hold, or the lease was over */
        }
        break;
    case SV_PHASE_RUN_TCP:
    case SV_PHASE_RUN_OPENIB:
        if (sv_proxy.tcp_only) {
            sv_publish(SV_RANK_RUNNING); /* there is one route */
        } else {
            sv_live_begin(want);
        }
        break;
    case SV_PHASE_HOLD:
        sv_hold(want);
        break;
    default:
        refuse("this phase is not known");
    }
}

void sv_cycle_step(void)
{
    struct sv_want want;
    const int kept = errno;
    if (stepping) {
        return;
    }
    if (!linked) {
        say_hello();
        errno = kept;
        return;
    }
    stepping = true;
    for (;;) {
        atomic_store(&sv_pending, 0);
        const bool idle = sv_live_step();
        if (sv_link_want(sv_handled_cycle, sv_handled_step, &want)) {
            obey(&want);
        } else if (idle) {
            break;
        } else {
            atomic_store(&sv_pending, 1); /* again at the next safe point */
            break;
        }
    }
    stepping = false;
    errno = kept;
}

void sv_cycle_finalize(void)
{
    sv_opal.progress_unregister(sv_proxy_safe_point);
    atomic_store(&sv_pending, 0);
    sv_link_stop();
}
