/* SPDX-License-Identifier: Apache-2.0 */
/* Peers: one proxy endpoint for each, for the life of the job, over real endpoints that change. */
#include "proxy.h"

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

int sv_endpoint_add_procs(mca_btl_base_module_t *module, size_t count, opal_proc_t **procs, sv_endpoint_t **peers,
                          opal_bitmap_t *reachable)
{
    sv_endpoint_t **real = calloc(count, sizeof(*real));
    int rc = OPAL_SUCCESS;
    if (NULL == real) {
        return OPAL_ERR_OUT_OF_RESOURCE;
    }
    if (SV_VIA_OPENIB == sv_proxy.via) {
        rc = add_openib(count, procs, real, reachable);
    } else if (sv_proxy.tcp_count) {
        rc = sv_proxy.tcp[0]->btl_add_procs(sv_proxy.tcp[0], count, procs, real, reachable);
    }
    for (size_t i = 0; OPAL_SUCCESS == rc && i < count; i++) {
        if (NULL == real[i]) {
            continue;
        }
        sv_endpoint_t *e = calloc(1, sizeof(*e));
        if (NULL == e) {
            rc = OPAL_ERR_OUT_OF_RESOURCE;
            break;
        }
        e->proc = procs[i];
        e->peer = procs[i]->proc_name.vpid;
        e->owner_epoch = epoch_of(e->peer);
        e->via = sv_proxy.via;
        e->real = real[i];
        if (SV_VIA_OPENIB == e->via) {
            e->module = sv_proxy.openib;
            e->openib = real[i];
        } else {
            e->module = e->tcp_module = sv_proxy.tcp[0];
            e->tcp = real[i];
        }
        e->wants_openib = !sv_proxy.tcp_only;
        if (SV_VIA_TCP == e->via && sv_proxy.rebuilding) {
            add_openib(1, &e->proc, &e->openib, NULL); /* the others were connected just before */
        }
        e->next = sv_proxy.endpoints;
        sv_proxy.endpoints = e;
        peers[i] = e;
    }
    free(real);
    sv_proxy_copy_limits();
    return rc;
}

int sv_endpoint_del_procs(mca_btl_base_module_t *module, size_t count, opal_proc_t **procs, sv_endpoint_t **peers)
{
    for (size_t i = 0; i < count; i++) {
        sv_endpoint_t *e = peers[i];
        if (NULL == e) {
            continue;
        }
        if (e->openib && sv_proxy.openib) {
            sv_proxy.openib->btl_del_procs(sv_proxy.openib, 1, &e->proc, &e->openib);
        }
        if (e->tcp && sv_proxy.tcp_count) {
            e->tcp_module->btl_del_procs(e->tcp_module, 1, &e->proc, &e->tcp);
        }
        for (sv_endpoint_t **link = &sv_proxy.endpoints; *link; link = &(*link)->next) {
            if (*link == e) {
                *link = e->next;
                break;
            }
        }
        free(e);
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
            /* once per endpoint only: mca_btl_openib_proc_remove keeps its lock otherwise */
            sv_proxy.openib->btl_del_procs(sv_proxy.openib, 1, &e->proc, &e->openib);
            e->openib = NULL;
            e->wants_openib = true;
        }
    }
}

void sv_endpoint_route_all(int via)
{
    sv_proxy.via = via;
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        sv_endpoint_t *real = SV_VIA_OPENIB == via ? e->openib : e->tcp;
        if (real) {
            e->via = via;
            e->sent_at_flip = e->sent[via];
            e->real = real;
            e->module = SV_VIA_OPENIB == via ? sv_proxy.openib : e->tcp_module;
        }
    }
}
