/* SPDX-License-Identifier: Apache-2.0 */
#include "handover.h"

#include <errno.h>

static void enter(struct sv_handover *h, const struct sv_handover_rank *r, enum sv_handover_state state)
{
    h->state = state;
    r->entered(r->context, state);
}

static bool finish(struct sv_handover *h, const struct sv_handover_rank *r, enum sv_handover_state steady, int error)
{
    h->error = error;
    h->order = SV_ORDER_NONE;
    enter(h, r, steady);
    return true;
}

/* The old way is given up by all: release the card. True when the order that led here is done. */
static bool leave_the_card(struct sv_handover *h, const struct sv_handover_rank *r)
{
    const int error = r->tear_down(r->context);
    if (SV_ORDER_LEAVE == h->order) {
        return finish(h, r, SV_HANDOVER_TCP, error);
    }
    enter(h, r, SV_HANDOVER_TCP);
    return false;
}

/* openib is up and polled, the route is tcp: a leave begins after its flip, with the counters of its
 * own step; a return has only to flip. */
static void stay_flipped(struct sv_handover *h, const struct sv_handover_rank *r)
{
    if (SV_ORDER_LEAVE == h->order) {
        r->post_sent(r->context, false);
    }
    enter(h, r, SV_HANDOVER_FLIPPED);
}

bool sv_handover_begin(struct sv_handover *h, const struct sv_handover_rank *r, enum sv_handover_order order,
                       bool given_up)
{
    h->order = order;
    h->error = 0;
    switch (h->state) {
    case SV_HANDOVER_OPENIB:
        /* A back order to a rank that never flipped is an abort it must still take part in: the
         * others count on its frozen tcp counters. */
        return true;
    case SV_HANDOVER_FLIPPED:
    case SV_HANDOVER_DRAINING:
    case SV_HANDOVER_DRAINED:
    case SV_HANDOVER_QUIET:
        r->poll_openib(r->context, !given_up);
        if (given_up) {
            leave_the_card(h, r); /* as the others have: the order begins from tcp, or is done */
        } else {
            stay_flipped(h, r); /* the queue pairs still stand everywhere */
        }
        return true;
    case SV_HANDOVER_READY:
        if (!given_up) {
            stay_flipped(h, r); /* others may send over openib already: it must not go */
            return true;
        }
        /* fall through */
    case SV_HANDOVER_OPENED:
    case SV_HANDOVER_CONNECTED:
        r->take_back(r->context); /* nobody has flipped: not all were ready */
        enter(h, r, SV_HANDOVER_TCP);
        break;
    case SV_HANDOVER_BACK_FLIPPED:
    case SV_HANDOVER_BACK_DRAINING:
    case SV_HANDOVER_BACK_DRAINED:
        enter(h, r, SV_HANDOVER_OPENIB); /* openib carries all that is new already */
        return true;
    case SV_HANDOVER_TCP:
        break;
    }
    if (SV_ORDER_LEAVE == order) {
        finish(h, r, SV_HANDOVER_TCP, 0);
        return false;
    }
    return true;
}

static bool step_leave(struct sv_handover *h, const struct sv_handover_rank *r)
{
    switch (h->state) {
    case SV_HANDOVER_OPENIB:
        if (!r->none_in_hand(r->context, false)) {
            return false;
        }
        if (!r->connect_tcp(r->context)) {
            return finish(h, r, SV_HANDOVER_OPENIB, -EHOSTUNREACH);
        }
        r->flip(r->context, true);
        r->post_sent(r->context, false);
        enter(h, r, SV_HANDOVER_FLIPPED);
        /* fall through */
    case SV_HANDOVER_FLIPPED:
        if (!r->complete(r->context, "flip")) {
            return false;
        }
        enter(h, r, SV_HANDOVER_DRAINING);
        /* fall through */
    case SV_HANDOVER_DRAINING:
        /* a descriptor that came back at its completion goes with openib, too */
        if (!r->none_in_hand(r->context, false) || !r->drained(r->context, false)) {
            return false;
        }
        r->post(r->context, "drained");
        enter(h, r, SV_HANDOVER_DRAINED);
        /* fall through */
    case SV_HANDOVER_DRAINED:
        if (!r->complete(r->context, "drained")) {
            return false;
        }
        /* openib sends credit messages by itself when it receives; one to a queue pair already
         * destroyed is fatal: all stop polling before anyone tears down. */
        r->poll_openib(r->context, false);
        r->post(r->context, "quiet");
        enter(h, r, SV_HANDOVER_QUIET);
        /* fall through */
    case SV_HANDOVER_QUIET:
        return r->complete(r->context, "quiet") && leave_the_card(h, r);
    default:
        return true;
    }
}

static bool step_back(struct sv_handover *h, const struct sv_handover_rank *r)
{
    int error;
    switch (h->state) {
    case SV_HANDOVER_TCP:
        error = r->open(r->context);
        enter(h, r, SV_HANDOVER_OPENED);
        h->error = error;
        /* fall through */
    case SV_HANDOVER_OPENED:
        if (!r->complete(r->context, "blob")) {
            return false;
        }
        error = r->connect(r->context);
        if (error) {
            r->take_back(r->context);
            return finish(h, r, SV_HANDOVER_TCP, h->error ? h->error : error);
        }
        enter(h, r, SV_HANDOVER_CONNECTED);
        /* fall through */
    case SV_HANDOVER_CONNECTED:
        if (!r->complete(r->context, "handles")) {
            return false;
        }
        error = r->adopt(r->context);
        if (error) {
            r->take_back(r->context);
            return finish(h, r, SV_HANDOVER_TCP, error);
        }
        r->post(r->context, "ready");
        enter(h, r, SV_HANDOVER_READY);
        /* fall through */
    case SV_HANDOVER_READY:
        if (!r->none_in_hand(r->context, true) || !r->complete(r->context, "ready")) {
            return false;
        }
        r->flip(r->context, false);
        r->post_sent(r->context, true);
        enter(h, r, SV_HANDOVER_BACK_FLIPPED);
        break;
    case SV_HANDOVER_OPENIB:
    case SV_HANDOVER_FLIPPED:
    case SV_HANDOVER_DRAINING:
    case SV_HANDOVER_DRAINED:
    case SV_HANDOVER_QUIET:
        /* an abort: the card was never given up */
        if (!r->none_in_hand(r->context, true)) {
            return false;
        }
        r->flip(r->context, false);
        r->post_sent(r->context, true);
        enter(h, r, SV_HANDOVER_BACK_FLIPPED);
        break;
    default:
        break;
    }
    if (SV_HANDOVER_BACK_FLIPPED == h->state) {
        if (!r->complete(r->context, "back.flip")) {
            return false;
        }
        enter(h, r, SV_HANDOVER_BACK_DRAINING);
    }
    if (SV_HANDOVER_BACK_DRAINING == h->state) {
        if (!r->none_in_hand(r->context, true) || !r->drained(r->context, true)) {
            return false;
        }
        r->post(r->context, "back.drained");
        enter(h, r, SV_HANDOVER_BACK_DRAINED);
    }
    if (!r->complete(r->context, "back.drained")) {
        return false;
    }
    r->disconnect_tcp(r->context);
    return finish(h, r, SV_HANDOVER_OPENIB, 0);
}

bool sv_handover_step(struct sv_handover *h, const struct sv_handover_rank *r)
{
    switch (h->order) {
    case SV_ORDER_LEAVE:
        return step_leave(h, r);
    case SV_ORDER_BACK:
        return step_back(h, r);
    case SV_ORDER_NONE:
        break;
    }
    return true;
}
