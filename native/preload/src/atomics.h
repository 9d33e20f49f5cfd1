/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Atomics that are asked for between the routes. The card's atomics and the processor's on one word do not
 * exclude each other, so none of either kind may begin between a rank's flip and the moment when nobody does
 * the other kind any more. "Try again" would be the wrong answer: osc/rdma asks again in a loop (osc_rdma_lock.h),
 * also from inside completion callbacks, where no safe point comes and the change of route would wait for the
 * loop for ever. So they are taken and begin when the change is over; their completion comes then.
 */
#ifndef SV_ATOMICS_H
#define SV_ATOMICS_H

#include "proxy.h"

struct sv_atomic {
    sv_endpoint_t *endpoint;
    void *local_address;
    uint64_t remote_address;
    sv_handle_t *local_handle;
    sv_handle_t remote_handle; /* the caller's may be gone by then */
    uint64_t operand, compare;
    mca_btl_base_rdma_completion_fn_t callback;
    void *context, *data;
    mca_btl_base_atomic_op_t op;
    int flags, order;
    bool swap;
    struct sv_atomic *next;
};

extern SV_HIDDEN int sv_atomics_waiting;

/* Begins it, or takes it for later. As the BTL's own functions. */
int sv_proxy_atomic(struct sv_atomic *atomic);
/* Takes a copy for later. OPAL_ERR_OUT_OF_RESOURCE without memory. */
int sv_atomics_defer(const struct sv_atomic *atomic);
/* Begins those that wait, in their order, as far as the BTL takes them. Nothing while they are held. */
void sv_atomics_retry(void);

#endif
