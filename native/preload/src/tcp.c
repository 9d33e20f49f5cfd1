/* SPDX-License-Identifier: Apache-2.0 */
/* The tcp modules: taken out of the PML's sight, connected only while they carry traffic (a
 * connected tcp endpoint makes every opal_progress poll libevent). */
#include "proxy.h"

#include <stdlib.h>
#include <string.h>

const opal_class_t *sv_tcp_classes[SV_TCP_CLASSES];
int sv_tcp_class_count;

bool sv_tcp_made_by_any(const opal_class_t *class)
{
    for (int i = 0; i < sv_tcp_class_count; i++) {
        if (sv_tcp_classes[i] == class) {
            return true;
        }
    }
    return false;
}

void sv_tcp_note_class(const opal_class_t *class)
{
    if (!sv_tcp_made_by_any(class) && sv_tcp_class_count < SV_TCP_CLASSES) {
        sv_tcp_classes[sv_tcp_class_count++] = class;
    }
}

static mca_btl_base_selected_module_t *taken[SV_MAX_TCP]; /* kept for the life of the process */

void sv_tcp_adopt(void)
{
    opal_list_t *list = sv_opal.modules_initialized;
    opal_list_item_t *item = opal_list_get_first(list);
    while (item != opal_list_get_end(list)) {
        opal_list_item_t *next = opal_list_get_next(item);
        mca_btl_base_selected_module_t *selected = (mca_btl_base_selected_module_t *)item;
        const bool is_tcp = 0 == strcmp(selected->btl_component->btl_version.mca_component_name, "tcp");
        if (is_tcp && selected->btl_module->btl_flags & MCA_BTL_FLAGS_BTL_PROGRESS_THREAD_ENABLED) {
            /* ob1 guards its matching against such a thread only if it sees the module */
            sv_warn("btl_tcp_progress_thread is set: this rank has no route over tcp");
        } else if (is_tcp && sv_proxy.tcp_count < SV_MAX_TCP) {
            taken[sv_proxy.tcp_count] = selected;
            sv_proxy.tcp[sv_proxy.tcp_count++] = selected->btl_module;
            opal_list_remove_item(list, item);
        }
        item = next;
    }
}

void sv_tcp_give_back(void)
{
    while (sv_proxy.tcp_count) {
        opal_list_append(sv_opal.modules_initialized, &taken[--sv_proxy.tcp_count]->super);
    }
}

int sv_tcp_connect(sv_endpoint_t *endpoint)
{
    for (int i = 0; NULL == endpoint->tcp && i < sv_proxy.tcp_count; i++) {
        mca_btl_base_module_t *tcp = sv_proxy.tcp[i];
        tcp->btl_add_procs(tcp, 1, &endpoint->proc, &endpoint->tcp, NULL);
        if (endpoint->tcp) {
            endpoint->tcp_module = tcp;
        }
    }
    return endpoint->tcp ? OPAL_SUCCESS : OPAL_ERR_UNREACH;
}

_Noreturn void sv_tcp_lost(const char *what, const sv_endpoint_t *endpoint)
{
    sv_error("%s to rank %u is lost: tcp does not reach it any more", what, endpoint->peer);
    abort();
}

void sv_tcp_disconnect_all(void)
{
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (e->tcp && SV_VIA_TCP != e->via) {
            e->tcp_module->btl_del_procs(e->tcp_module, 1, &e->proc, &e->tcp);
            e->tcp = NULL;
            e->tcp_module = NULL;
        }
    }
}
