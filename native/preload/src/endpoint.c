/* SPDX-License-Identifier: Apache-2.0 */
/* Peers: one proxy endpoint for each, for the life of the job, over real endpoints that change. */
#include "arrivals.h"
#include "openib.h"
#include "proxy.h"
#include "start.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t *epochs; /* of every rank, also of those not met yet */

static uint32_t epoch_of(uint32_t rank)
{
    return epochs && rank < sv_proxy.world_size ? epochs[rank] : 1;
}

sv_endpoint_t *sv_endpoint_of_rank(uint32_t rank)
{
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (e->peer == rank) {
            return e;
        }
    }
    return NULL;
}

bool sv_endpoint_foreign(void)
{
    for (const sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (SV_FOREIGN == e->peer && e->proc) {
            return true;
        }
    }
    return false;
}

static sv_endpoint_t *foreign_endpoint(const opal_proc_t *proc)
{
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (SV_FOREIGN == e->peer && e->proc == proc) {
            return e;
        }
    }
    return NULL;
}

void sv_endpoint_set_epoch(uint32_t rank, uint32_t epoch)
{
    if (NULL == epochs) {
        epochs = calloc(sv_proxy.world_size, sizeof(*epochs));
        for (uint32_t i = 0; epochs && i < sv_proxy.world_size; i++) {
            epochs[i] = 1;
        }
    }
    if (epochs && rank < sv_proxy.world_size) {
        epochs[rank] = epoch;
    }
    sv_endpoint_t *endpoint = sv_endpoint_of_rank(rank);
    if (endpoint) {
        endpoint->owner_epoch = epoch;
    }
}

static int add_openib(size_t count, opal_proc_t **procs, sv_endpoint_t **real, opal_bitmap_t *reachable)
{
    return sv_proxy.openib->btl_add_procs(sv_proxy.openib, count, procs, real, reachable);
}

/* Where a peer that is met now is talked to. */
static int via_to(const opal_proc_t *proc)
{
    return SV_VIA_OPENIB == sv_proxy.via && proc->proc_name.jobid == sv_proxy.jobid &&
                   sv_ranks_has(&sv_proxy.away, proc->proc_name.vpid)
               ? SV_VIA_TCP
               : sv_proxy.via;
}

/* The endpoint of a peer that was here before, or was met by an order; else a new one. */
static sv_endpoint_t *endpoint_for(opal_proc_t *proc)
{
    const bool ours = proc->proc_name.jobid == sv_proxy.jobid;
    sv_endpoint_t *e = ours ? sv_endpoint_of_rank(proc->proc_name.vpid) : foreign_endpoint(proc);
    if (e) {
        e->proc = proc;
        return e;
    }
    e = calloc(1, sizeof(*e));
    if (e) {
        e->proc = proc;
        e->peer = ours ? proc->proc_name.vpid : SV_FOREIGN;
        e->owner_epoch = epoch_of(e->peer);
        e->next = sv_proxy.endpoints;
        sv_proxy.endpoints = e;
    }
    return e;
}

static void route(sv_endpoint_t *e, int via)
{
    e->via = via;
    e->sent_at_flip = e->sent[via];
    e->real = SV_VIA_OPENIB == via ? e->openib : e->tcp;
    e->module = SV_VIA_OPENIB == via ? sv_proxy.openib : e->tcp_module;
}

static void reach(opal_bitmap_t *reachable, size_t which)
{
    if (reachable && which / 64 < (size_t)reachable->array_size) {
        reachable->bitmap[which / 64] |= 1ull << which % 64;
    }
}

/* A peer that no card reaches (it has none, and no library of ours that would have said so) is reached by tcp for
 * good, as it would be without us: the PML does not see the tcp modules. */
static bool add_beside(opal_proc_t *proc, sv_endpoint_t **peer)
{
    sv_endpoint_t *e = sv_proxy.tcp_count && proc != sv_opal.proc_local_get() ? endpoint_for(proc) : NULL;
    if (NULL == e || OPAL_SUCCESS != sv_tcp_connect(e)) {
        return false;
    }
    e->wants_openib = false;
    route(e, SV_VIA_TCP);
    *peer = e;
    return true;
}

/* Adds those of the peers that are talked to that way. */
static int add_by(int via, size_t count, opal_proc_t **procs, sv_endpoint_t **peers, opal_bitmap_t *reachable)
{
    opal_proc_t **own = calloc(count, sizeof(opal_proc_t *));
    sv_endpoint_t **real = calloc(count, sizeof(*real));
    size_t *at = calloc(count, sizeof(*at)), n = 0;
    int rc = own && real && at ? OPAL_SUCCESS : OPAL_ERR_OUT_OF_RESOURCE;
    for (size_t i = 0; OPAL_SUCCESS == rc && i < count; i++) {
        if (via == via_to(procs[i])) {
            own[n] = procs[i];
            at[n++] = i;
        }
    }
    /* `reachable` counts from the first of the procs given: the PML's own only if none is left out */
    opal_bitmap_t *direct = n == count ? reachable : NULL;
    if (OPAL_SUCCESS == rc && n) {
        if (SV_VIA_OPENIB == via) {
            rc = add_openib(n, own, real, direct);
        } else if (sv_proxy.tcp_count) {
            rc = sv_proxy.tcp[0]->btl_add_procs(sv_proxy.tcp[0], n, own, real, direct);
        }
    }
    for (size_t i = 0; OPAL_SUCCESS == rc && i < n; i++) {
        mca_btl_base_module_t *tcp = sv_proxy.tcp[0];
        for (int m = 1; SV_VIA_TCP == via && NULL == real[i] && m < sv_proxy.tcp_count; m++) {
            tcp = sv_proxy.tcp[m]; /* not every module reaches every peer */
            tcp->btl_add_procs(tcp, 1, &own[i], &real[i], NULL);
        }
        if (NULL == real[i] && SV_VIA_OPENIB == via) {
            if (add_beside(own[i], &peers[at[i]])) {
                reach(reachable, at[i]);
            }
            continue;
        }
        if (NULL == real[i]) {
            continue;
        }
        sv_endpoint_t *e = endpoint_for(own[i]);
        if (NULL == e) {
            rc = OPAL_ERR_OUT_OF_RESOURCE;
            break;
        }
        if (SV_VIA_OPENIB == via) {
            e->openib = real[i];
        } else if (NULL == e->tcp) {
            e->tcp = real[i];
            e->tcp_module = tcp;
        }
        e->wants_openib = !sv_proxy.tcp_only;
        route(e, via);
        if (SV_VIA_TCP == via && NULL == e->openib && sv_proxy.rebuilding) {
            add_openib(1, &e->proc, &e->openib, NULL); /* the others were connected just before */
        }
        peers[at[i]] = e;
        reach(reachable, at[i]);
    }
    free(own);
    free(real);
    free(at);
    return rc;
}

int sv_endpoint_add_procs(mca_btl_base_module_t *module, size_t count, opal_proc_t **procs, sv_endpoint_t **peers,
                          opal_bitmap_t *reachable)
{
    if (sv_unlikely(sv_proxy.undecided)) {
        sv_start_decide();
    }
    int rc = add_by(SV_VIA_OPENIB, count, procs, peers, reachable);
    if (OPAL_SUCCESS == rc) {
        rc = add_by(SV_VIA_TCP, count, procs, peers, reachable);
    }
    sv_proxy_copy_limits();
    return rc;
}

void sv_endpoint_delete_openib(sv_endpoint_t *e)
{
    e->received_before += sv_arrivals_forget(e->openib);
    /* once per endpoint only: mca_btl_openib_proc_remove keeps its lock otherwise */
    sv_proxy.openib->btl_del_procs(sv_proxy.openib, 1, &e->proc, &e->openib);
    e->openib = NULL;
    e->wants_openib = true;
}

int sv_endpoint_del_procs(mca_btl_base_module_t *module, size_t count, opal_proc_t **procs, sv_endpoint_t **peers)
{
    for (size_t i = 0; i < count; i++) {
        sv_endpoint_t *e = peers[i];
        if (NULL == e) {
            continue;
        }
        if (e->openib && sv_proxy.openib) {
            sv_endpoint_delete_openib(e);
        }
        if (e->tcp && sv_proxy.tcp_count) {
            e->tcp_module->btl_del_procs(e->tcp_module, 1, &e->proc, &e->tcp);
            e->tcp = NULL;
        }
        e->wants_openib = false;
        e->proc = NULL; /* OPAL's may be freed now */
    }
    return OPAL_SUCCESS;
}

int sv_endpoint_connect_openib(char *why, size_t size)
{
    size_t count = 0, n = 0;
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        count += e->wants_openib && NULL == e->openib;
    }
    if (0 == count) {
        return 0;
    }
    opal_proc_t **procs = calloc(count, sizeof(*procs));
    sv_endpoint_t **real = calloc(count, sizeof(*real));
    sv_endpoint_t **mine = calloc(count, sizeof(*mine));
    int rc = procs && real && mine ? 0 : -ENOMEM;
    for (sv_endpoint_t *e = sv_proxy.endpoints; 0 == rc && e; e = e->next) {
        if (e->wants_openib && NULL == e->openib) {
            procs[n] = e->proc;
            mine[n++] = e;
        }
    }
    if (0 == rc && OPAL_SUCCESS != add_openib(n, procs, real, NULL)) {
        snprintf(why, size, "openib add_procs failed");
        rc = -EIO;
    }
    for (size_t i = 0; 0 == rc && i < n; i++) {
        mine[i]->openib = real[i];
        if (NULL == real[i]) {
            snprintf(why, size, "openib does not reach rank %u on the new card", mine[i]->peer);
            rc = -EHOSTUNREACH;
        }
    }
    free(procs);
    free(real);
    free(mine);
    return rc;
}

void sv_endpoint_disconnect_openib(void)
{
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (e->openib) {
            sv_endpoint_delete_openib(e);
        }
    }
}

uint64_t sv_endpoint_received(uint32_t rank)
{
    const sv_endpoint_t *e = sv_endpoint_of_rank(rank);
    return e ? e->received_before + (e->openib ? sv_arrivals_by(e->openib) : 0) : 0;
}

bool sv_endpoint_strangers(void)
{
    uint64_t claimed = 0;
    for (const sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        claimed += e->openib ? sv_arrivals_by(e->openib) : 0;
    }
    return claimed != sv_arrivals_present();
}

sv_endpoint_t *sv_endpoint_known(uint32_t rank)
{
    sv_endpoint_t *e = sv_endpoint_of_rank(rank);
    if (e && e->proc) {
        return e;
    }
    opal_proc_t *proc = rank < sv_proxy.world_size ? (*sv_opal.proc_for_name)((opal_process_name_t){
                                                         .jobid = sv_proxy.jobid, .vpid = rank})
                                                   : NULL;
    return proc ? endpoint_for(proc) : NULL;
}

int sv_endpoint_meet(const struct sv_ranks *peers, char *why, size_t size)
{
    for (uint32_t rank = 0; sv_proxy.openib && rank < sv_proxy.world_size; rank++) {
        sv_endpoint_t *e = sv_endpoint_of_rank(rank);
        if (rank == sv_proxy.rank || (peers && !sv_ranks_has(peers, rank)) || (e && e->openib)) {
            continue;
        }
        e = sv_endpoint_known(rank);
        if (NULL == e) {
            snprintf(why, size, "Open MPI knows no process of rank %u", rank);
            return -ESRCH;
        }
        /* returns the endpoint that openib has made for a call, if there is one; the PML gets ours when
         * it asks for that peer */
        if (OPAL_SUCCESS == add_openib(1, &e->proc, &e->openib, NULL) && e->openib) {
            e->wants_openib = true;
        }
    }
    return 0;
}

void sv_endpoint_route_all(int via)
{
    sv_proxy.via = via;
    memset(&sv_proxy.away, 0, sizeof(sv_proxy.away));
    sv_proxy.emulate_atomics = false;
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        /* This rank itself needs no tcp: what it asks of its own memory is done on the spot (remote.c). */
        if (SV_VIA_OPENIB == via ? NULL != e->openib : NULL != e->tcp || sv_endpoint_is_self(e)) {
            route(e, via);
        }
    }
}

void sv_endpoint_route(const struct sv_ranks *peers, int via)
{
    sv_proxy.emulate_atomics = SV_VIA_TCP == via;
    for (size_t i = 0; i < sizeof(peers->bits); i++) {
        if (SV_VIA_TCP == via) {
            sv_proxy.away.bits[i] |= peers->bits[i];
        } else {
            sv_proxy.away.bits[i] &= (unsigned char)~peers->bits[i];
        }
    }
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (sv_ranks_has(peers, e->peer) && (SV_VIA_OPENIB == via ? e->openib : e->tcp)) {
            route(e, via);
        }
    }
}
