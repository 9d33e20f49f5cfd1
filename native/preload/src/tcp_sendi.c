/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small message over BTL/tcp in one call. openib has a btl_sendi and tcp has none; without one ob1
 * makes a request and a descriptor for every message (pml_ob1_isend.c, mca_pml_ob1_send_inline), which
 * costs more than the proxy does. The bytes on the wire are the same.
 *
 * The descriptor is the BTL's from the beginning and no completion is told to the PML, so neither a
 * cookie nor the count of descriptors in hand is needed. Sent at once (btl_tcp_endpoint.c returns 1)
 * it is gone; what the socket does not take now is queued behind what was queued before.
 */
#include "proxy.h"

#include <string.h>

/* What btl_send has been given and has not completed inside: tells a failed send from a lost one. */
static const mca_btl_base_descriptor_t *sending;

static void inline_done(mca_btl_base_module_t *module, sv_endpoint_t *real, mca_btl_base_descriptor_t *descriptor,
                        int status)
{
    sv_endpoint_t *endpoint = descriptor->des_cbdata;
    endpoint->outstanding[SV_VIA_TCP]--;
    if (descriptor == sending) {
        sending = NULL;
    } else if (sv_unlikely(OPAL_SUCCESS != status)) {
        sv_tcp_lost("a message", endpoint); /* of which the application was told that it is on its way */
    }
}

/* The whole message in one descriptor, or NULL. Nothing is packed unless there is room for all. */
static inline mca_btl_base_descriptor_t *filled(mca_btl_base_module_t *tcp, sv_endpoint_t *endpoint,
                                                struct opal_convertor_t *convertor, const void *header,
                                                size_t header_size, size_t payload_size, uint8_t order,
                                                uint32_t flags)
{
    mca_btl_base_descriptor_t *descriptor = tcp->btl_alloc(tcp, endpoint->tcp, order, header_size + payload_size,
                                                           flags | MCA_BTL_DES_FLAGS_BTL_OWNERSHIP);
    if (sv_unlikely(NULL == descriptor)) {
        return NULL;
    }
    sv_tcp_note(descriptor);
    unsigned char *to = descriptor->des_segments[0].seg_addr.pval;
    memcpy(to, header, header_size);
    if (sv_likely(payload_size > 0)) { /* else the PML has not even initialized the convertor */
        struct iovec room = {.iov_base = to + header_size, .iov_len = payload_size};
        uint32_t count = 1;
        size_t packed = payload_size;
        sv_opal.convertor_pack(convertor, &room, &count, &packed);
    }
    descriptor->des_cbfunc = inline_done;
    descriptor->des_cbdata = endpoint;
    return descriptor;
}

int sv_tcp_sendi(sv_endpoint_t *endpoint, struct opal_convertor_t *convertor, const void *header, size_t header_size,
                 size_t payload_size, uint8_t order, uint32_t flags, mca_btl_base_tag_t tag,
                 mca_btl_base_descriptor_t **unsent)
{
    mca_btl_base_module_t *tcp = endpoint->tcp_module;
    mca_btl_base_descriptor_t *descriptor =
        filled(tcp, endpoint, convertor, header, header_size, payload_size, order, flags);
    if (unsent) {
        *unsent = NULL;
    }
    if (sv_unlikely(NULL == descriptor)) {
        return OPAL_ERR_RESOURCE_BUSY;
    }
    const mca_btl_base_descriptor_t *outer = sending; /* a completion inside may send, too */
    sending = descriptor;
    endpoint->outstanding[SV_VIA_TCP]++;
    const int rc = tcp->btl_send(tcp, endpoint->tcp, descriptor, tag);
    const bool completed = descriptor != sending;
    sending = outer;
    if (rc != OPAL_SUCCESS && !completed) {
        endpoint->outstanding[SV_VIA_TCP]--;
    }
    if (sv_likely(rc >= 0)) {
        endpoint->sent[SV_VIA_TCP]++;
        endpoint->sent_bytes[SV_VIA_TCP] += header_size + payload_size;
        return OPAL_SUCCESS;
    }
    if (completed) {
        return rc;
    }
    if (unsent) { /* the PML fills it again and sends it by btl_send, which says what is wrong */
        sv_proxy.traffic[SV_VIA_TCP].in_hand++;
        *unsent = descriptor;
    } else {
        tcp->btl_free(tcp, descriptor);
    }
    return OPAL_ERR_RESOURCE_BUSY;
}
