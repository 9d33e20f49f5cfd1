/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The message path over fake openib and tcp modules. tcp leads back to this process: it plays both
 * ends, its queue keeps the order of the socket and is delivered when the test says so.
 */
#include "atomics.h"
#include "check.h"
#include "cookie.h"
#include "cycle.h"
#include "registration.h"
#include "remote.h"
#include "throttle.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- what the rest of the library would do ---- */

static int steps;
void sv_cycle_step(void)
{
    steps++;
}
void sv_cycle_finalize(void)
{
}

/* ---- fake BTLs ---- */

struct fragment {
    mca_btl_base_descriptor_t base;
    mca_btl_base_segment_t segment;
    unsigned char bytes[256];
};

enum kind { SEND, PUT };
struct queued {
    enum kind kind;
    struct fragment *fragment; /* of a SEND */
    mca_btl_base_tag_t tag;
    void *local;
    uint64_t remote;
    size_t size;
};
enum { QUEUE = 256 };
static struct queued queue[QUEUE];
static int queue_first, queue_last;

/* How the modules behave. */
static enum { LATER, AT_ONCE, AT_ONCE_WITHOUT_CALLBACK, FAIL, LOST } send_mode, openib_send_mode;
static int tcp_fragments = 1000, live_fragments, tcp_connects, tcp_puts_left = 1000;

static opal_class_t openib_class, tcp_class;
static mca_btl_base_module_t openib, tcp;
static mca_btl_active_message_callback_t triggers[MCA_BTL_TAG_MAX];
static sv_endpoint_t *peer; /* this very rank: it owns the remote memory too */
static struct mca_btl_base_endpoint_t openib_endpoint, tcp_endpoint;
static opal_proc_t proc;

static mca_btl_base_descriptor_t *new_fragment(opal_class_t *class, size_t size, uint32_t flags)
{
    struct fragment *f = calloc(1, sizeof(*f));
    CHECK(size <= sizeof(f->bytes));
    f->base.super.super.super.obj_class = class;
    f->base.des_segments = &f->segment;
    f->base.des_segment_count = 1;
    f->base.des_flags = (int32_t)flags;
    f->segment.seg_addr.pval = f->bytes;
    f->segment.seg_len = size;
    live_fragments++;
    return &f->base;
}

static int drop_fragment(mca_btl_base_descriptor_t *descriptor)
{
    live_fragments--;
    free(descriptor);
    return OPAL_SUCCESS;
}

static mca_btl_base_descriptor_t *tcp_alloc(mca_btl_base_module_t *m, sv_endpoint_t *e, uint8_t order, size_t size,
                                            uint32_t flags)
{
    CHECK(&tcp_endpoint == e);
    if (0 == tcp_fragments) {
        return NULL;
    }
    tcp_fragments--;
    return new_fragment(&tcp_class, size, flags);
}

static int tcp_free(mca_btl_base_module_t *m, mca_btl_base_descriptor_t *d)
{
    tcp_fragments++;
    return drop_fragment(d);
}

static mca_btl_base_descriptor_t *openib_alloc(mca_btl_base_module_t *m, sv_endpoint_t *e, uint8_t order, size_t size,
                                               uint32_t flags)
{
    CHECK(&openib_endpoint == e);
    return new_fragment(&openib_class, size, flags);
}

static int openib_free(mca_btl_base_module_t *m, mca_btl_base_descriptor_t *d)
{
    return drop_fragment(d);
}

static void complete(mca_btl_base_module_t *module, sv_endpoint_t *e, mca_btl_base_descriptor_t *d)
{
    const bool owned = 0 != (d->des_flags & MCA_BTL_DES_FLAGS_BTL_OWNERSHIP);
    d->des_cbfunc(module, e, d, OPAL_SUCCESS);
    if (owned) {
        module->btl_free(module, d);
    }
}

/* As btl_tcp_endpoint.c: a send that went out at once returns 1, its callback comes only if asked for. */
static int any_send(mca_btl_base_module_t *module, sv_endpoint_t *e, mca_btl_base_descriptor_t *d, int mode,
                    mca_btl_base_tag_t tag)
{
    const int flags = d->des_flags;
    if (FAIL == mode) {
        return OPAL_ERR_OUT_OF_RESOURCE;
    }
    if (SV_TAG_REMOTE == tag) { /* on its way to this process's own receiving end */
        queue[queue_last++ % QUEUE] = (struct queued){.kind = SEND, .fragment = (struct fragment *)d, .tag = tag};
        return OPAL_SUCCESS;
    }
    if (AT_ONCE_WITHOUT_CALLBACK == mode && !(flags & MCA_BTL_DES_SEND_ALWAYS_CALLBACK)) {
        if (flags & MCA_BTL_DES_FLAGS_BTL_OWNERSHIP) {
            module->btl_free(module, d);
        }
        return 1;
    }
    if (LATER == mode) {
        queue[queue_last++ % QUEUE] = (struct queued){.kind = SEND, .fragment = (struct fragment *)d, .tag = tag};
        return OPAL_SUCCESS;
    }
    complete(module, e, d);
    return LOST == mode ? OPAL_ERR_UNREACH : 1; /* LOST: the connection broke, and all it had was completed */
}

static int tcp_send(mca_btl_base_module_t *m, sv_endpoint_t *e, mca_btl_base_descriptor_t *d, mca_btl_base_tag_t tag)
{
    CHECK(&tcp_endpoint == e);
    return any_send(m, e, d, (int)send_mode, tag);
}

static int openib_send(mca_btl_base_module_t *m, sv_endpoint_t *e, mca_btl_base_descriptor_t *d,
                       mca_btl_base_tag_t tag)
{
    CHECK(&openib_endpoint == e);
    return any_send(m, e, d, (int)openib_send_mode, tag);
}

static int tcp_put(mca_btl_base_module_t *m, sv_endpoint_t *e, void *local, uint64_t remote, sv_handle_t *lh,
                   sv_handle_t *rh, size_t size, int flags, int order, mca_btl_base_rdma_completion_fn_t done,
                   void *context, void *data)
{
    if (0 == tcp_puts_left) {
        return OPAL_ERR_OUT_OF_RESOURCE;
    }
    tcp_puts_left--;
    queue[queue_last++ % QUEUE] = (struct queued){.kind = PUT, .local = local, .remote = remote, .size = size};
    done(m, e, local, lh, context, data, OPAL_SUCCESS); /* left for the socket: not there yet */
    return OPAL_SUCCESS;
}

static int tcp_add_procs(mca_btl_base_module_t *m, size_t n, opal_proc_t **procs, sv_endpoint_t **endpoints,
                         opal_bitmap_t *reachable)
{
    tcp_connects++;
    *endpoints = &tcp_endpoint;
    return OPAL_SUCCESS;
}

static int no_tcp(mca_btl_base_module_t *m, size_t n, opal_proc_t **procs, sv_endpoint_t **endpoints,
                  opal_bitmap_t *reachable)
{
    return OPAL_SUCCESS; /* reaches nobody */
}

/* openib's one-sided operations: recorded, completed by the test. */
static struct {
    int puts, gets, fops, cswaps, rc;
    uint64_t remote_key, local_key;
    mca_btl_base_rdma_completion_fn_t done;
    void *context, *local;
} card;

static int card_operation(void *local, sv_handle_t *lh, sv_handle_t *rh, mca_btl_base_rdma_completion_fn_t done,
                          void *context)
{
    memcpy(&card.remote_key, rh, sizeof(card.remote_key));
    card.local_key = 0;
    if (lh) {
        memcpy(&card.local_key, lh, sizeof(card.local_key));
    }
    card.done = done;
    card.context = context;
    card.local = local;
    return card.rc;
}

static void card_completes(void)
{
    card.done(&openib, &openib_endpoint, card.local, NULL, card.context, NULL, OPAL_SUCCESS);
}

static int openib_put(mca_btl_base_module_t *m, sv_endpoint_t *e, void *local, uint64_t remote, sv_handle_t *lh,
                      sv_handle_t *rh, size_t size, int flags, int order, mca_btl_base_rdma_completion_fn_t done,
                      void *context, void *data)
{
    card.puts++;
    return card_operation(local, lh, rh, done, context);
}

static int openib_get(mca_btl_base_module_t *m, sv_endpoint_t *e, void *local, uint64_t remote, sv_handle_t *lh,
                      sv_handle_t *rh, size_t size, int flags, int order, mca_btl_base_rdma_completion_fn_t done,
                      void *context, void *data)
{
    card.gets++;
    return card_operation(local, lh, rh, done, context);
}

static void *first_atomic;
static int openib_fop(mca_btl_base_module_t *m, sv_endpoint_t *e, void *local, uint64_t remote, sv_handle_t *lh,
                      sv_handle_t *rh, mca_btl_base_atomic_op_t op, uint64_t operand, int flags, int order,
                      mca_btl_base_rdma_completion_fn_t done, void *context, void *data)
{
    card.fops++;
    first_atomic = context;
    return card_operation(local, lh, rh, done, context);
}

static int openib_cswap(mca_btl_base_module_t *m, sv_endpoint_t *e, void *local, uint64_t remote, sv_handle_t *lh,
                        sv_handle_t *rh, uint64_t compare, uint64_t value, int flags, int order,
                        mca_btl_base_rdma_completion_fn_t done, void *context, void *data)
{
    card.cswaps++;
    return card_operation(local, lh, rh, done, context);
}

static uint64_t real_keys[8] = {900, 901, 902, 903};
static int real_key_count;

static sv_handle_t *openib_register(mca_btl_base_module_t *m, sv_endpoint_t *e, void *base, size_t size,
                                    uint32_t flags)
{
    return (sv_handle_t *)(void *)&real_keys[real_key_count++];
}

static int openib_deregister(mca_btl_base_module_t *m, sv_handle_t *handle)
{
    return OPAL_SUCCESS;
}

static int sendi_rc;
static bool sendi_gives_descriptor;
static int openib_sendi(mca_btl_base_module_t *m, sv_endpoint_t *e, struct opal_convertor_t *c, void *header,
                        size_t header_size, size_t payload_size, uint8_t order, uint32_t flags,
                        mca_btl_base_tag_t tag, mca_btl_base_descriptor_t **descriptor)
{
    if (sendi_rc && descriptor) {
        *descriptor = sendi_gives_descriptor ? new_fragment(&openib_class, 16, flags) : NULL;
    }
    return sendi_rc;
}

/* Delivers what is first in the queue, in the order of the socket. */
static void deliver_one(void)
{
    CHECK(queue_first < queue_last);
    const struct queued q = queue[queue_first++ % QUEUE];
    if (PUT == q.kind) {
        memcpy((void *)(uintptr_t)q.remote, q.local, q.size);
        return;
    }
    mca_btl_base_descriptor_t *d = &q.fragment->base;
    mca_btl_base_module_t *real = &openib_class == d->super.super.super.obj_class ? &openib : &tcp;
    struct fragment arrived = *q.fragment;
    arrived.base.des_segments = &arrived.segment;
    arrived.segment.seg_addr.pval = arrived.bytes;
    complete(real, &tcp == real ? &tcp_endpoint : &openib_endpoint, d);
    if (triggers[q.tag].cbfunc) {
        triggers[q.tag].cbfunc(real, q.tag, &arrived.base, triggers[q.tag].cbdata);
    }
}

static void deliver_broken(void)
{
    while (queue_first < queue_last) {
        const struct queued q = queue[queue_first++ % QUEUE];
        if (PUT != q.kind) {
            mca_btl_base_descriptor_t *d = &q.fragment->base;
            d->des_cbfunc(&tcp, &tcp_endpoint, d, OPAL_ERR_UNREACH);
        }
    }
}

static void deliver_all(void)
{
    while (queue_first < queue_last) {
        deliver_one();
    }
}

static opal_proc_t own_proc;
static opal_proc_t *local_proc(void)
{
    return &own_proc;
}

static void set_up(int via)
{
    static struct mca_btl_base_endpoint_t me;
    tcp = (mca_btl_base_module_t){.btl_alloc = tcp_alloc, .btl_free = tcp_free, .btl_send = tcp_send,
                                  .btl_put = tcp_put, .btl_add_procs = tcp_add_procs, .btl_eager_limit = 100};
    openib = (mca_btl_base_module_t){.btl_alloc = openib_alloc, .btl_free = openib_free, .btl_send = openib_send,
                                     .btl_sendi = openib_sendi, .btl_put = openib_put, .btl_get = openib_get,
                                     .btl_atomic_fop = openib_fop, .btl_atomic_cswap = openib_cswap,
                                     .btl_register_mem = openib_register, .btl_deregister_mem = openib_deregister,
                                     .btl_registration_handle_size = 8, .btl_eager_limit = 200};
    sv_opal.trigger = triggers;
    sv_opal.proc_local_get = local_proc;
    sv_proxy.rank = 2;
    sv_proxy.world_size = 4;
    sv_proxy.epoch = 5;
    sv_proxy.openib = &openib;
    sv_proxy.tcp[0] = &tcp;
    sv_proxy.tcp_count = 1;
    peer = &me;
    me = (struct mca_btl_base_endpoint_t){.peer = 2, .owner_epoch = 5, .proc = &proc, .openib = &openib_endpoint};
    sv_proxy.endpoints = peer;
    if (SV_VIA_TCP == via) {
        CHECK_EQ(sv_tcp_connect(peer), OPAL_SUCCESS);
    }
    sv_endpoint_route_all(via);
    sv_proxy_build(&openib, NULL);
}

static void check_quiet(void)
{
    for (int via = 0; via < SV_VIAS; via++) {
        CHECK_EQ(sv_proxy_traffic(via).outstanding, 0);
        CHECK_EQ(sv_proxy_traffic(via).in_hand, 0);
    }
    CHECK_EQ(live_fragments, 0);
    CHECK_EQ(queue_first, queue_last);
    CHECK_EQ(sv_remote_waiting, 0);
    CHECK_EQ(sv_proxy.depth, 0);
}

/* ---- the PML's side ---- */

static int sent_calls, received_calls;
static void *sent_data;
static void sent(mca_btl_base_module_t *module, sv_endpoint_t *e, mca_btl_base_descriptor_t *d, int status)
{
    CHECK(&sv_proxy.module == module && peer == e);
    CHECK(sv_proxy.depth > 0);
    sent_data = d->des_cbdata;
    sent_calls++;
}

static void received(mca_btl_base_module_t *module, mca_btl_base_tag_t tag, mca_btl_base_descriptor_t *d, void *data)
{
    CHECK(&sv_proxy.module == module);
    received_calls++;
}

static int rdma_calls, rdma_status;
static void *rdma_context;
static void rdma_done(mca_btl_base_module_t *module, sv_endpoint_t *e, void *local, sv_handle_t *handle,
                      void *context, void *data, int status)
{
    CHECK(&sv_proxy.module == module && peer == e);
    rdma_calls++;
    rdma_status = status;
    rdma_context = context;
}

static mca_btl_base_descriptor_t *pml_alloc(uint32_t flags)
{
    mca_btl_base_descriptor_t *d = sv_proxy.module.btl_alloc(&sv_proxy.module, peer, MCA_BTL_NO_ORDER, 32, flags);
    CHECK(NULL != d);
    d->des_cbfunc = sent;
    d->des_cbdata = &sent_calls;
    return d;
}

enum { PML_TAG = 0x41 };
static int pml_send(mca_btl_base_descriptor_t *d)
{
    return sv_proxy.module.btl_send(&sv_proxy.module, peer, d, PML_TAG);
}

static int pml_free(mca_btl_base_descriptor_t *d)
{
    return sv_proxy.module.btl_free(&sv_proxy.module, d);
}

/* One send for each owner of the descriptor and each way it can go. */
static void every_send(int via, int *mode)
{
    static const uint32_t owners[] = {0, MCA_BTL_DES_FLAGS_BTL_OWNERSHIP,
                                      MCA_BTL_DES_FLAGS_BTL_OWNERSHIP | MCA_BTL_DES_SEND_ALWAYS_CALLBACK};
    set_up(via);
    sv_receive_register(&sv_proxy.module, PML_TAG, received, NULL);
    for (size_t i = 0; i < 3; i++) {
        const bool owned = 0 != owners[i], always = 0 != (owners[i] & MCA_BTL_DES_SEND_ALWAYS_CALLBACK);
        uint64_t before = sv_proxy_traffic(via).sent;

        *mode = LATER;
        sent_calls = received_calls = 0;
        mca_btl_base_descriptor_t *d = pml_alloc(owners[i]);
        CHECK_EQ(sv_proxy_traffic(via).in_hand, 1);
        CHECK_EQ(pml_send(d), OPAL_SUCCESS);
        CHECK_EQ(sv_proxy_traffic(via).in_hand, 0);
        CHECK_EQ(sv_proxy_traffic(via).outstanding, 1);
        CHECK_EQ(sent_calls, 0);
        deliver_all();
        CHECK_EQ(sent_calls, 1);
        CHECK(&sent_calls == sent_data); /* its own data again, not our cookie */
        CHECK_EQ(received_calls, 1);
        CHECK_EQ(sv_proxy_traffic(via).sent, ++before);
        if (!owned) {
            CHECK_EQ(sv_proxy_traffic(via).in_hand, 1);
            pml_free(d);
        }
        check_quiet();

        *mode = AT_ONCE;
        sent_calls = 0;
        d = pml_alloc(owners[i]);
        CHECK(pml_send(d) >= 0);
        CHECK_EQ(sent_calls, 1);
        CHECK_EQ(sv_proxy_traffic(via).sent, ++before);
        if (!owned) {
            pml_free(d);
        }
        check_quiet();

        *mode = AT_ONCE_WITHOUT_CALLBACK;
        sent_calls = 0;
        d = pml_alloc(owners[i]);
        CHECK_EQ(pml_send(d), 1);
        CHECK_EQ(sent_calls, always ? 1 : 0);
        CHECK_EQ(sv_proxy_traffic(via).sent, ++before);
        if (!owned) {
            CHECK(sent == d->des_cbfunc && &sent_calls == d->des_cbdata);
            pml_free(d);
        }
        check_quiet();

        *mode = FAIL;
        sent_calls = 0;
        d = pml_alloc(owners[i]);
        const uint64_t bytes = sv_proxy_traffic(via).sent_bytes;
        CHECK_EQ(pml_send(d), OPAL_ERR_OUT_OF_RESOURCE);
        CHECK_EQ(sv_proxy_traffic(via).sent, before);
        CHECK_EQ(sv_proxy_traffic(via).sent_bytes, bytes);
        CHECK(sent == d->des_cbfunc && &sent_calls == d->des_cbdata); /* the PML sends it again */
        CHECK_EQ(sv_proxy_traffic(via).in_hand, 1);
        *mode = AT_ONCE;
        CHECK(pml_send(d) >= 0);
        if (!owned) {
            pml_free(d);
        }
        before++;
        check_quiet();
    }
    CHECK_EQ(sv_proxy_traffic(via).received, 3);
}

CASE(sends_over_tcp)
{
    every_send(SV_VIA_TCP, (int *)&send_mode);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_OPENIB).sent, 0);
}

CASE(sends_over_openib)
{
    every_send(SV_VIA_OPENIB, (int *)&openib_send_mode);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).sent, 0);
    CHECK_EQ(tcp_connects, 0);
}

/* A descriptor goes by the BTL that made it, also after the route has changed. */
CASE(descriptor_of_another_route)
{
    set_up(SV_VIA_OPENIB);
    sv_tcp_connect(peer);
    mca_btl_base_descriptor_t *card_made = pml_alloc(0), *card_unused = pml_alloc(0);
    sv_endpoint_route_all(SV_VIA_TCP);
    mca_btl_base_descriptor_t *tcp_made = pml_alloc(0);
    openib_send_mode = send_mode = LATER;
    CHECK_EQ(pml_send(card_made), OPAL_SUCCESS);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_OPENIB).outstanding, 1);
    sv_endpoint_route_all(SV_VIA_OPENIB);
    CHECK_EQ(pml_send(tcp_made), OPAL_SUCCESS);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).outstanding, 1);
    deliver_all();
    pml_free(card_made);
    pml_free(tcp_made);
    pml_free(card_unused);
    check_quiet();
}

static void run_ahead(uint64_t fragments)
{
    sv_throttle_begin(NULL);
    CHECK(peer->throttled);
    peer->sent[SV_VIA_TCP] += fragments;
}

CASE(sendi)
{
    mca_btl_base_descriptor_t *d = NULL;
    set_up(SV_VIA_OPENIB);
    mca_btl_base_module_t *m = &sv_proxy.module;
    char header[16] = "";
    CHECK_EQ(m->btl_sendi(m, peer, NULL, header, 16, 8, 0, 0, PML_TAG, &d), OPAL_SUCCESS);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_OPENIB).sent, 1);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_OPENIB).sent_bytes, 24);
    check_quiet();
    sendi_rc = OPAL_ERR_OUT_OF_RESOURCE;
    CHECK_EQ(m->btl_sendi(m, peer, NULL, header, 16, 8, 0, 0, PML_TAG, &d), OPAL_ERR_OUT_OF_RESOURCE);
    CHECK(NULL == d);
    CHECK_EQ(m->btl_sendi(m, peer, NULL, header, 16, 8, 0, 0, PML_TAG, NULL), OPAL_ERR_OUT_OF_RESOURCE);
    check_quiet();
    sendi_gives_descriptor = true;
    CHECK(m->btl_sendi(m, peer, NULL, header, 16, 8, 0, 0, PML_TAG, &d) < 0);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_OPENIB).in_hand, 1);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_OPENIB).sent, 1);
    pml_free(d);
    check_quiet();
    sv_tcp_connect(peer);
    sv_endpoint_route_all(SV_VIA_TCP);
    run_ahead(5000); /* the PML gets a descriptor to go on with */
    CHECK_EQ(m->btl_sendi(m, peer, NULL, header, 16, 8, 0, 0, PML_TAG, &d), OPAL_ERR_RESOURCE_BUSY);
    CHECK(NULL != d);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).in_hand, 1);
    pml_free(d);
    tcp_fragments = 0;
    CHECK_EQ(m->btl_sendi(m, peer, NULL, header, 16, 8, 0, 0, PML_TAG, &d), OPAL_ERR_RESOURCE_BUSY);
    CHECK(NULL == d);
    tcp_fragments = 1000;
    peer->received_before = 100; /* to the question that was asked */
    sv_remote_retry();
    deliver_all();
    check_quiet();
}

/* ---- how far ahead a sender may be on a new route ---- */

enum { ACK_TAG = 0x44, FRAG_TAG = 0x46, PUT_TAG = 0x48, FIN_TAG = 0x49 };

static int send_as(mca_btl_base_tag_t tag)
{
    mca_btl_base_descriptor_t *d = pml_alloc(MCA_BTL_DES_FLAGS_BTL_OWNERSHIP | MCA_BTL_DES_SEND_ALWAYS_CALLBACK);
    const int rc = sv_proxy.module.btl_send(&sv_proxy.module, peer, d, tag);
    if (rc < 0) {
        CHECK_EQ(sv_proxy_traffic(peer->via).in_hand, 1);
        pml_free(d); /* as ob1 does */
    }
    return rc;
}

/* Three fragments over openib, then a change to tcp. */
static void leave_card(void)
{
    set_up(SV_VIA_OPENIB);
    sv_receive_register(&sv_proxy.module, SV_TAG_REMOTE, sv_remote_received, NULL);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(send_as(PML_TAG), OPAL_SUCCESS);
    }
    deliver_all();
    CHECK_EQ(sv_tcp_connect(peer), OPAL_SUCCESS);
    sv_endpoint_route_all(SV_VIA_TCP);
    sv_throttle_begin(NULL);
}

CASE(throttle_holds_back_what_has_a_number)
{
    static const mca_btl_base_tag_t numbered[] = {0x41, 0x42, 0x43}, answers[] = {ACK_TAG, FRAG_TAG, PUT_TAG, FIN_TAG};
    leave_card();
    CHECK_EQ(send_as(PML_TAG), OPAL_SUCCESS);
    peer->asked = true;
    peer->sent[SV_VIA_TCP] += 5000;
    for (size_t i = 0; i < 3; i++) {
        CHECK_EQ(send_as(numbered[i]), OPAL_ERR_OUT_OF_RESOURCE);
    }
    for (size_t i = 0; i < 4; i++) {
        CHECK_EQ(send_as(answers[i]), OPAL_SUCCESS);
    }
    sv_throttle_end();
    CHECK_EQ(send_as(PML_TAG), OPAL_SUCCESS);
    deliver_all();
    check_quiet();
}

/* What ob1 cannot take back when it is sent is refused when it is made. */
CASE(throttle_refuses_descriptors_that_must_be_sent)
{
    static const uint32_t final = MCA_BTL_DES_FLAGS_BTL_OWNERSHIP | MCA_BTL_DES_FLAGS_SIGNAL;
    static const struct {
        size_t size;
        uint32_t flags;
        bool refused;
    } kinds[] = {
        {120, final, true},                                      /* RGET, and the first part of a buffered send */
        {24, final, false},                                      /* what answers is short */
        {120, final | MCA_BTL_DES_SEND_ALWAYS_CALLBACK, false},  /* ACK and PUT */
        {120, MCA_BTL_DES_FLAGS_BTL_OWNERSHIP, false},           /* MATCH and RNDV: refused by btl_send */
    };
    for (int held = 0; held < 2; held++) {
        leave_card();
        peer->asked = true;
        peer->sent[SV_VIA_TCP] += held ? 5000 : 0;
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
            mca_btl_base_descriptor_t *d = sv_proxy.module.btl_alloc(&sv_proxy.module, peer, MCA_BTL_NO_ORDER,
                                                                     kinds[i].size, kinds[i].flags);
            CHECK_EQ(NULL == d, held && kinds[i].refused);
            if (d) {
                pml_free(d);
            }
        }
        check_quiet();
    }
}

CASE(throttle_is_of_the_routes_that_change)
{
    struct sv_ranks others = {0};
    set_up(SV_VIA_OPENIB);
    peer->sent[SV_VIA_OPENIB] = 1000000; /* since the job began */
    others.bits[0] = 1 << 3;
    sv_endpoint_route(&others, SV_VIA_TCP);
    sv_throttle_begin(&others);
    CHECK_EQ(send_as(PML_TAG), OPAL_SUCCESS);
    deliver_all();
    check_quiet();
}

CASE(throttle_ends_when_the_peer_has_it_all)
{
    leave_card();
    peer->sent[SV_VIA_TCP] += 1023;
    CHECK_EQ(send_as(PML_TAG), OPAL_SUCCESS);
    deliver_all();
    CHECK(!peer->asked);
    CHECK_EQ(send_as(PML_TAG), OPAL_SUCCESS); /* asks, before it */
    CHECK(peer->asked);
    deliver_all();
    CHECK(peer->throttled);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).outstanding, 1); /* tcp must not go before the answer */
    peer->received_before = 2;
    sv_remote_retry();
    CHECK_EQ(queue_first, queue_last);
    peer->received_before = 3;
    sv_remote_retry();
    deliver_all();
    CHECK(!peer->throttled);
    peer->sent[SV_VIA_TCP] += 100000;
    CHECK_EQ(send_as(PML_TAG), OPAL_SUCCESS);
    deliver_all();
    check_quiet();
}

CASE(throttle_of_the_way_back_asks_behind_what_was_sent)
{
    leave_card();
    CHECK_EQ(send_as(PML_TAG), OPAL_SUCCESS);
    sv_endpoint_route_all(SV_VIA_OPENIB);
    sv_throttle_begin(NULL);
    CHECK(peer->throttled && peer->asked);
    deliver_one();
    CHECK(peer->throttled);
    deliver_all();
    CHECK(!peer->throttled);
    check_quiet();
}

CASE(throttle_of_a_route_that_carried_nothing_is_none)
{
    set_up(SV_VIA_OPENIB);
    CHECK_EQ(sv_tcp_connect(peer), OPAL_SUCCESS);
    sv_endpoint_route_all(SV_VIA_TCP);
    sv_throttle_begin(NULL);
    CHECK(!peer->throttled);
}

/* The change was taken back while its question was on its way, and another was begun. */
CASE(throttle_takes_no_old_answer)
{
    leave_card();
    peer->sent[SV_VIA_TCP] += 1024;
    CHECK_EQ(send_as(PML_TAG), OPAL_SUCCESS);
    deliver_all();
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).outstanding, 1);
    sv_endpoint_route_all(SV_VIA_OPENIB);
    sv_throttle_begin(NULL); /* asks over tcp: the old question is answered first, whatever has come */
    deliver_all();
    CHECK(!peer->throttled);
    check_quiet();
    sv_endpoint_route_all(SV_VIA_TCP);
    sv_throttle_begin(NULL);
    CHECK(peer->throttled);
    sv_throttle_passed(peer, 1);
    CHECK(peer->throttled);
}

CASE(hello_is_answered_over_tcp)
{
    set_up(SV_VIA_TCP);
    sv_receive_register(&sv_proxy.module, SV_TAG_REMOTE, sv_remote_received, NULL);
    CHECK_EQ(sv_remote_hello(peer), OPAL_SUCCESS);
    CHECK_EQ(sv_remote_hellos, 1);
    deliver_one();
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).outstanding, 2); /* the hello is not answered, the answer not sent */
    deliver_all();
    CHECK_EQ(sv_remote_hellos, 0);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).sent, 0); /* it is not of the PML */
    check_quiet();
}

static opal_proc_t stranger_proc;
static opal_proc_t *proc_of(const opal_process_name_t name)
{
    stranger_proc.proc_name = name;
    return 3 == name.vpid ? &stranger_proc : NULL;
}

CASE(a_rank_that_was_never_sent_anything_becomes_known)
{
    static opal_proc_t *(*proc_for_name)(const opal_process_name_t) = proc_of;
    set_up(SV_VIA_TCP);
    sv_opal.proc_for_name = &proc_for_name;
    CHECK(peer == sv_endpoint_known(2));
    sv_endpoint_t *e = sv_endpoint_known(3);
    CHECK(e && e != peer && &stranger_proc == e->proc && 3 == e->peer);
    CHECK(e == sv_endpoint_known(3));
    CHECK(NULL == sv_endpoint_known(1));
    CHECK(NULL == sv_endpoint_known(4)); /* the world ends before it */
    sv_proxy.endpoints = peer;
    free(e);
}

/* What stands for a convertor: the bytes to pack. */
static int packs;
static int pack(struct opal_convertor_t *convertor, struct iovec *room, uint32_t *count, size_t *size)
{
    packs++;
    CHECK_EQ(*count, 1);
    CHECK_EQ(*size, room->iov_len);
    memcpy(room->iov_base, (const void *)convertor, *size);
    return 1;
}

static char arrived[64];
static size_t arrived_size;
static void received_inline(mca_btl_base_module_t *module, mca_btl_base_tag_t tag, mca_btl_base_descriptor_t *d,
                            void *data)
{
    received_calls++;
    arrived_size = d->des_segments[0].seg_len;
    memcpy(arrived, d->des_segments[0].seg_addr.pval, arrived_size);
}

static int pml_sendi(const char *payload, mca_btl_base_descriptor_t **unsent)
{
    mca_btl_base_module_t *m = &sv_proxy.module;
    char header[] = "header";
    return m->btl_sendi(m, peer, (struct opal_convertor_t *)(uintptr_t)payload, header, 6,
                        payload ? strlen(payload) : 0, MCA_BTL_NO_ORDER, MCA_BTL_DES_FLAGS_PRIORITY, PML_TAG, unsent);
}

/* tcp has no sendi: the proxy makes, fills and sends the descriptor, and nobody is told of its completion. */
CASE(sendi_over_tcp)
{
    mca_btl_base_descriptor_t *d = &(struct fragment){0}.base;
    set_up(SV_VIA_TCP);
    sv_opal.convertor_pack = pack;
    sv_receive_register(&sv_proxy.module, PML_TAG, received_inline, NULL);
    send_mode = LATER;
    CHECK_EQ(pml_sendi("payload", &d), OPAL_SUCCESS);
    CHECK(NULL == d);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).outstanding, 1); /* the drain waits for it */
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).in_hand, 0);
    deliver_all();
    CHECK_EQ(arrived_size, 13);
    CHECK(0 == memcmp(arrived, "headerpayload", 13));
    CHECK_EQ(pml_sendi(NULL, NULL), OPAL_SUCCESS); /* no payload, and a convertor that is none */
    deliver_all();
    CHECK_EQ(packs, 1);
    CHECK_EQ(arrived_size, 6);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).sent, 2);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).sent_bytes, 19);
    check_quiet();
    for (send_mode = AT_ONCE; send_mode <= AT_ONCE_WITHOUT_CALLBACK; send_mode++) {
        CHECK_EQ(pml_sendi("payload", NULL), OPAL_SUCCESS);
        check_quiet();
    }
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).sent, 4);
    CHECK_EQ(received_calls, 2);
}

CASE(sendi_over_tcp_that_fails)
{
    mca_btl_base_descriptor_t *d = NULL;
    set_up(SV_VIA_TCP);
    sv_opal.convertor_pack = pack;
    tcp_fragments = 0;
    CHECK_EQ(pml_sendi("payload", &d), OPAL_ERR_RESOURCE_BUSY);
    CHECK(NULL == d);
    CHECK_EQ(packs, 0); /* the PML's convertor stands where it stood */
    tcp_fragments = 10;
    send_mode = FAIL;
    CHECK_EQ(pml_sendi("payload", NULL), OPAL_ERR_RESOURCE_BUSY);
    check_quiet();
    CHECK_EQ(pml_sendi("payload", &d), OPAL_ERR_RESOURCE_BUSY);
    CHECK(NULL != d);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).in_hand, 1);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).outstanding, 0);
    pml_free(d);
    send_mode = LOST;
    CHECK_EQ(pml_sendi("payload", &d), OPAL_ERR_UNREACH);
    CHECK(NULL == d); /* completed and freed already */
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).sent, 0);
    check_quiet();
}

/* What is queued in a connection that breaks completes with an error, and BTL/tcp says it nowhere else. */
static bool dies_of(void (*act)(void))
{
    int status = 0;
    const pid_t child = fork();
    if (0 == child) {
        act();
        deliver_broken();
        _exit(0);
    }
    return child == waitpid(child, &status, 0) && WIFSIGNALED(status) && SIGABRT == WTERMSIG(status);
}

static void small_message(void)
{
    CHECK_EQ(pml_sendi("payload", NULL), OPAL_SUCCESS);
}

static void hello(void)
{
    CHECK_EQ(sv_remote_hello(peer), OPAL_SUCCESS);
}

static void fence(void);

CASE(a_message_that_tcp_loses_ends_the_job)
{
    set_up(SV_VIA_TCP);
    sv_opal.convertor_pack = pack;
    send_mode = LATER;
    CHECK(dies_of(small_message));
    CHECK(dies_of(fence));
    CHECK(!dies_of(hello)); /* only a cycle waits for its answer */
}

/* ---- one-sided ---- */

static sv_handle_t remote_handle(uint32_t epoch)
{
    sv_handle_t h = {.owner = 2, .id = 1, .epoch = epoch};
    const uint64_t key = 500 + epoch;
    memcpy(h.real, &key, sizeof(key));
    return h;
}

static int pml_put(void *local, void *remote, sv_handle_t *lh, sv_handle_t *rh, size_t size)
{
    return sv_proxy.module.btl_put(&sv_proxy.module, peer, local, (uint64_t)(uintptr_t)remote, lh, rh, size, 0,
                                   MCA_BTL_NO_ORDER, rdma_done, &rdma_calls, NULL);
}

static int pml_get(void *local, void *remote, sv_handle_t *lh, sv_handle_t *rh, size_t size)
{
    return sv_proxy.module.btl_get(&sv_proxy.module, peer, local, (uint64_t)(uintptr_t)remote, lh, rh, size, 0,
                                   MCA_BTL_NO_ORDER, rdma_done, &rdma_calls, NULL);
}

CASE(put_over_tcp_is_fenced)
{
    char from[64] = "what was put", to[64] = "";
    sv_handle_t handle = remote_handle(1);
    set_up(SV_VIA_TCP);
    CHECK_EQ(pml_put(from, to, NULL, &handle, sizeof(from)), OPAL_SUCCESS);
    CHECK_EQ(queue_last, 2);
    CHECK_EQ(queue[0].kind, PUT); /* the data, then the fence on the same socket */
    CHECK_EQ(queue[1].kind, SEND);
    CHECK(sv_proxy_traffic(SV_VIA_TCP).outstanding > 0);
    deliver_one();
    deliver_one();
    CHECK_EQ(rdma_calls, 0); /* the fence has arrived, its answer has not */
    CHECK(sv_proxy_traffic(SV_VIA_TCP).outstanding > 0);
    deliver_one();
    CHECK_EQ(rdma_calls, 1);
    CHECK_EQ(rdma_status, OPAL_SUCCESS);
    CHECK(&rdma_calls == rdma_context);
    CHECK(0 == strcmp(to, from));
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).sent, 0); /* our own messages are not the PML's */
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).received, 0);
    check_quiet();
}

CASE(get_over_tcp)
{
    char there[64] = "what was got", here[64] = "";
    sv_handle_t handle = remote_handle(1), local = {.owner = 2};
    set_up(SV_VIA_TCP);
    CHECK_EQ(pml_get(here, there, &local, &handle, sizeof(here)), OPAL_SUCCESS);
    deliver_one();
    CHECK_EQ(queue_last - queue_first, 2);
    CHECK_EQ(queue[queue_first].kind, PUT); /* the owner's data before its word that it is there */
    deliver_one();
    CHECK_EQ(rdma_calls, 0);
    deliver_one();
    CHECK_EQ(rdma_calls, 1);
    CHECK(0 == strcmp(here, there));
    check_quiet();
}

static uint64_t fop(void *word, mca_btl_base_atomic_op_t op, uint64_t operand, int flags)
{
    uint64_t old = 0x1111111111111111u;
    sv_handle_t handle = remote_handle(1), local = {.owner = 2};
    CHECK_EQ(sv_proxy.module.btl_atomic_fop(&sv_proxy.module, peer, &old, (uint64_t)(uintptr_t)word, &local, &handle,
                                            op, operand, flags, MCA_BTL_NO_ORDER, rdma_done, NULL, NULL),
             OPAL_SUCCESS);
    const int before = rdma_calls;
    deliver_all();
    CHECK_EQ(rdma_calls, before + 1);
    return old;
}

static uint64_t cswap(void *word, uint64_t compare, uint64_t value, int flags)
{
    uint64_t old = 0x1111111111111111u;
    sv_handle_t handle = remote_handle(1), local = {.owner = 2};
    CHECK_EQ(sv_proxy.module.btl_atomic_cswap(&sv_proxy.module, peer, &old, (uint64_t)(uintptr_t)word, &local,
                                              &handle, compare, value, flags, MCA_BTL_NO_ORDER, rdma_done, NULL, NULL),
             OPAL_SUCCESS);
    deliver_all();
    return old;
}

CASE(atomics_over_tcp)
{
    const uint64_t big = 0x100000000u;
    uint64_t word = big + 5;
    set_up(SV_VIA_TCP);
    CHECK_EQ(fop(&word, MCA_BTL_ATOMIC_ADD, big, 0), big + 5);
    CHECK_EQ(cswap(&word, 71, 1, 0), 2 * big + 5);
    CHECK_EQ(word, 2 * big + 5);
    CHECK_EQ(cswap(&word, 2 * big + 5, 1, 0), 2 * big + 5);
    CHECK_EQ(word, 1);
    check_quiet();
}

/* Whatever the route: osc/rdma must not find out in the middle of an operation, nor after it was taken. */
CASE(atomics_that_openib_refuses)
{
    static const mca_btl_base_atomic_op_t ops[] = {MCA_BTL_ATOMIC_AND,  MCA_BTL_ATOMIC_OR,  MCA_BTL_ATOMIC_XOR,
                                                   MCA_BTL_ATOMIC_SWAP, MCA_BTL_ATOMIC_MIN, MCA_BTL_ATOMIC_MAX,
                                                   MCA_BTL_ATOMIC_LAND, MCA_BTL_ATOMIC_LOR, MCA_BTL_ATOMIC_LXOR};
    uint64_t word = 5, old;
    sv_handle_t handle = remote_handle(1), local = {.owner = 2};
    set_up(SV_VIA_TCP);
    mca_btl_base_module_t *m = &sv_proxy.module;
    for (int held = 0; held < 2; held++) {
        sv_proxy.hold_atomics = held;
        for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
            CHECK_EQ(m->btl_atomic_fop(m, peer, &old, (uint64_t)(uintptr_t)&word, &local, &handle, ops[i], 1, 0,
                                       MCA_BTL_NO_ORDER, rdma_done, NULL, NULL),
                     OPAL_ERR_NOT_SUPPORTED);
        }
        CHECK_EQ(m->btl_atomic_fop(m, peer, &old, (uint64_t)(uintptr_t)&word, &local, &handle, MCA_BTL_ATOMIC_ADD, 1,
                                   MCA_BTL_ATOMIC_FLAG_32BIT, MCA_BTL_NO_ORDER, rdma_done, NULL, NULL),
                 OPAL_ERR_NOT_SUPPORTED);
        CHECK_EQ(m->btl_atomic_cswap(m, peer, &old, (uint64_t)(uintptr_t)&word, &local, &handle, 5, 6,
                                     MCA_BTL_ATOMIC_FLAG_32BIT, MCA_BTL_NO_ORDER, rdma_done, NULL, NULL),
                 OPAL_ERR_NOT_SUPPORTED);
    }
    sv_proxy.hold_atomics = false;
    CHECK_EQ(sv_atomics_waiting, 0);
    CHECK_EQ(word, 5);
    CHECK_EQ(rdma_calls, 0);
    check_quiet();
}

/* osc/rdma asks the BTL for its own rank's memory, too: over tcp that is done on the spot. */
CASE(own_memory_over_tcp)
{
    static char here[16] = "over there", there[16];
    uint64_t word = 5, old = 0;
    sv_handle_t handle = remote_handle(1), local = {.owner = 2};
    set_up(SV_VIA_TCP);
    peer->proc = &own_proc;
    peer->tcp = NULL;
    sv_endpoint_route_all(SV_VIA_OPENIB);
    sv_endpoint_route_all(SV_VIA_TCP);
    CHECK_EQ(peer->via, SV_VIA_TCP);
    CHECK_EQ(pml_put(here, there, NULL, &handle, 16), OPAL_SUCCESS);
    CHECK(0 == strcmp(here, there));
    memset(here, 0, 16);
    CHECK_EQ(pml_get(here, there, &local, &handle, 16), OPAL_SUCCESS);
    CHECK(0 == strcmp(here, there));
    CHECK_EQ(sv_proxy.module.btl_atomic_fop(&sv_proxy.module, peer, &old, (uint64_t)(uintptr_t)&word, &local, &handle,
                                            MCA_BTL_ATOMIC_ADD, 2, 0, 0, rdma_done, NULL, NULL),
             OPAL_SUCCESS);
    CHECK_EQ(old, 5);
    CHECK_EQ(word, 7);
    CHECK_EQ(rdma_calls, 3);
    CHECK_EQ(queue_last, 0);
    check_quiet();
}

/* Between the routes atomics are taken and wait; refused ones would be asked again from inside callbacks for ever. */
CASE(atomics_wait_between_the_routes)
{
    char memory[16];
    sv_handle_t handle = remote_handle(5);
    set_up(SV_VIA_OPENIB);
    mca_btl_base_module_t *m = &sv_proxy.module;
    sv_handle_t *local = m->btl_register_mem(m, peer, memory, 16, 0);
    sv_proxy.hold_atomics = true;
    CHECK_EQ(m->btl_atomic_fop(m, peer, memory, 0, local, &handle, MCA_BTL_ATOMIC_ADD, 1, 0, 0, rdma_done, NULL, NULL),
             OPAL_SUCCESS);
    CHECK_EQ(m->btl_atomic_cswap(m, peer, memory, 0, local, &handle, 1, 1, 0, 0, rdma_done, NULL, NULL), OPAL_SUCCESS);
    memset(&handle, 0xff, sizeof(handle)); /* the caller may use it again */
    sv_proxy_safe_point();
    CHECK_EQ(card.fops + card.cswaps, 0);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_OPENIB).outstanding, 0); /* a drain does not wait for them */
    sv_proxy.hold_atomics = false;
    card.rc = OPAL_ERR_OUT_OF_RESOURCE;
    sv_proxy_safe_point();
    CHECK_EQ(card.fops, 1);
    CHECK_EQ(sv_atomics_waiting, 2); /* refused by the card: again at the next safe point, in the same order */
    card.rc = OPAL_SUCCESS;
    sv_proxy_safe_point();
    CHECK_EQ(card.fops, 2);
    CHECK_EQ(card.cswaps, 1);
    CHECK_EQ(card.remote_key, 505);
    CHECK_EQ(sv_atomics_waiting, 0);
    card_completes();
    card.done(&openib, &openib_endpoint, card.local, NULL, first_atomic, NULL, OPAL_SUCCESS);
    CHECK_EQ(rdma_calls, 2);
    m->btl_deregister_mem(m, local);
    check_quiet();
}

/* Out of fragments: everything waits in its order and goes when there are some again. */
CASE(messages_wait_for_fragments)
{
    static char memory[8][64], copy[8][64];
    uint64_t word = 0, old[4] = {9, 9, 9, 9};
    sv_handle_t handle = remote_handle(1), local = {.owner = 2};
    set_up(SV_VIA_TCP);
    tcp_fragments = 1;
    for (int i = 0; i < 4; i++) {
        memset(memory[i], 'a' + i, 64);
        CHECK_EQ(pml_put(memory[i], copy[i], NULL, &handle, 64), OPAL_SUCCESS);
        CHECK_EQ(pml_get(copy[i + 4], memory[i], &local, &handle, 64), OPAL_SUCCESS);
        CHECK_EQ(sv_proxy.module.btl_atomic_fop(&sv_proxy.module, peer, &old[i], (uint64_t)(uintptr_t)&word, &local,
                                                &handle, MCA_BTL_ATOMIC_ADD, 1, 0, 0, rdma_done, NULL, NULL),
                 OPAL_SUCCESS);
    }
    CHECK(sv_remote_waiting >= 11);
    CHECK(sv_proxy_traffic(SV_VIA_TCP).outstanding >= 12); /* the drain sees what waits */
    for (int i = 0; i < 200 && rdma_calls < 12; i++) {
        deliver_all();
        sv_proxy_safe_point();
    }
    CHECK_EQ(rdma_calls, 12);
    for (int i = 0; i < 4; i++) {
        CHECK(0 == memcmp(copy[i], memory[i], 64));
        CHECK(0 == memcmp(copy[i + 4], memory[i], 64));
        CHECK_EQ(old[i], i); /* in the order they were asked */
    }
    check_quiet();
}

/* The owner has no fragment for its answer: the data goes once, before the answer. */
CASE(answer_to_a_get_waits)
{
    char there[16] = "data", here[16] = "";
    sv_handle_t handle = remote_handle(1), local = {.owner = 2};
    set_up(SV_VIA_TCP);
    CHECK_EQ(pml_get(here, there, &local, &handle, sizeof(here)), OPAL_SUCCESS);
    tcp_puts_left = 0;
    deliver_one();
    CHECK_EQ(queue_first, queue_last);
    CHECK_EQ(sv_remote_waiting, 1);
    sv_proxy_safe_point();
    CHECK_EQ(sv_remote_waiting, 1);
    tcp_puts_left = 1;
    tcp_fragments = 0;
    sv_proxy_safe_point();
    sv_proxy_safe_point();
    CHECK_EQ(queue_last - queue_first, 1); /* the put, once */
    tcp_fragments = 10;
    sv_proxy_safe_point();
    deliver_all();
    CHECK_EQ(rdma_calls, 1);
    CHECK(0 == strcmp(here, there));
    check_quiet();
}

static void fence(void)
{
    static char from[16], to[16];
    sv_handle_t handle = remote_handle(1);
    CHECK_EQ(pml_put(from, to, NULL, &handle, sizeof(to)), OPAL_SUCCESS);
}

CASE(put_that_cannot_start)
{
    char from[16] = "", to[16] = "";
    sv_handle_t handle = remote_handle(1);
    set_up(SV_VIA_TCP);
    tcp_puts_left = 0;
    CHECK_EQ(pml_put(from, to, NULL, &handle, 16), OPAL_ERR_OUT_OF_RESOURCE);
    check_quiet();
    CHECK_EQ(rdma_calls, 0);
}

CASE(peer_that_tcp_does_not_reach)
{
    char here[16], there[16];
    sv_handle_t handle = remote_handle(1), local = {.owner = 2};
    set_up(SV_VIA_OPENIB);
    tcp.btl_add_procs = no_tcp;
    peer->via = SV_VIA_TCP; /* without a card, and no way there */
    CHECK_EQ(pml_put(here, there, NULL, &handle, 16), OPAL_ERR_UNREACH);
    CHECK_EQ(pml_get(here, there, &local, &handle, 16), OPAL_ERR_UNREACH);
    check_quiet();
    CHECK_EQ(rdma_calls, 0);
}

CASE(card_operations)
{
    char memory[16];
    sv_handle_t handle = remote_handle(5);
    set_up(SV_VIA_OPENIB);
    mca_btl_base_module_t *m = &sv_proxy.module;
    sv_handle_t *local = m->btl_register_mem(m, peer, memory, 16, 0);
    CHECK_EQ(pml_put(memory, memory, local, &handle, 16), OPAL_SUCCESS);
    CHECK_EQ(card.remote_key, 505);
    CHECK_EQ(card.local_key, 900);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_OPENIB).outstanding, 1);
    card_completes();
    CHECK_EQ(pml_put(memory, memory, NULL, &handle, 16), OPAL_SUCCESS); /* inlined: no local handle */
    CHECK_EQ(card.local_key, 0);
    card_completes();
    CHECK_EQ(pml_get(memory, memory, local, &handle, 16), OPAL_SUCCESS);
    card_completes();
    CHECK_EQ(m->btl_atomic_fop(m, peer, memory, 0, local, &handle, MCA_BTL_ATOMIC_ADD, 1, 0, 0, rdma_done, NULL, NULL),
             OPAL_SUCCESS);
    card_completes();
    CHECK_EQ(m->btl_atomic_cswap(m, peer, memory, 0, local, &handle, 1, 1, 0, 0, rdma_done, NULL, NULL), OPAL_SUCCESS);
    card_completes();
    CHECK_EQ(rdma_calls, 5);
    CHECK_EQ(card.puts + card.gets + card.fops + card.cswaps, 5);
    CHECK_EQ(queue_last, 0);
    card.rc = OPAL_ERR_OUT_OF_RESOURCE; /* every one of them refused */
    CHECK(pml_put(memory, memory, local, &handle, 16) < 0);
    CHECK(pml_get(memory, memory, local, &handle, 16) < 0);
    CHECK(m->btl_atomic_fop(m, peer, memory, 0, local, &handle, MCA_BTL_ATOMIC_ADD, 1, 0, 0, rdma_done, NULL, NULL) < 0);
    CHECK(m->btl_atomic_cswap(m, peer, memory, 0, local, &handle, 1, 1, 0, 0, rdma_done, NULL, NULL) < 0);
    CHECK_EQ(rdma_calls, 5);
    m->btl_deregister_mem(m, local);
    check_quiet();
}

/* A handle of an older epoch: the owner's present one if the board brought it, else tcp. */
CASE(stale_handle)
{
    char memory[16] = "stale", to[16] = "";
    sv_handle_t stale = remote_handle(3), fresh = remote_handle(5);
    set_up(SV_VIA_OPENIB);
    mca_btl_base_module_t *m = &sv_proxy.module;
    sv_handle_t *local = m->btl_register_mem(m, peer, memory, 16, 0);
    CHECK_EQ(pml_put(memory, to, local, &stale, 16), OPAL_SUCCESS);
    CHECK_EQ(card.puts, 0);
    CHECK_EQ(tcp_connects, 1);
    deliver_all();
    CHECK_EQ(rdma_calls, 1);
    CHECK(0 == strcmp(to, memory));

    CHECK_EQ(sv_registration_remote_reset(1), 0);
    CHECK_EQ(sv_registration_remote_add(&fresh), 0);
    CHECK_EQ(pml_put(memory, to, local, &stale, 16), OPAL_SUCCESS);
    CHECK_EQ(card.puts, 1);
    CHECK_EQ(card.remote_key, 505); /* never the stale key 503 */
    card_completes();

    sv_endpoint_set_epoch(2, 6); /* the owner has gone on, what we know is of epoch 5 */
    CHECK_EQ(pml_get(to, memory, local, &stale, 16), OPAL_SUCCESS);
    CHECK_EQ(card.gets, 0);
    deliver_all();
    CHECK_EQ(rdma_calls, 3);
    m->btl_deregister_mem(m, local);
    check_quiet();
}

/* A local buffer registered while there was no card cannot be given to one. */
CASE(local_handle_without_a_card)
{
    char memory[16] = "local", to[16] = "";
    sv_handle_t handle = remote_handle(5);
    set_up(SV_VIA_OPENIB);
    mca_btl_base_module_t *m = &sv_proxy.module;
    sv_proxy.openib = NULL;
    sv_handle_t *local = m->btl_register_mem(m, peer, memory, 16, 0);
    CHECK(NULL != local);
    sv_proxy.openib = &openib;
    CHECK_EQ(pml_put(memory, to, local, &handle, 16), OPAL_SUCCESS);
    CHECK_EQ(card.puts, 0);
    deliver_all();
    CHECK(0 == strcmp(to, memory));
    m->btl_deregister_mem(m, local);
    check_quiet();
}

/* ---- the module, safe points, receiving ---- */

CASE(module_shows_what_holds_on_both_routes)
{
    set_up(SV_VIA_OPENIB);
    sv_proxy_copy_limits();
    CHECK_EQ(sv_proxy.module.btl_eager_limit, 100);
    CHECK_EQ(sv_proxy.module.btl_registration_handle_size, sizeof(sv_handle_t));
    openib.btl_get = NULL;
    openib.btl_atomic_fop = NULL;
    sv_proxy_build(&openib, NULL);
    CHECK(NULL == sv_proxy.module.btl_get);
    CHECK(NULL == sv_proxy.module.btl_atomic_fop);
    CHECK(NULL != sv_proxy.module.btl_put);
    CHECK(NULL == sv_proxy.module.btl_flush);
}

static int polled;
static int poll_card(void)
{
    CHECK(sv_proxy.depth > 0);
    atomic_store(&sv_pending, 1);
    sv_proxy_safe_point(); /* opal_progress from inside the BTL: not a safe point */
    return ++polled;
}

CASE(safe_points_only_outside_a_btl)
{
    set_up(SV_VIA_OPENIB);
    sv_proxy.openib_progress = poll_card;
    CHECK_EQ(sv_proxy_progress(), 0);
    CHECK_EQ(polled, 0); /* not polled while torn down */
    sv_proxy.polling = true;
    CHECK_EQ(sv_proxy_progress(), 1);
    CHECK_EQ(steps, 0);
    sv_proxy_safe_point();
    CHECK_EQ(steps, 1);
    sv_proxy_progress();
    CHECK_EQ(steps, 2);
    atomic_store(&sv_pending, 0);
    sv_proxy_safe_point();
    CHECK_EQ(steps, 2);
}

static mca_btl_base_module_t *seen;
static void saw(mca_btl_base_module_t *module, mca_btl_base_tag_t tag, mca_btl_base_descriptor_t *d, void *data)
{
    CHECK(sv_proxy.depth > 0);
    CHECK(&seen == data);
    seen = module;
}

CASE(receives_are_counted_by_route)
{
    static mca_btl_base_module_t vader;
    struct fragment f = {.segment = {.seg_len = 10}};
    f.base.des_segments = &f.segment;
    set_up(SV_VIA_OPENIB);
    sv_receive_register(&sv_proxy.module, PML_TAG, saw, &seen);
    triggers[PML_TAG].cbfunc(&openib, PML_TAG, &f.base, triggers[PML_TAG].cbdata);
    CHECK(&sv_proxy.module == seen);
    triggers[PML_TAG].cbfunc(&tcp, PML_TAG, &f.base, triggers[PML_TAG].cbdata);
    CHECK(&sv_proxy.module == seen);
    triggers[PML_TAG].cbfunc(&vader, PML_TAG, &f.base, triggers[PML_TAG].cbdata);
    CHECK(&vader == seen); /* not ours: passed through, not counted */
    CHECK_EQ(sv_proxy_traffic(SV_VIA_OPENIB).received, 1);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).received, 1);
    CHECK_EQ(sv_proxy_traffic(SV_VIA_TCP).received_bytes, 10);
    check_quiet();
}

/* Cookies are taken and given back: a million sends need no more memory than the most at once. */
CASE(cookies_are_used_again)
{
    struct sv_cookie *most[300];
    for (int i = 0; i < 300; i++) {
        most[i] = sv_cookie_get();
        for (int k = 0; k < i; k += 37) {
            CHECK(most[k] != most[i]);
        }
    }
    const unsigned sequence = most[0]->sequence;
    for (int i = 299; i >= 0; i--) {
        sv_cookie_put(most[i]);
    }
    CHECK(sv_cookie_get() == most[0]);
    CHECK_EQ(most[0]->sequence, sequence + 1);
}

/* ---- peers ---- */

static struct mca_btl_base_endpoint_t cards[8];
static uint32_t unreached = UINT32_MAX;
static int card_add_procs(mca_btl_base_module_t *m, size_t n, opal_proc_t **procs, sv_endpoint_t **real,
                          opal_bitmap_t *reachable)
{
    for (size_t i = 0; i < n; i++) {
        const bool ours = sv_proxy.jobid == procs[i]->proc_name.jobid;
        real[i] = unreached == procs[i]->proc_name.vpid ? NULL : &cards[procs[i]->proc_name.vpid + (ours ? 0 : 4)];
    }
    return OPAL_SUCCESS;
}

static int card_del_procs(mca_btl_base_module_t *m, size_t n, opal_proc_t **procs, sv_endpoint_t **real)
{
    return OPAL_SUCCESS;
}

static sv_endpoint_t *meet(opal_proc_t *with)
{
    sv_endpoint_t *e = NULL;
    uint64_t bits = 0;
    opal_bitmap_t reachable = {.bitmap = &bits, .array_size = 1};
    openib.btl_add_procs = card_add_procs;
    openib.btl_del_procs = card_del_procs;
    CHECK_EQ(sv_proxy.module.btl_add_procs(&sv_proxy.module, 1, &with, &e, &reachable), OPAL_SUCCESS);
    CHECK_EQ(bits, NULL != e);
    return e;
}

/* A spawned job counts its processes from 0 as well. */
CASE(a_process_of_another_job_is_not_taken_for_a_rank)
{
    static opal_proc_t ours, theirs;
    set_up(SV_VIA_OPENIB);
    sv_proxy.jobid = 7;
    ours.proc_name = (opal_process_name_t){.jobid = 7, .vpid = 3};
    theirs.proc_name = (opal_process_name_t){.jobid = 9, .vpid = 3};
    sv_endpoint_t *foreign = meet(&theirs), *own = meet(&ours);
    CHECK(foreign && own && foreign != own);
    CHECK_EQ(own->peer, 3);
    CHECK_EQ(foreign->peer, SV_FOREIGN);
    CHECK(own->openib == &cards[3] && foreign->openib == &cards[7]);
    CHECK(own == sv_endpoint_of_rank(3) && own == meet(&ours) && foreign == meet(&theirs));
    CHECK(sv_endpoint_foreign());
    opal_proc_t *gone = &theirs;
    CHECK_EQ(sv_proxy.module.btl_del_procs(&sv_proxy.module, 1, &gone, &foreign), OPAL_SUCCESS);
    CHECK(!sv_endpoint_foreign());
}

/* A rank that has no card and no library of ours: stock openib,tcp would reach it as well. */
CASE(a_peer_no_card_reaches_is_reached_over_tcp)
{
    static opal_proc_t bare;
    set_up(SV_VIA_OPENIB);
    sv_proxy.jobid = 7;
    bare.proc_name = (opal_process_name_t){.jobid = 7, .vpid = 1};
    unreached = 1;
    sv_endpoint_t *e = meet(&bare);
    CHECK(e && e->tcp && !e->wants_openib);
    CHECK_EQ(e->via, SV_VIA_TCP);
    sv_endpoint_route_all(SV_VIA_OPENIB);
    CHECK_EQ(e->via, SV_VIA_TCP);
    sv_proxy.tcp_count = 0;
    bare.proc_name.vpid = unreached = 0;
    CHECK(NULL == meet(&bare)); /* told as unreachable */
}
