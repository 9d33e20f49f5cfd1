/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wake-up that openib loses. Its connection manager takes an event of its completion queue, polls the queue, and
 * only then asks for the next event (btl_openib_connect_udcm.c, udcm_cq_event_dispatch): what comes between the two
 * is not seen before something else comes. For the last message of a handshake (COMPLETE) that is never, as its sender
 * is connected by then and does not repeat it (udcm_send_timeout); the other end waits for ever, with what the PML has
 * given it. So the queue is armed as soon as its event is acknowledged, which udcm does before it polls. An event too
 * many finds an empty queue.
 */
#include "ledger.h"
#include "verbs.h"

#include <infiniband/verbs.h>

#define SV_EXPORT __attribute__((visibility("default")))

SV_EXPORT void ibv_ack_cq_events(struct ibv_cq *cq, unsigned int events)
{
    static void (*real)(struct ibv_cq *, unsigned int);
    if (NULL == real) {
        *(void **)&real = sv_verbs_real("ibv_ack_cq_events");
        if (NULL == real) {
            return;
        }
    }
    real(cq, events);
    if (sv_ledger_has(cq)) {
        ibv_req_notify_cq(cq, 0);
    }
}
