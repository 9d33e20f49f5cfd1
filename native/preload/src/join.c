/* SPDX-License-Identifier: Apache-2.0 */
#include "join.h"

#include "proxy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static uint64_t begun_us, all_called_us;

static void received(mca_btl_base_module_t *module, mca_btl_base_tag_t tag, mca_btl_base_descriptor_t *descriptor,
                     void *data)
{
    uint32_t sender;
    memcpy(&sender, descriptor->des_segments[0].seg_addr.pval, sizeof(sender));
    sv_endpoint_t *endpoint = sv_endpoint_of_rank(sender);
    if (endpoint) {
        endpoint->heard = true;
    }
}

/* Handshakes begun from both ends at once are those that stop half way: the lower rank begins. The
 * higher one does so only if it is not called, for the other may not know it. */
static bool may_begin(const sv_endpoint_t *endpoint, uint64_t waited_us)
{
    return endpoint->peer > sv_proxy.rank || endpoint->heard || waited_us > SV_JOIN_CALL_MS * 1000ull;
}

/* Both ends know of it, at least one of them for sure; where only the higher rank does, it calls. */
static bool talked(const sv_endpoint_t *endpoint)
{
    return endpoint->sent[SV_VIA_OPENIB] || endpoint->sent[SV_VIA_TCP] || sv_endpoint_received(endpoint->peer);
}

static void completed(mca_btl_base_module_t *module, sv_endpoint_t *real, mca_btl_base_descriptor_t *descriptor,
                      int status)
{
    sv_endpoint_t *endpoint = descriptor->des_cbdata;
    endpoint->join = OPAL_SUCCESS == status ? SV_JOINED : SV_NOT_JOINED;
}

static void send_one(sv_endpoint_t *endpoint)
{
    mca_btl_base_module_t *openib = sv_proxy.openib;
    mca_btl_base_descriptor_t *descriptor =
        openib->btl_alloc(openib, endpoint->openib, MCA_BTL_NO_ORDER, sizeof(sv_proxy.rank),
                          MCA_BTL_DES_FLAGS_BTL_OWNERSHIP | MCA_BTL_DES_FLAGS_PRIORITY |
                              MCA_BTL_DES_SEND_ALWAYS_CALLBACK);
    if (NULL == descriptor) {
        return; /* again at the next look */
    }
    memcpy(descriptor->des_segments[0].seg_addr.pval, &sv_proxy.rank, sizeof(sv_proxy.rank));
    descriptor->des_cbfunc = completed;
    descriptor->des_cbdata = endpoint;
    endpoint->join = SV_JOINING;
    /* Also when it fails: openib has queued it (check_endpoint_state, btl_openib_endpoint.h), and it goes out should
     * the other side call. If not, the deadline says so. */
    openib->btl_send(openib, endpoint->openib, descriptor, SV_TAG_JOIN);
}

void sv_join_listen(void)
{
    sv_opal.trigger[SV_TAG_JOIN].cbfunc = received;
    sv_opal.trigger[SV_TAG_JOIN].cbdata = NULL;
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        e->heard = false;
    }
}

void sv_join_begin(const struct sv_ranks *peers)
{
    begun_us = sv_now_us();
    all_called_us = 0;
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        e->join = (NULL == peers || sv_ranks_has(peers, e->peer)) && talked(e) ? SV_NOT_JOINED : SV_JOINED;
    }
}

void sv_join_all_called(void)
{
    if (0 == all_called_us) {
        all_called_us = sv_now_us();
    }
}

int sv_join_state(char *why, size_t size)
{
    const sv_endpoint_t *missing = NULL;
    const uint64_t waited_us = sv_now_us() - begun_us;
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (NULL == e->openib || sv_endpoint_is_self(e)) {
            continue;
        }
        if (SV_NOT_JOINED == e->join && may_begin(e, waited_us)) {
            send_one(e);
        }
        if (SV_JOINED != e->join) {
            missing = e;
        }
    }
    if (NULL == missing) {
        return 1;
    }
    if (0 == all_called_us || sv_now_us() - all_called_us < SV_JOIN_MS * 1000ull) {
        return 0;
    }
    snprintf(why, size, "openib did not connect to rank %u within %u s", missing->peer, SV_JOIN_MS / 1000u);
    return -ETIMEDOUT;
}
