/* SPDX-License-Identifier: Apache-2.0 */
#include "remote.h"

#include "arrivals.h"
#include "throttle.h"

#include <stdlib.h>
#include <string.h>

/*
 * A put over tcp is complete when it has left for the socket, not when it is in memory
 * (btl_tcp.c). Whatever follows it may take another way, so a FENCE goes after it on the same
 * socket and the owner's answer completes it. A get asks the owner to put; its DONE follows on the
 * same socket. An answer always takes the way of its question: tcp.
 */
enum op { FENCE = 1, FENCE_DONE, GET, GET_DONE, ATOMIC, ATOMIC_DONE, HELLO, HELLO_DONE, PASSED, PASSED_DONE };

struct message {
    uint32_t op, sender;
    uint64_t remote, local, size, cookie;
    uint64_t operand, compare;
    uint32_t atomic, swap, flags, reserved;
};

/* Not sent yet for want of a fragment. `put_first`: the data of an answered GET has to go before. */
struct waiting {
    struct waiting *next;
    sv_endpoint_t *endpoint;
    bool put_first;
    struct message message;
};

int sv_remote_waiting, sv_remote_hellos;
static struct waiting *first, **last = &first;

static void message_done(mca_btl_base_module_t *module, sv_endpoint_t *real, mca_btl_base_descriptor_t *descriptor,
                         int status)
{
    sv_proxy.traffic[SV_VIA_TCP].outstanding--;
    if (sv_unlikely(OPAL_SUCCESS != status)) {
        const struct message *message = descriptor->des_segments[0].seg_addr.pval;
        if (message->op < HELLO) { /* for the others nobody waits but a cycle, which has its deadline */
            sv_tcp_lost("a one-sided message", descriptor->des_cbdata);
        }
    }
}

static void put_done(mca_btl_base_module_t *module, sv_endpoint_t *real, void *local, sv_handle_t *handle,
                     void *context, void *data, int status)
{
    sv_proxy.traffic[SV_VIA_TCP].outstanding--;
    if (sv_unlikely(OPAL_SUCCESS != status)) {
        sv_tcp_lost("one-sided data", context);
    }
}

static int send_message(sv_endpoint_t *endpoint, const struct message *message)
{
    if (OPAL_SUCCESS != sv_tcp_connect(endpoint)) {
        return OPAL_ERR_UNREACH;
    }
    mca_btl_base_module_t *tcp = endpoint->tcp_module;
    mca_btl_base_descriptor_t *descriptor =
        tcp->btl_alloc(tcp, endpoint->tcp, MCA_BTL_NO_ORDER, sizeof(*message),
                       MCA_BTL_DES_FLAGS_BTL_OWNERSHIP | MCA_BTL_DES_FLAGS_PRIORITY | MCA_BTL_DES_SEND_ALWAYS_CALLBACK);
    if (NULL == descriptor) {
        return OPAL_ERR_OUT_OF_RESOURCE;
    }
    sv_tcp_note(descriptor);
    memcpy(descriptor->des_segments[0].seg_addr.pval, message, sizeof(*message));
    descriptor->des_cbfunc = message_done;
    descriptor->des_cbdata = endpoint;
    sv_proxy.traffic[SV_VIA_TCP].outstanding++;
    const int rc = tcp->btl_send(tcp, endpoint->tcp, descriptor, SV_TAG_REMOTE);
    if (rc < 0) {
        sv_proxy.traffic[SV_VIA_TCP].outstanding--;
        tcp->btl_free(tcp, descriptor);
        return rc;
    }
    return OPAL_SUCCESS;
}

static int put_data(sv_endpoint_t *endpoint, void *local, uint64_t remote, size_t size)
{
    if (OPAL_SUCCESS != sv_tcp_connect(endpoint)) {
        return OPAL_ERR_UNREACH;
    }
    mca_btl_base_module_t *tcp = endpoint->tcp_module;
    sv_proxy.traffic[SV_VIA_TCP].outstanding++;
    const int rc = tcp->btl_put(tcp, endpoint->tcp, local, remote, NULL, NULL, size, 0, MCA_BTL_NO_ORDER, put_done,
                                endpoint, NULL);
    if (rc < 0) {
        sv_proxy.traffic[SV_VIA_TCP].outstanding--;
        return rc;
    }
    return OPAL_SUCCESS;
}

static int try(struct waiting *w)
{
    if (w->put_first) {
        const int rc =
            put_data(w->endpoint, (void *)(uintptr_t)w->message.remote, w->message.local, w->message.size);
        if (rc < 0) {
            return rc;
        }
        w->put_first = false;
    }
    return send_message(w->endpoint, &w->message);
}

/* Sends now or, behind others that wait or without a fragment, later. Only "unreachable" is lost. */
static int post(sv_endpoint_t *endpoint, const struct message *message, bool put_first)
{
    struct waiting now = {.endpoint = endpoint, .put_first = put_first, .message = *message};
    int rc = first ? OPAL_ERR_OUT_OF_RESOURCE : try(&now);
    if (OPAL_SUCCESS == rc || OPAL_ERR_UNREACH == rc) {
        return rc;
    }
    struct waiting *w = malloc(sizeof(*w));
    if (NULL == w) {
        return OPAL_ERR_OUT_OF_RESOURCE;
    }
    *w = now;
    w->next = NULL;
    *last = w;
    last = &w->next;
    sv_remote_waiting++;
    sv_proxy.traffic[SV_VIA_TCP].outstanding++;
    return OPAL_SUCCESS;
}

/* Tells those who wait for it that their messages over openib are here. */
static void answer_passed(void)
{
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (!e->answers || sv_endpoint_received(e->peer) < e->answers_at) {
            continue;
        }
        e->answers = false;
        sv_remote_waiting--;
        const struct message m = {.op = PASSED_DONE, .sender = sv_proxy.rank, .operand = e->answers_flips};
        if (OPAL_SUCCESS != post(e, &m, false)) {
            sv_tcp_lost("a one-sided message", e);
        }
    }
}

void sv_remote_retry(void)
{
    answer_passed();
    while (first) {
        struct waiting *w = first;
        const int rc = try(w);
        if (OPAL_ERR_UNREACH == rc) {
            sv_tcp_lost("a one-sided message", w->endpoint);
        }
        if (rc < 0) {
            return;
        }
        first = w->next;
        if (NULL == first) {
            last = &first;
        }
        sv_remote_waiting--;
        sv_proxy.traffic[SV_VIA_TCP].outstanding--;
        free(w);
    }
}

/* A cookie travels as a number and comes back from the owner, a rank of the same job. */
static struct message question(enum op op, struct sv_cookie *cookie)
{
    const struct message m = {.op = op, .sender = sv_proxy.rank, .cookie = (uint64_t)(uintptr_t)cookie};
    return m;
}

/* osc/rdma asks for its own rank's memory through the BTL as well. */
static void done_here(void *local, struct sv_cookie *cookie)
{
    sv_rdma_done(NULL, NULL, local, NULL, cookie, NULL, OPAL_SUCCESS);
}

int sv_remote_put(sv_endpoint_t *endpoint, void *local, uint64_t remote, size_t size, struct sv_cookie *cookie)
{
    if (sv_endpoint_is_self(endpoint)) {
        memmove((void *)(uintptr_t)remote, local, size);
        done_here(local, cookie);
        return OPAL_SUCCESS;
    }
    struct message m = question(FENCE, cookie);
    const int rc = put_data(endpoint, local, remote, size);
    if (rc < 0) {
        return rc;
    }
    m.local = (uint64_t)(uintptr_t)local;
    m.size = size;
    return post(endpoint, &m, false);
}

int sv_remote_get(sv_endpoint_t *endpoint, void *local, uint64_t remote, size_t size, struct sv_cookie *cookie)
{
    if (sv_endpoint_is_self(endpoint)) {
        memmove(local, (void *)(uintptr_t)remote, size);
        done_here(local, cookie);
        return OPAL_SUCCESS;
    }
    struct message m = question(GET, cookie);
    m.local = (uint64_t)(uintptr_t)local;
    m.remote = remote;
    m.size = size;
    return post(endpoint, &m, false);
}

/* Plain loads and stores: a rank runs these only while no card atomic can touch the word (hold_atomics and
 * emulate_atomics in proxy.h). What a card can do: a sum, or compare and swap, of 64 bits (proxy_atomic_fop). */
static uint64_t apply(const struct message *m)
{
    uint64_t *word = (uint64_t *)(uintptr_t)m->remote, old = *word;
    if (m->swap) {
        *word = old == m->compare ? m->operand : old;
    } else {
        *word = old + m->operand;
    }
    return old;
}

static void give_result(const struct message *m)
{
    void *local = (void *)(uintptr_t)m->local;
    if (m->flags & MCA_BTL_ATOMIC_FLAG_32BIT) {
        *(uint32_t *)local = (uint32_t)m->operand;
    } else {
        *(uint64_t *)local = m->operand;
    }
}

int sv_remote_atomic(sv_endpoint_t *endpoint, void *local, uint64_t remote, mca_btl_base_atomic_op_t op,
                     uint64_t operand, uint64_t compare, bool swap, int flags, struct sv_cookie *cookie)
{
    struct message m = question(ATOMIC, cookie);
    m.local = (uint64_t)(uintptr_t)local;
    m.remote = remote;
    m.operand = operand;
    m.compare = compare;
    m.atomic = (uint32_t)op;
    m.swap = swap;
    m.flags = (uint32_t)flags;
    if (sv_endpoint_is_self(endpoint)) {
        m.operand = apply(&m);
        give_result(&m);
        done_here(local, cookie);
        return OPAL_SUCCESS;
    }
    return post(endpoint, &m, false);
}

int sv_remote_hello(sv_endpoint_t *endpoint)
{
    const struct message m = {.op = HELLO, .sender = sv_proxy.rank};
    const int rc = post(endpoint, &m, false);
    if (OPAL_SUCCESS == rc) {
        sv_remote_hellos++;
        sv_proxy.traffic[SV_VIA_TCP].outstanding++; /* as in sv_remote_ask */
    }
    return rc;
}

int sv_remote_ask(sv_endpoint_t *endpoint, uint64_t sent, uint64_t flips)
{
    const struct message m = {.op = PASSED, .sender = sv_proxy.rank, .size = sent, .operand = flips};
    const int rc = post(endpoint, &m, false);
    if (OPAL_SUCCESS == rc) {
        sv_proxy.traffic[SV_VIA_TCP].outstanding++; /* until it is answered: tcp must not go before */
    }
    return rc;
}

/* A rank that has not met the asker, or cannot tell by whom messages came, answers for a later change of
 * route: the asker then waits for its own drain. */
static void take_question(sv_endpoint_t *endpoint, const struct message *m)
{
    const bool tells = !sv_arrivals_blurred() && (0 == m->size || endpoint->openib || endpoint->received_before);
    if (endpoint->answers) { /* of a change of route that has been undone: any answer will do */
        endpoint->answers_at = 0;
        answer_passed();
    }
    endpoint->answers = true;
    endpoint->answers_at = tells ? m->size : 0;
    endpoint->answers_flips = tells ? m->operand : UINT64_MAX;
    sv_remote_waiting++;
    answer_passed();
}

void sv_remote_received(mca_btl_base_module_t *module, mca_btl_base_tag_t tag, mca_btl_base_descriptor_t *descriptor,
                        void *data)
{
    struct message m;
    memcpy(&m, descriptor->des_segments[0].seg_addr.pval, sizeof(m));
    if (FENCE == m.op || GET == m.op || ATOMIC == m.op || HELLO == m.op || PASSED == m.op) {
        sv_endpoint_t *endpoint = sv_endpoint_known(m.sender); /* this rank may never have sent it anything */
        if (NULL == endpoint) {
            sv_error("one-sided request from rank %u, which Open MPI does not know", m.sender);
            abort(); /* its answer can never be given: the job would hang without a word */
        }
        if (PASSED == m.op) {
            take_question(endpoint, &m);
            return;
        }
        const bool put_first = GET == m.op;
        if (ATOMIC == m.op) {
            m.operand = apply(&m);
        }
        m.op++;
        m.sender = sv_proxy.rank;
        if (OPAL_SUCCESS != post(endpoint, &m, put_first)) {
            sv_error("cannot answer rank %u over tcp", endpoint->peer);
            abort();
        }
        return;
    }
    if (HELLO_DONE == m.op) {
        sv_remote_hellos--;
        sv_proxy.traffic[SV_VIA_TCP].outstanding--;
        return;
    }
    if (PASSED_DONE == m.op) {
        sv_proxy.traffic[SV_VIA_TCP].outstanding--;
        sv_endpoint_t *endpoint = sv_endpoint_of_rank(m.sender);
        if (endpoint) {
            sv_throttle_passed(endpoint, m.operand);
        }
        return;
    }
    struct sv_cookie *cookie = (struct sv_cookie *)(uintptr_t)m.cookie;
    if (ATOMIC_DONE == m.op) {
        give_result(&m);
    }
    done_here((void *)(uintptr_t)m.local, cookie);
}
