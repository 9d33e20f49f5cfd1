/* SPDX-License-Identifier: Apache-2.0 */
#include "park.h"

#include "board.h"
#include "cycle.h"
#include "join.h"
#include "openib.h"
#include "proxy.h"
#include "rebuild.h"
#include "status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Between "nobody answers" and "go on without the host": only before anything is given up. */
#define DRAIN_LEASE_MS 60000u

enum outcome {
    COMPLETE,   /* the set is there */
    SUPERSEDED, /* a newer want came first */
    LEASE_OVER, /* no agent for too long */
};

/* ---- waiting for the board ---- */

/* Waits for a complete set of this step. With `progress` the BTLs go on meanwhile. */
static enum outcome await(const char *key, bool progress, bool lease, const struct sv_board_set **set)
{
    /* Held already, this rank has routes to a card that is closed: nothing may be sent from a callback. */
    progress = progress && (sv_proxy.openib || SV_VIA_TCP == sv_proxy.via);
    struct sv_want newer;
    for (unsigned idle = 0;; idle++) {
        /* the set first: the host sends complete sets before a newer want */
        *set = sv_board_ready(sv_handled_cycle, sv_handled_step, key);
        if (*set) {
            return COMPLETE;
        }
        if (sv_link_want(sv_handled_cycle, sv_handled_step, &newer)) {
            return SUPERSEDED;
        }
        if (lease && sv_link_silence_ms() > DRAIN_LEASE_MS) {
            return LEASE_OVER;
        }
        if (progress) {
            sv_opal.progress();
        }
        if (!progress || idle > 200) {
            /* the agent and other ranks share these processors */
            sv_link_wait(progress ? 500 : 100000);
        }
    }
}

/* ---- drain ---- */

struct drain_post {
    uint64_t sent, received, outstanding, in_hand;
};

static struct drain_post count_now(void)
{
    struct drain_post now = {0};
    for (int via = 0; via < SV_VIAS; via++) {
        const struct sv_traffic t = sv_proxy_traffic(via);
        now.sent += t.sent;
        now.received += t.received;
        now.outstanding += (uint64_t)t.outstanding;
        now.in_hand += (uint64_t)t.in_hand;
    }
    return now;
}

/*
 * Nothing is on the wire when every descriptor has completed and every fragment sent has been
 * received, by equal sums in two rounds (between which a late callback could have sent again).
 * openib's own control traffic is neither counted nor needs to be: it ends with the polling.
 */
static enum outcome drain(void)
{
    struct drain_post last = {0};
    bool have_last = false;
    for (unsigned round = 0;; round++) {
        char key[SV_WIRE_KEY];
        const struct sv_board_set *set;
        struct sv_want newer;
        struct drain_post mine = count_now();
        /* A round can only end the drain if this rank is idle: go on until it is. */
        for (unsigned spins = 0; mine.outstanding || mine.in_hand; spins++) {
            if (sv_link_want(sv_handled_cycle, sv_handled_step, &newer)) {
                return SUPERSEDED;
            }
            if (sv_link_silence_ms() > DRAIN_LEASE_MS) {
                return LEASE_OVER;
            }
            sv_opal.progress();
            if (spins > 2000) {
                sv_link_wait(200);
            }
            mine = count_now();
        }
        snprintf(key, sizeof(key), "drain.%u", round);
        sv_link_post(sv_handled_cycle, sv_handled_step, key, &mine, sizeof(mine));
        const enum outcome outcome = await(key, true, true, &set);
        if (COMPLETE != outcome) {
            return outcome;
        }
        struct drain_post sum = {0};
        for (uint32_t i = 0; i < set->world_size; i++) {
            struct drain_post post;
            if (sizeof(post) != set->part[i].size) {
                sv_error("rank %u posts %u bytes to %s", i, set->part[i].size, key);
                sum.outstanding++; /* what a rank does not say is not quiet */
                continue;
            }
            memcpy(&post, set->part[i].bytes, sizeof(post));
            sum.sent += post.sent;
            sum.received += post.received;
            sum.outstanding += post.outstanding;
            sum.in_hand += post.in_hand;
        }
        sv_debug("drain round %u: sent %llu received %llu", round, (unsigned long long)sum.sent,
                 (unsigned long long)sum.received);
        const bool quiet = sum.sent == sum.received && 0 == sum.outstanding && 0 == sum.in_hand;
        if (quiet && have_last && 0 == memcmp(&sum, &last, sizeof(sum))) {
            return COMPLETE;
        }
        last = sum;
        have_last = quiet;
    }
}

/* ---- park ---- */

/* Closes openib and proves it. Publishes PARKED or FAILED; the rank is held either way. */
static void tear_down(void)
{
    const uint64_t start = sv_now_us();
    int open_count = 0;
    sv_publish(SV_RANK_CLOSING);
    sv_tcp_disconnect_all();
    sv_status.detail[0] = '\0';
    const int rc = sv_proxy.tcp_only ? 0 : sv_openib_close(sv_status.detail, sizeof(sv_status.detail), &open_count);
    sv_status.open_descriptors = (uint32_t)open_count;
    sv_status.route = SV_ROUTE_NONE;
    sv_status.live_cycles++;
    sv_status.timing_us[SV_TIMING_TEARDOWN] = sv_since(start);
    if (rc) {
        sv_publish_failure(rc);
    } else {
        sv_publish(SV_RANK_PARKED);
    }
}

/* True: torn down and held. False: nothing was given up, the rank runs on. */
static bool park(const struct sv_want *want)
{
    const struct sv_board_set *set;
    struct sv_want newer;
    const bool was_polling = sv_proxy.polling;
    uint64_t start = sv_now_us();

    memset(sv_status.timing_us, 0, sizeof(sv_status.timing_us));
    sv_status.timing_us[SV_TIMING_LATE] = sv_since(want->arrived_us);
    sv_status.error = 0;
    sv_status.detail[0] = '\0';
    sv_publish(SV_RANK_DRAINING);
    enum outcome outcome = drain();
    sv_status.timing_us[SV_TIMING_DRAIN] = sv_since(start);
    if (COMPLETE == outcome) {
        /* A credit message sent to a queue pair already destroyed is fatal on the other side: all
         * stop polling before anyone tears down. */
        sv_proxy.polling = false;
        sv_link_post(sv_handled_cycle, sv_handled_step, "quiet", "", 0);
        outcome = await("quiet", false, false, &set);
        if (SUPERSEDED == outcome && sv_link_want(sv_handled_cycle, sv_handled_step, &newer) &&
            (newer.flags & SV_WANT_QUIET_COMPLETE)) {
            outcome = COMPLETE; /* the others tear down: so must this rank */
        }
    }
    if (COMPLETE != outcome) {
        sv_proxy.polling = was_polling;
        sv_info("cycle %u step %u: left the drain, %s", sv_handled_cycle, sv_handled_step,
                LEASE_OVER == outcome ? "no agent for a minute" : "a newer want came");
        return false;
    }
    tear_down();
    return true;
}

/* ---- run again ---- */

/* Waits until this rank's endpoints are connected, or says why not. A newer want ends it as well. */
static int join(void)
{
    struct sv_want newer;
    int state;
    /* Before anything is received: a rank that has seen all joined runs at once, and the PML answers its
     * message from inside the callback, by an endpoint that must not lead to the card that is gone. */
    sv_endpoint_route_all(SV_VIA_OPENIB);
    sv_proxy.polling = true;
    sv_join_begin(NULL);
    sv_join_all_called(); /* all are held, and wait for nothing else */
    while (0 == (state = sv_join_state(sv_status.detail, sizeof(sv_status.detail)))) {
        if (sv_link_want(sv_handled_cycle, sv_handled_step, &newer)) {
            return -ECANCELED;
        }
        sv_opal.progress();
        sv_link_wait(200);
    }
    return state < 0 ? state : 0;
}

/* One attempt. 0; -EAGAIN if a handshake stopped half way; another negative errno; 1 if a newer want
 * came first. */
static int open_and_connect(void)
{
    const struct sv_board_set *set;
    int rc = sv_rebuild_open();
    if (COMPLETE != await(sv_rebuild_key("blob"), false, false, &set)) {
        return 1;
    }
    if ((rc = sv_rebuild_connect(rc))) {
        return rc;
    }
    if (COMPLETE != await(sv_rebuild_key("handles"), false, false, &set)) {
        return 1;
    }
    if ((rc = sv_rebuild_adopt(rc))) {
        return rc;
    }
    rc = join();
    sv_rebuild_post_joined(rc);
    if (COMPLETE != await(sv_rebuild_key("joined"), true, false, &set)) {
        return 1;
    }
    return sv_rebuild_joined(rc) ? -EAGAIN : 0;
}

/* Over openib. False: held as before, FAILED published (or a newer want is there). */
static bool run_openib(void)
{
    enum { ATTEMPTS = 3 };
    int rc = -EAGAIN;
    sv_status.error = 0;
    sv_status.detail[0] = '\0';
    sv_publish(SV_RANK_OPENING);
    for (unsigned attempt = 0; -EAGAIN == rc && attempt < ATTEMPTS; attempt++) {
        sv_rebuild_attempt(attempt);
        rc = open_and_connect();
        if (rc) {
            sv_rebuild_take_back();
        }
        if (-EAGAIN == rc) {
            sv_warn("cycle %u step %u: %s; opening the card anew", sv_handled_cycle, sv_handled_step,
                    sv_status.detail);
        }
    }
    sv_rebuild_attempt(0);
    if (rc) {
        if (rc < 0) {
            sv_publish_failure(-EAGAIN == rc ? -ETIMEDOUT : rc);
        }
        return false;
    }
    sv_status.detail[0] = '\0';
    sv_tcp_disconnect_all(); /* drained before the tear-down */
    sv_status.route = SV_ROUTE_OPENIB;
    sv_publish(SV_RANK_RUNNING);
    return true;
}

/* Over tcp, without a card. */
static bool run_tcp(void)
{
    sv_status.error = 0;
    sv_status.detail[0] = '\0';
    sv_publish(SV_RANK_OPENING);
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (e->proc && !sv_endpoint_is_self(e) && OPAL_SUCCESS != sv_tcp_connect(e)) {
            snprintf(sv_status.detail, sizeof(sv_status.detail), "tcp does not reach rank %u", e->peer);
            sv_publish_failure(-EHOSTUNREACH);
            return false;
        }
    }
    if (sv_proxy.tcp_only) {
        sv_proxy.epoch++; /* nothing was rebuilt, but the cycle is counted */
    }
    sv_endpoint_route_all(SV_VIA_TCP);
    sv_status.route = SV_ROUTE_TCP;
    sv_publish(SV_RANK_RUNNING);
    return true;
}

/* Held until a want lets the rank run. */
static void hold(uint64_t since_us)
{
    struct sv_want want;
    for (;;) {
        if (!sv_link_want(sv_handled_cycle, sv_handled_step, &want)) {
            sv_link_wait(1000000);
            continue;
        }
        sv_cycle_obey(&want);
        sv_status.timing_us[SV_TIMING_HELD] = sv_since(since_us);
        switch (want.phase) {
        case SV_PHASE_PARK:
            /* parked already: goes through the rounds with the others */
            if (!park(&want) && !sv_link_want(sv_handled_cycle, sv_handled_step, &want)) {
                tear_down(); /* no agent came to the rounds: held as before, and says so again */
            }
            break;
        case SV_PHASE_RUN_TCP:
            if (run_tcp()) {
                return;
            }
            break;
        case SV_PHASE_RUN_OPENIB:
            if (sv_proxy.tcp_only ? run_tcp() : run_openib()) {
                return;
            }
            break;
        default:
            snprintf(sv_status.detail, sizeof(sv_status.detail), "phase %u is not known", want.phase);
            sv_publish_failure(-EINVAL);
        }
    }
}

void sv_park(const struct sv_want *want)
{
    if (park(want)) {
        hold(sv_now_us());
        sv_info("cycle %u: runs again in epoch %u, held %.1f ms", sv_handled_cycle, sv_proxy.epoch,
                sv_status.timing_us[SV_TIMING_HELD] / 1000.0);
    }
}
