/* SPDX-License-Identifier: Apache-2.0 */
/* The message path: what the PML calls, forwarded to the BTL of the peer's route and counted.
 * No lock, no system call (but for the one question a held peer is asked, throttle.h); cookies come from a
 * free list that only ever grows. */
#include "proxy.h"

#include "arrivals.h"
#include "atomics.h"
#include "cookie.h"
#include "cycle.h"
#include "openib.h"
#include "registration.h"
#include "remote.h"
#include "throttle.h"

#include <stdlib.h>
#include <string.h>

struct sv_proxy sv_proxy;
atomic_int sv_pending;

mca_btl_base_module_t *sv_proxy_real(int via)
{
    return SV_VIA_OPENIB == via ? sv_proxy.openib : sv_proxy.tcp[0];
}

struct sv_traffic sv_proxy_traffic(int via)
{
    struct sv_traffic sum = sv_proxy.traffic[via];
    for (const sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        sum.sent += e->sent[via];
        sum.sent_bytes += e->sent_bytes[via];
        sum.outstanding += e->outstanding[via];
    }
    if (SV_VIA_OPENIB == via) {
        sum.received += sv_arrivals_count();
    }
    return sum;
}

/* ---- cookies: what the PML's completion needs, while ours stands in the descriptor ---- */

struct sv_cookie *sv_free_cookies;

/* Makes more when none is free. */
bool sv_cookie_more(void)
{
    enum { SLAB = 128 };
    struct sv_cookie *slab = calloc(SLAB, sizeof(*slab));
    if (NULL == slab) {
        return false;
    }
    for (int i = 0; i < SLAB - 1; i++) {
        slab[i].next = &slab[i + 1];
    }
    sv_free_cookies = slab;
    return true;
}

/* ---- two-sided ---- */

static void send_done(mca_btl_base_module_t *module, sv_endpoint_t *real, mca_btl_base_descriptor_t *descriptor,
                      int status)
{
    struct sv_cookie *cookie = descriptor->des_cbdata;
    const mca_btl_base_completion_fn_t callback = cookie->callback;
    sv_endpoint_t *endpoint = cookie->endpoint;

    descriptor->des_cbfunc = callback;
    descriptor->des_cbdata = cookie->data;
    endpoint->outstanding[cookie->via]--;
    if (!cookie->btl_owns) {
        sv_proxy.traffic[cookie->via].in_hand++; /* back with the caller until it frees it */
    }
    sv_cookie_put(cookie);
    sv_proxy.depth++;
    callback(&sv_proxy.module, endpoint, descriptor, status);
    sv_proxy.depth--;
}

static inline mca_btl_base_descriptor_t *took(mca_btl_base_descriptor_t *descriptor, int via)
{
    if (sv_likely(NULL != descriptor)) {
        if (SV_VIA_OPENIB == via) {
            sv_proxy.traffic[SV_VIA_OPENIB].in_hand++;
        } else {
            sv_proxy.traffic[SV_VIA_TCP].in_hand++;
            sv_tcp_note(descriptor);
        }
    }
    return descriptor;
}

static mca_btl_base_descriptor_t *proxy_alloc(mca_btl_base_module_t *module, sv_endpoint_t *endpoint, uint8_t order,
                                              size_t size, uint32_t flags)
{
    mca_btl_base_module_t *real = endpoint->module;
    if (sv_unlikely(endpoint->throttled) && sv_throttle_final(size, flags) && sv_throttle_holds(endpoint)) {
        return NULL;
    }
    return took(real->btl_alloc(real, endpoint->real, order, size, flags), endpoint->via);
}

static int proxy_free(mca_btl_base_module_t *module, mca_btl_base_descriptor_t *descriptor)
{
    /* The PML names no endpoint here: the descriptor's own class tells which BTL made it. */
    if (sv_unlikely(sv_tcp_made(descriptor))) {
        sv_proxy.traffic[SV_VIA_TCP].in_hand--;
        return sv_proxy.tcp[0]->btl_free(sv_proxy.tcp[0], descriptor);
    }
    sv_proxy.traffic[SV_VIA_OPENIB].in_hand--;
    return sv_proxy.openib->btl_free(sv_proxy.openib, descriptor);
}

static mca_btl_base_descriptor_t *proxy_prepare_src(mca_btl_base_module_t *module, sv_endpoint_t *endpoint,
                                                    struct opal_convertor_t *convertor, uint8_t order,
                                                    size_t reserve, size_t *size, uint32_t flags)
{
    mca_btl_base_module_t *real = endpoint->module;
    return took(real->btl_prepare_src(real, endpoint->real, convertor, order, reserve, size, flags), endpoint->via);
}

static inline uint64_t descriptor_bytes(const mca_btl_base_descriptor_t *descriptor)
{
    const mca_btl_base_segment_t *segments = descriptor->des_segments;
    uint64_t bytes = segments[0].seg_len; /* there always is one: the PML's header is in it */
    for (size_t i = 1; sv_unlikely(i < descriptor->des_segment_count); i++) {
        bytes += segments[i].seg_len;
    }
    return bytes;
}

/* `via` is a constant wherever this is used: every counter has a fixed address then. */
static inline __attribute__((always_inline)) int send_by(const int via, mca_btl_base_module_t *real,
                                                         sv_endpoint_t *to, sv_endpoint_t *endpoint,
                                                         mca_btl_base_descriptor_t *descriptor,
                                                         mca_btl_base_tag_t tag)
{
    struct sv_cookie *cookie = sv_cookie_get();
    if (sv_unlikely(NULL == cookie)) {
        return OPAL_ERR_OUT_OF_RESOURCE;
    }
    const uint64_t counted = SV_TAG_REMOTE != tag; /* answers to our own messages come after a drain */
    const uint64_t bytes = descriptor_bytes(descriptor); /* before: the BTL may free it inside */
    const unsigned sequence = cookie->sequence;
    const bool btl_owns = 0 != (descriptor->des_flags & MCA_BTL_DES_FLAGS_BTL_OWNERSHIP);

    cookie->callback = descriptor->des_cbfunc;
    cookie->data = descriptor->des_cbdata;
    cookie->endpoint = endpoint;
    cookie->via = via;
    cookie->btl_owns = btl_owns;
    descriptor->des_cbfunc = send_done;
    descriptor->des_cbdata = cookie;
    sv_proxy.traffic[via].in_hand--;
    endpoint->outstanding[via]++;
    endpoint->sent[via] += counted;
    endpoint->sent_bytes[via] += bytes;

    const int rc = real->btl_send(real, to, descriptor, tag);
    if (sv_likely(0 == rc) || cookie->sequence != sequence) {
        return rc; /* the callback has fired or will */
    }
    /* Not 0 and the callback has not fired: it will not (btl_tcp_endpoint.c returns 1 for "sent,
     * no callback"), or the send failed. */
    endpoint->outstanding[via]--;
    if (rc < 0) {
        endpoint->sent[via] -= counted;
        endpoint->sent_bytes[via] -= bytes;
    }
    if (rc < 0 || !btl_owns) {
        sv_proxy.traffic[via].in_hand++;
        descriptor->des_cbfunc = cookie->callback;
        descriptor->des_cbdata = cookie->data;
    }
    sv_cookie_put(cookie);
    return rc;
}

/* A descriptor is sent by the BTL that made it, whatever the route is by now. */
static int proxy_send(mca_btl_base_module_t *module, sv_endpoint_t *endpoint, mca_btl_base_descriptor_t *descriptor,
                      mca_btl_base_tag_t tag)
{
    if (sv_unlikely(endpoint->throttled) && sv_throttle_numbered(tag) && sv_throttle_holds(endpoint)) {
        return OPAL_ERR_OUT_OF_RESOURCE; /* not RESOURCE_BUSY, which ob1 takes for sent */
    }
    if (sv_unlikely(sv_tcp_made(descriptor))) {
        return send_by(SV_VIA_TCP, endpoint->tcp_module, endpoint->tcp, endpoint, descriptor, tag);
    }
    return send_by(SV_VIA_OPENIB, sv_proxy.openib, endpoint->openib, endpoint, descriptor, tag);
}

static __attribute__((noinline, cold)) int sendi_failed(sv_endpoint_t *endpoint, uint64_t bytes,
                                                        mca_btl_base_descriptor_t **descriptor, int rc)
{
    endpoint->sent[SV_VIA_OPENIB]--;
    endpoint->sent_bytes[SV_VIA_OPENIB] -= bytes;
    if (descriptor) {
        took(*descriptor, SV_VIA_OPENIB);
    }
    return rc;
}

/* Counted before, and taken back if it failed: the usual case then has nothing left to do. openib calls
 * nobody back in here. */
static inline __attribute__((always_inline)) int
sendi_by_openib(sv_endpoint_t *endpoint, struct opal_convertor_t *convertor, void *header, size_t header_size,
                size_t payload_size, uint8_t order, uint32_t flags, mca_btl_base_tag_t tag,
                mca_btl_base_descriptor_t **descriptor)
{
    mca_btl_base_module_t *real = endpoint->module;
    const uint64_t bytes = header_size + payload_size;
    endpoint->sent[SV_VIA_OPENIB]++;
    endpoint->sent_bytes[SV_VIA_OPENIB] += bytes;
    const int rc = real->btl_sendi(real, endpoint->real, convertor, header, header_size, payload_size, order, flags,
                                   tag, descriptor);
    return sv_likely(0 == rc) ? 0 : sendi_failed(endpoint, bytes, descriptor, rc);
}

/* What is not openib's alone: a peer that has to be waited for, or tcp. The parameters are those of proxy_sendi:
 * it gets here by a jump. */
static __attribute__((noinline)) int sendi_otherwise(mca_btl_base_module_t *module, sv_endpoint_t *endpoint,
                                                     struct opal_convertor_t *convertor, void *header,
                                                     size_t header_size, size_t payload_size, uint8_t order,
                                                     uint32_t flags, mca_btl_base_tag_t tag,
                                                     mca_btl_base_descriptor_t **descriptor)
{
    if (endpoint->throttled && sv_throttle_holds(endpoint)) { /* the PML goes on with the descriptor */
        if (descriptor) {
            *descriptor = proxy_alloc(module, endpoint, order, header_size + payload_size, flags);
        }
        return OPAL_ERR_RESOURCE_BUSY;
    }
    if (SV_VIA_TCP == endpoint->via) {
        return sv_tcp_sendi(endpoint, convertor, header, header_size, payload_size, order, flags, tag, descriptor);
    }
    return sendi_by_openib(endpoint, convertor, header, header_size, payload_size, order, flags, tag, descriptor);
}

static int proxy_sendi(mca_btl_base_module_t *module, sv_endpoint_t *endpoint, struct opal_convertor_t *convertor,
                       void *header, size_t header_size, size_t payload_size, uint8_t order, uint32_t flags,
                       mca_btl_base_tag_t tag, mca_btl_base_descriptor_t **descriptor)
{
    if (sv_unlikely(endpoint->special)) {
        return sendi_otherwise(module, endpoint, convertor, header, header_size, payload_size, order, flags, tag,
                               descriptor);
    }
    return sendi_by_openib(endpoint, convertor, header, header_size, payload_size, order, flags, tag, descriptor);
}

/* ---- one-sided ---- */

void sv_rdma_done(mca_btl_base_module_t *module, sv_endpoint_t *real, void *local_address, sv_handle_t *local_handle,
                  void *context, void *data, int status)
{
    struct sv_cookie *cookie = context;
    const struct sv_cookie kept = *cookie;
    kept.endpoint->outstanding[kept.via]--;
    sv_cookie_put(cookie);
    sv_proxy.depth++;
    kept.rdma_callback(&sv_proxy.module, kept.endpoint, local_address, kept.local_handle, kept.context, kept.data,
                       status);
    sv_proxy.depth--;
}

/* The real bytes of a remote handle if the card may be used for this operation, else NULL: the
 * route is openib, the local buffer (if it needs a registration) has a real one, and the owner's
 * handle belongs to its current epoch or translates to it. */
static inline sv_handle_t *card_handle(sv_endpoint_t *endpoint, sv_handle_t *local, sv_handle_t *remote,
                                       sv_handle_t *room)
{
    if (sv_unlikely(SV_VIA_OPENIB != endpoint->via || (local && NULL == sv_registration_real(local)))) {
        return NULL;
    }
    if (sv_likely(remote->epoch == endpoint->owner_epoch)) {
        return (sv_handle_t *)remote->real;
    }
    return sv_registration_translate(endpoint, remote, room);
}

static struct sv_cookie *rdma_cookie(sv_endpoint_t *endpoint, int via, sv_handle_t *local_handle,
                                     mca_btl_base_rdma_completion_fn_t callback, void *context, void *data)
{
    struct sv_cookie *cookie = sv_cookie_get();
    if (sv_likely(NULL != cookie)) {
        cookie->rdma_callback = callback;
        cookie->context = context;
        cookie->data = data;
        cookie->local_handle = local_handle;
        cookie->endpoint = endpoint;
        cookie->via = via;
        endpoint->outstanding[via]++;
    }
    return cookie;
}

static int rdma_started(struct sv_cookie *cookie, int rc)
{
    if (sv_unlikely(rc < 0)) {
        cookie->endpoint->outstanding[cookie->via]--;
        sv_cookie_put(cookie);
    }
    return rc;
}

static int proxy_put(mca_btl_base_module_t *module, sv_endpoint_t *endpoint, void *local_address,
                     uint64_t remote_address, sv_handle_t *local_handle, sv_handle_t *remote_handle, size_t size,
                     int flags, int order, mca_btl_base_rdma_completion_fn_t callback, void *context, void *data)
{
    sv_handle_t room, *card = card_handle(endpoint, local_handle, remote_handle, &room);
    const int via = card ? SV_VIA_OPENIB : SV_VIA_TCP;
    struct sv_cookie *cookie = rdma_cookie(endpoint, via, local_handle, callback, context, data);
    if (sv_unlikely(NULL == cookie)) {
        return OPAL_ERR_OUT_OF_RESOURCE;
    }
    endpoint->sent_bytes[via] += size;
    if (sv_unlikely(NULL == card)) {
        return rdma_started(cookie, sv_remote_put(endpoint, local_address, remote_address, size, cookie));
    }
    const int rc = sv_proxy.openib->btl_put(sv_proxy.openib, endpoint->openib, local_address, remote_address,
                                            local_handle ? sv_registration_real(local_handle) : NULL, card, size,
                                            flags, order, sv_rdma_done, cookie, NULL);
    /* openib reports a queued put as success or 1; either way the callback comes */
    return rdma_started(cookie, rc < 0 ? rc : OPAL_SUCCESS);
}

static int proxy_get(mca_btl_base_module_t *module, sv_endpoint_t *endpoint, void *local_address,
                     uint64_t remote_address, sv_handle_t *local_handle, sv_handle_t *remote_handle, size_t size,
                     int flags, int order, mca_btl_base_rdma_completion_fn_t callback, void *context, void *data)
{
    sv_handle_t room, *card = card_handle(endpoint, local_handle, remote_handle, &room);
    const int via = card ? SV_VIA_OPENIB : SV_VIA_TCP;
    struct sv_cookie *cookie = rdma_cookie(endpoint, via, local_handle, callback, context, data);
    if (sv_unlikely(NULL == cookie)) {
        return OPAL_ERR_OUT_OF_RESOURCE;
    }
    sv_proxy.traffic[via].received_bytes += size;
    if (sv_unlikely(NULL == card)) {
        return rdma_started(cookie, sv_remote_get(endpoint, local_address, remote_address, size, cookie));
    }
    return rdma_started(cookie, sv_proxy.openib->btl_get(sv_proxy.openib, endpoint->openib, local_address,
                                                         remote_address, sv_registration_real(local_handle), card,
                                                         size, flags, order, sv_rdma_done, cookie, NULL));
}

/* One atomic, by the card or (a handle of no card, or the route is tcp) by its owner's processor. */
static int start_atomic(struct sv_atomic *a)
{
    sv_handle_t room;
    sv_handle_t *card =
        sv_proxy.emulate_atomics ? NULL : card_handle(a->endpoint, a->local_handle, &a->remote_handle, &room);
    struct sv_cookie *cookie = rdma_cookie(a->endpoint, card ? SV_VIA_OPENIB : SV_VIA_TCP, a->local_handle,
                                           a->callback, a->context, a->data);
    if (sv_unlikely(NULL == cookie)) {
        return OPAL_ERR_OUT_OF_RESOURCE;
    }
    if (sv_unlikely(NULL == card)) {
        return rdma_started(cookie, sv_remote_atomic(a->endpoint, a->local_address, a->remote_address, a->op,
                                                     a->operand, a->compare, a->swap, a->flags, cookie));
    }
    mca_btl_base_module_t *openib = sv_proxy.openib;
    sv_endpoint_t *to = a->endpoint->openib;
    sv_handle_t *local = sv_registration_real(a->local_handle);
    return rdma_started(cookie, a->swap ? openib->btl_atomic_cswap(openib, to, a->local_address, a->remote_address,
                                                                   local, card, a->compare, a->operand, a->flags,
                                                                   a->order, sv_rdma_done, cookie, NULL)
                                        : openib->btl_atomic_fop(openib, to, a->local_address, a->remote_address,
                                                                 local, card, a->op, a->operand, a->flags, a->order,
                                                                 sv_rdma_done, cookie, NULL));
}

int sv_proxy_atomic(struct sv_atomic *atomic)
{
    return sv_unlikely(sv_proxy.hold_atomics) ? sv_atomics_defer(atomic) : start_atomic(atomic);
}

/*
 * What openib refuses is refused on every route (btl_openib_atomic.c: all but the sum of 64 bits): osc/rdma then does
 * it otherwise, and may do so in the middle of an operation of several words. Refused only once openib is back, after
 * it was taken (hold_atomics), it would be lost: osc/rdma does not look at the status of a completion.
 */
static bool refused_by_card(mca_btl_base_atomic_op_t op, int flags)
{
    return MCA_BTL_ATOMIC_ADD != op || flags & MCA_BTL_ATOMIC_FLAG_32BIT;
}

static int proxy_atomic_fop(mca_btl_base_module_t *module, sv_endpoint_t *endpoint, void *local_address,
                            uint64_t remote_address, sv_handle_t *local_handle, sv_handle_t *remote_handle,
                            mca_btl_base_atomic_op_t op, uint64_t operand, int flags, int order,
                            mca_btl_base_rdma_completion_fn_t callback, void *context, void *data)
{
    if (sv_unlikely(refused_by_card(op, flags))) {
        return OPAL_ERR_NOT_SUPPORTED;
    }
    return sv_proxy_atomic(&(struct sv_atomic){
        .endpoint = endpoint, .local_address = local_address, .remote_address = remote_address,
        .local_handle = local_handle, .remote_handle = *remote_handle, .op = op, .operand = operand, .flags = flags,
        .order = order, .callback = callback, .context = context, .data = data});
}

static int proxy_atomic_cswap(mca_btl_base_module_t *module, sv_endpoint_t *endpoint, void *local_address,
                              uint64_t remote_address, sv_handle_t *local_handle, sv_handle_t *remote_handle,
                              uint64_t compare, uint64_t value, int flags, int order,
                              mca_btl_base_rdma_completion_fn_t callback, void *context, void *data)
{
    if (sv_unlikely(refused_by_card(MCA_BTL_ATOMIC_ADD, flags))) {
        return OPAL_ERR_NOT_SUPPORTED;
    }
    return sv_proxy_atomic(&(struct sv_atomic){
        .endpoint = endpoint, .local_address = local_address, .remote_address = remote_address,
        .local_handle = local_handle, .remote_handle = *remote_handle, .swap = true, .op = MCA_BTL_ATOMIC_ADD,
        .compare = compare, .operand = value, .flags = flags, .order = order, .callback = callback,
        .context = context, .data = data});
}

/* ---- progress and safe points ---- */

int sv_proxy_safe_point(void)
{
    if (sv_unlikely(atomic_load_explicit(&sv_pending, memory_order_acquire)) && 0 == sv_proxy.depth) {
        sv_cycle_step();
    }
    if (sv_unlikely(sv_remote_waiting)) {
        sv_remote_retry();
    }
    if (sv_unlikely(sv_atomics_waiting)) {
        sv_atomics_retry();
    }
    return 0;
}

int sv_proxy_progress(void)
{
    if (sv_unlikely(atomic_load_explicit(&sv_pending, memory_order_relaxed)) && 0 == sv_proxy.depth) {
        sv_cycle_step();
    }
    if (sv_unlikely(!sv_proxy.polling)) {
        return 0;
    }
    sv_proxy.depth++;
    const int events = sv_proxy.openib_progress();
    sv_proxy.depth--;
    return events;
}

/* ---- the module ---- */

static int proxy_finalize(mca_btl_base_module_t *module)
{
    sv_cycle_finalize();
    const struct sv_traffic card = sv_proxy_traffic(SV_VIA_OPENIB), tcp = sv_proxy_traffic(SV_VIA_TCP);
    sv_info("finalize: epoch %u, openib sent %llu received %llu, tcp sent %llu received %llu, %u live registrations",
            sv_proxy.epoch, (unsigned long long)card.sent, (unsigned long long)card.received,
            (unsigned long long)tcp.sent, (unsigned long long)tcp.received, sv_registration_count());
    sv_proxy.polling = false;
    sv_proxy.finalized = true;
    sv_openib_finalize();
    for (int i = 0; i < sv_proxy.tcp_count; i++) {
        sv_proxy.tcp[i]->btl_finalize(sv_proxy.tcp[i]);
    }
    sv_proxy.tcp_count = 0;
    return OPAL_SUCCESS;
}

/* What every card that may come can do: no atomics, and no more at once than the PML's pipeline takes (cards
 * differ in the largest message, 8 MiB on soft-RoCE). Windows so take osc/pt2pt, in all ranks alike. */
static void show_any_card(mca_btl_base_module_t *to)
{
    to->btl_flags &= ~(uint32_t)MCA_BTL_FLAGS_ATOMIC_FOPS;
    to->btl_atomic_flags = 0;
    to->btl_get_limit = to->btl_put_limit = to->btl_rdma_pipeline_frag_size;
}

void sv_proxy_copy_limits(void)
{
    mca_btl_base_module_t *to = &sv_proxy.module;
    const mca_btl_base_module_t *from = sv_proxy.began_bare ? sv_openib_defaults()
                                                            : sv_proxy_real(sv_proxy.tcp_only ? SV_VIA_TCP : SV_VIA_OPENIB);
    if (NULL == from) {
        return; /* on tcp for now: what the PML has read of openib stays true */
    }
    to->btl_eager_limit = from->btl_eager_limit;
    to->btl_rndv_eager_limit = from->btl_rndv_eager_limit;
    to->btl_max_send_size = from->btl_max_send_size;
    to->btl_rdma_pipeline_send_length = from->btl_rdma_pipeline_send_length;
    to->btl_rdma_pipeline_frag_size = from->btl_rdma_pipeline_frag_size;
    to->btl_min_rdma_pipeline_size = from->btl_min_rdma_pipeline_size;
    to->btl_exclusivity = from->btl_exclusivity;
    to->btl_latency = from->btl_latency;
    to->btl_bandwidth = from->btl_bandwidth;
    to->btl_flags = from->btl_flags;
    to->btl_atomic_flags = from->btl_atomic_flags;
    to->btl_get_limit = from->btl_get_limit;
    to->btl_get_alignment = from->btl_get_alignment;
    to->btl_put_limit = from->btl_put_limit;
    to->btl_put_alignment = from->btl_put_alignment;
    to->btl_get_local_registration_threshold = from->btl_get_local_registration_threshold;
    to->btl_put_local_registration_threshold = from->btl_put_local_registration_threshold;
    if (!sv_proxy.tcp_only && sv_proxy.tcp_count) {
        /* The PML caches some limits and re-reads others: show what holds on either route. */
        const mca_btl_base_module_t *tcp = sv_proxy.tcp[0];
        if (tcp->btl_eager_limit < to->btl_eager_limit) {
            to->btl_eager_limit = tcp->btl_eager_limit;
        }
        if (tcp->btl_rndv_eager_limit < to->btl_rndv_eager_limit) {
            to->btl_rndv_eager_limit = tcp->btl_rndv_eager_limit;
        }
        if (tcp->btl_max_send_size < to->btl_max_send_size) {
            to->btl_max_send_size = tcp->btl_max_send_size;
        }
    }
    if (sv_proxy.began_bare) {
        show_any_card(to);
    }
}

/* mca_pml_ob1_dump calls it without a look. */
static void proxy_dump(mca_btl_base_module_t *module, sv_endpoint_t *endpoint, int verbose)
{
}

void sv_proxy_build(const mca_btl_base_module_t *real, const mca_btl_base_component_t *component)
{
    mca_btl_base_module_t *proxy = &sv_proxy.module;
    *proxy = *real;
    proxy->btl_component = &sv_proxy.component;
    proxy->btl_add_procs = sv_endpoint_add_procs;
    proxy->btl_del_procs = sv_endpoint_del_procs;
    proxy->btl_register = sv_receive_register;
    proxy->btl_finalize = proxy_finalize;
    proxy->btl_alloc = proxy_alloc;
    proxy->btl_free = proxy_free;
    proxy->btl_prepare_src = proxy_prepare_src;
    proxy->btl_send = proxy_send;
    /* A function the real BTL lacks stays NULL: the PML decides its protocols by that. */
    proxy->btl_sendi = proxy_sendi; /* but for this: it decides no protocol, and tcp_sendi.c stands in */
    proxy->btl_put = real->btl_put ? proxy_put : NULL;
    proxy->btl_get = real->btl_get ? proxy_get : NULL;
    proxy->btl_dump = proxy_dump;
    proxy->btl_atomic_op = NULL;
    proxy->btl_atomic_fop = real->btl_atomic_fop ? proxy_atomic_fop : NULL;
    proxy->btl_atomic_cswap = real->btl_atomic_cswap ? proxy_atomic_cswap : NULL;
    proxy->btl_register_mem = real->btl_register_mem ? sv_registration_make : NULL;
    proxy->btl_deregister_mem = real->btl_deregister_mem ? sv_registration_release : NULL;
    proxy->btl_mpool = NULL;
    proxy->btl_register_error = sv_receive_register_error;
    proxy->btl_ft_event = NULL;
    proxy->btl_flush = NULL; /* osc/rdma counts completions itself as long as there is none */
    if (proxy->btl_register_mem) {
        proxy->btl_registration_handle_size = sizeof(sv_handle_t);
    }
    sv_receive_install_remote(sv_remote_received);
}
