/* SPDX-License-Identifier: Apache-2.0 */
#include "live.h"

#include "arrivals.h"
#include "board.h"
#include "handover.h"
#include "join.h"
#include "openib.h"
#include "proxy.h"
#include "rebuild.h"
#include "registration.h"
#include "remote.h"
#include "status.h"
#include "throttle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct sv_handover machine;
static uint64_t begun_us, flipped_us;
static struct sv_ranks moving; /* of the last order that did not concern all */
static int opened; /* result of sv_rebuild_open of this order */
/* What the complete "flip" set says was sent to this rank, by the BTL it was sent over. */
static struct {
    uint64_t fragments;
    uint32_t cycle, step;
    int via;
} expected = {.via = -1};

static bool stays(void)
{
    return SV_ROLE_STAYS == machine.role;
}

/* Does the route to that peer change? */
static bool concerns(const sv_endpoint_t *e)
{
    return !stays() || sv_ranks_has(&moving, e->peer);
}

static int via_of(bool tcp)
{
    return tcp ? SV_VIA_TCP : SV_VIA_OPENIB;
}

static bool none_in_hand(void *context, bool tcp)
{
    return 0 == sv_proxy.traffic[via_of(tcp)].in_hand;
}

/* So long a rank looks whether its peers answer over tcp; openib carries everything meanwhile. */
#define CONNECT_MS 500u
static uint64_t connecting_us; /* 0: not begun in this order */

static int connect_tcp(void *context)
{
    const bool first = 0 == connecting_us;
    /* Each time: the PML meets new peers meanwhile, and the flip follows at once where this says yes. */
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (NULL == e->proc || sv_endpoint_is_self(e) || !concerns(e)) {
            continue;
        }
        const bool greets = first && (e->sent[SV_VIA_OPENIB] || sv_endpoint_received(e->peer));
        if (OPAL_SUCCESS != sv_tcp_connect(e) || (greets && OPAL_SUCCESS != sv_remote_hello(e))) {
            snprintf(sv_status.detail, sizeof(sv_status.detail), "tcp does not reach rank %u", e->peer);
            return -EHOSTUNREACH;
        }
    }
    if (first) {
        connecting_us = sv_now_us();
    }
    return 0 == sv_remote_hellos || sv_since(connecting_us) >= CONNECT_MS * 1000u;
}

static void flip(void *context, bool to_tcp)
{
    flipped_us = sv_now_us();
    if (to_tcp) {
        sv_status.timing_us[SV_TIMING_LATE] = sv_since(begun_us);
    }
    if (stays()) {
        sv_endpoint_route(&moving, via_of(to_tcp));
    } else {
        sv_endpoint_route_all(via_of(to_tcp));
        sv_status.route = to_tcp ? SV_ROUTE_TCP : SV_ROUTE_OPENIB;
    }
    sv_throttle_begin(stays() ? &moving : NULL);
    /* Atomics of the card and of the processor do not exclude each other: none of either kind begins
     * between this rank's flip and the moment when nobody does the other kind any more. Where there are
     * windows all routes change at once (see sv_live_begin). */
    sv_proxy.hold_atomics = true;
    sv_proxy.rebuilding = false;
}

static void post_sent(void *context, bool tcp)
{
    const size_t size = sv_proxy.world_size * sizeof(uint64_t);
    uint64_t *sent = calloc(sv_proxy.world_size, sizeof(*sent));
    for (sv_endpoint_t *e = sv_proxy.endpoints; sent && e; e = e->next) {
        if (e->peer < sv_proxy.world_size) {
            sent[e->peer] = e->sent[via_of(tcp)];
        }
    }
    const int rc = sent ? sv_link_post(sv_handled_cycle, sv_handled_step, tcp ? "back.flip" : "flip", sent, size)
                        : -ENOMEM;
    if (rc) {
        sv_error("cannot post what was sent: %s", strerror(-rc)); /* the host's deadline ends the cycle */
    }
    free(sent);
}

static uint64_t sent_to_me(const struct sv_board_set *set, uint32_t rank)
{
    uint64_t sent;
    memcpy(&sent, set->part[rank].bytes + sv_proxy.rank * sizeof(sent), sizeof(sent));
    return sent;
}

/* The card goes on carrying the other routes of this rank: each moving peer by itself. Descriptors in
 * hand are not counted by peer; at this moment there is none at all (the caller has looked). */
static bool drained_of_moving(void)
{
    const struct sv_board_set *set = sv_board_ready(sv_handled_cycle, sv_handled_step, "flip");
    for (uint32_t rank = 0; rank < set->world_size; rank++) {
        if (!sv_ranks_has(&moving, rank)) {
            continue;
        }
        const sv_endpoint_t *e = sv_endpoint_of_rank(rank);
        const uint64_t sent = sent_to_me(set, rank);
        if (sent && (NULL == e || NULL == e->openib)) {
            char why[128];
            sv_endpoint_meet(&moving, why, sizeof(why)); /* it has only ever called this rank */
            e = sv_endpoint_of_rank(rank);
        }
        if (sv_endpoint_received(rank) != sent || (e && e->outstanding[SV_VIA_OPENIB])) {
            return false;
        }
    }
    return true;
}

static bool drained(void *context, bool tcp)
{
    const int via = via_of(tcp);
    if (expected.via != via || expected.cycle != sv_handled_cycle || expected.step != sv_handled_step) {
        const struct sv_board_set *set =
            sv_board_ready(sv_handled_cycle, sv_handled_step, tcp ? "back.flip" : "flip");
        uint64_t sum = 0;
        for (uint32_t i = 0; i < set->world_size; i++) {
            if (set->part[i].size != set->world_size * sizeof(uint64_t)) {
                sv_error("rank %u posts %u bytes of sent counters", i, set->part[i].size);
                return false;
            }
            sum += sent_to_me(set, i);
        }
        expected.fragments = sum;
        expected.cycle = sv_handled_cycle;
        expected.step = sv_handled_step;
        expected.via = via;
    }
    if (!tcp && stays()) {
        return drained_of_moving();
    }
    /* All routes of this rank are given up; or tcp is, which leads to the moving ranks only. */
    const struct sv_traffic traffic = sv_proxy_traffic(via);
    return traffic.received == expected.fragments && 0 == traffic.outstanding && 0 == traffic.in_hand;
}

static void post(void *context, const char *key)
{
    sv_link_post(sv_handled_cycle, sv_handled_step, key, "", 0);
}

#define TELL_DELAY_MS 20000u
static bool told_delay;

static int joined; /* 0 not begun, 1 connected, -EINPROGRESS, or why not */

/* The handles are here: also wait until this rank's endpoints are connected, or cannot be. */
static bool join(void)
{
    if (0 == joined) {
        sv_join_begin(stays() ? &moving : NULL);
        /* A rank that computes joins when it calls MPI again: what is too long counts from then. */
        sv_link_post(sv_handled_cycle, sv_handled_step, "join", "", 0);
        joined = -EINPROGRESS;
    }
    if (-EINPROGRESS == joined) {
        if (sv_board_ready(sv_handled_cycle, sv_handled_step, "join")) {
            sv_join_all_called();
        }
        const int state = sv_join_state(sv_status.detail, sizeof(sv_status.detail));
        joined = state ? state : -EINPROGRESS;
    }
    return -EINPROGRESS != joined;
}

static bool complete(void *context, const char *key)
{
    if (0 == strcmp(key, "handles") && sv_board_ready(sv_handled_cycle, sv_handled_step, key)) {
        return sv_rebuild_handles_failed() || join(); /* a rank that failed is not there to be joined */
    }
    return NULL != sv_board_ready(sv_handled_cycle, sv_handled_step, key);
}

static void poll_openib(void *context, bool on)
{
    sv_proxy.polling = on && NULL != sv_proxy.openib;
}

static int tear_down(void *context)
{
    const uint64_t start = sv_now_us();
    int open_count = 0;
    sv_proxy.rebuilding = false; /* also of a return that was given up between its set and the flip */
    if (stays()) {
        return sv_openib_drop(&moving, sv_status.detail, sizeof(sv_status.detail));
    }
    sv_publish(SV_RANK_CLOSING);
    const int rc = sv_openib_close(sv_status.detail, sizeof(sv_status.detail), &open_count);
    sv_status.open_descriptors = (uint32_t)open_count;
    sv_status.live_cycles++;
    sv_status.timing_us[SV_TIMING_TEARDOWN] = sv_since(start);
    return rc;
}

static int open_card(void *context)
{
    joined = 0;
    if (stays()) {
        opened = sv_rebuild_keep();
    } else {
        sv_publish(SV_RANK_OPENING);
        opened = sv_rebuild_open();
    }
    return opened;
}

static int connect_card(void *context)
{
    const int rc = sv_rebuild_connect(opened);
    if (0 == rc) {
        sv_proxy.rebuilding = true; /* peers met from now on need an openib endpoint as well */
        sv_proxy.polling = true;    /* before anyone may send there */
    }
    return rc;
}

static int adopt(void *context)
{
    return sv_rebuild_adopt(joined < 0 ? joined : 0);
}

static void take_back(void *context)
{
    sv_proxy.rebuilding = false;
    if (!stays()) {
        sv_rebuild_take_back();
    } else if (sv_openib_drop(&moving, sv_status.detail, sizeof(sv_status.detail))) {
        sv_warn("%s", sv_status.detail); /* the next return of those ranks will fail and say so */
    }
}

static void disconnect_tcp(void *context)
{
    sv_tcp_disconnect_all();
}

static void entered(void *context, enum sv_handover_state state)
{
    switch (state) {
    case SV_HANDOVER_FLIPPED:
        if (!stays()) {
            sv_publish(SV_RANK_DRAINING);
        }
        break;
    case SV_HANDOVER_QUIET:
        sv_status.timing_us[SV_TIMING_DRAIN] = sv_since(flipped_us);
        break;
    default:
        break;
    }
    if (SV_HANDOVER_QUIET == state || SV_HANDOVER_OPENIB == state || SV_HANDOVER_TCP == state) {
        sv_throttle_end();
    }
    /* Not in passing: a return that begins from there may come past ranks that still emulate them. */
    if ((SV_HANDOVER_OPENIB == state || SV_HANDOVER_TCP == state) && SV_ORDER_NONE == machine.order) {
        sv_proxy.hold_atomics = false;
    }
}

static const struct sv_handover_rank rank = {
    .none_in_hand = none_in_hand,
    .connect_tcp = connect_tcp,
    .flip = flip,
    .post_sent = post_sent,
    .drained = drained,
    .post = post,
    .complete = complete,
    .poll_openib = poll_openib,
    .tear_down = tear_down,
    .open = open_card,
    .connect = connect_card,
    .adopt = adopt,
    .take_back = take_back,
    .disconnect_tcp = disconnect_tcp,
    .entered = entered,
};

void sv_live_settle(void)
{
    machine.order = SV_ORDER_NONE;
    machine.opened = false;
    machine.state = SV_VIA_TCP == sv_proxy.via || sv_ranks_count(&sv_proxy.away, sv_proxy.world_size)
                        ? SV_HANDOVER_TCP
                        : SV_HANDOVER_OPENIB;
}

static enum sv_handover_role role_in(const struct sv_want *want)
{
    const uint32_t count = sv_ranks_count(&want->moving, sv_proxy.world_size);
    if (0 == count || count == sv_proxy.world_size) {
        return SV_ROLE_WHOLE;
    }
    return sv_ranks_has(&want->moving, sv_proxy.rank) ? SV_ROLE_MOVES : SV_ROLE_STAYS;
}

static void report(void)
{
    if (machine.error) {
        sv_publish_failure(machine.error);
    } else {
        sv_publish(SV_RANK_RUNNING);
    }
}

static void refuse(const char *why)
{
    snprintf(sv_status.detail, sizeof(sv_status.detail), "%s", why);
    sv_publish_failure(-EOPNOTSUPP);
}

void sv_live_begin(const struct sv_want *want)
{
    const bool leave = SV_PHASE_RUN_TCP == want->phase;
    const enum sv_handover_role role = role_in(want);
    const bool steady = SV_HANDOVER_OPENIB == machine.state || SV_HANDOVER_TCP == machine.state;
    if (SV_ORDER_NONE == machine.order && steady) {
        sv_live_settle();
    }
    if (leave) { /* the way back adds its own times to those of the leave */
        memset(sv_status.timing_us, 0, sizeof(sv_status.timing_us));
    }
    begun_us = want->arrived_us;
    connecting_us = 0;
    told_delay = false;
    sv_status.error = 0;
    sv_status.detail[0] = '\0';
    if (leave && SV_HANDOVER_OPENIB == machine.state && sv_endpoint_foreign()) {
        refuse("is connected to processes of another job, which take no part in this");
        return;
    }
    if (SV_ROLE_WHOLE != role && leave && SV_HANDOVER_OPENIB == machine.state) {
        if (sv_arrivals_blurred()) {
            refuse("cannot tell its peers' traffic apart: change all routes at once");
            return;
        }
        if (sv_registration_windows()) {
            refuse("has one-sided windows, whose atomics must change their route all at once");
            return;
        }
    }
    moving = want->moving;
    if (!sv_handover_begin(&machine, &rank, leave ? SV_ORDER_LEAVE : SV_ORDER_BACK, role,
                           0 != (want->flags & SV_WANT_QUIET_COMPLETE))) {
        report();
    }
}

/* The host only sees that this rank is not done. Once an order, so that a log tells where it stood. */
static void tell_delay(void)
{
    if (told_delay || sv_since(begun_us) < TELL_DELAY_MS * 1000u) {
        return;
    }
    told_delay = true;
    char text[252];
    snprintf(text, sizeof(text),
             "cycle %u step %u: not done after %u s: state %d of order %d, role %d, join %d, in hand %lld over openib, "
             "%lld over tcp, %d greetings open",
             sv_handled_cycle, sv_handled_step, TELL_DELAY_MS / 1000u, (int)machine.state, (int)machine.order,
             (int)machine.role, joined, (long long)sv_proxy.traffic[SV_VIA_OPENIB].in_hand,
             (long long)sv_proxy.traffic[SV_VIA_TCP].in_hand, sv_remote_hellos);
    sv_warn("%s", text);
    sv_link_log(SV_LOG_WARN, text);
}

bool sv_live_step(void)
{
    if (SV_ORDER_NONE == machine.order) {
        return true;
    }
    if (!sv_handover_step(&machine, &rank)) {
        tell_delay();
        return false;
    }
    report();
    return true;
}

bool sv_live_active(void)
{
    return SV_ORDER_NONE != machine.order;
}
