/* SPDX-License-Identifier: Apache-2.0 */
#include "openib.h"

#include "arrivals.h"
#include "caches.h"
#include "ledger.h"
#include "registration.h"
#include "release.h"
#include "roce.h"
#include "udcm_timers.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char path[1024];
static void *library;
static mca_btl_base_component_t *component;
static mca_btl_base_module_t defaults;
static bool has_defaults;

int sv_openib_take_over(const mca_btl_base_component_t *stock, char *why, size_t size)
{
    Dl_info info;
    if (0 == dladdr(stock, &info) || NULL == info.dli_fname || strlen(info.dli_fname) >= sizeof(path)) {
        snprintf(why, size, "cannot tell where the openib component was loaded from");
        return -ENOENT;
    }
    strcpy(path, info.dli_fname);
    /* OPAL loads components RTLD_GLOBAL: a second copy beside it would bind to the first one's data. */
    sv_opal.component_close((const mca_base_component_t *)stock, -1);
    void *still = dlopen(path, RTLD_NOLOAD | RTLD_LAZY);
    if (still) {
        dlclose(still);
        snprintf(why, size, "%.900s stays loaded after its component was closed", path);
        return -EBUSY;
    }
    return 0;
}

static void close_component(void)
{
    component->btl_version.mca_close_component();
    /* The variables point into the library. With project NULL the group is not found and
     * MPI_Finalize crashes (mca_base_var.c). */
    const int group = sv_opal.var_group_find(component->btl_version.mca_project_name, "btl", "openib");
    if (group >= 0) {
        sv_opal.var_group_deregister(group);
    }
    component = NULL;
    if (sv_caches_drop()) {
        sv_warn("openib has not given up its registration cache; it was taken from it");
    }
}

static void release_what_is_left(void)
{
    char left[160];
    if (sv_ledger_release(left, sizeof(left))) {
        sv_info("openib had left open: %s", left);
    }
}

void sv_openib_unload(void)
{
    if (NULL == library) {
        return;
    }
    close_component();
    dlclose(library);
    library = NULL;
    release_what_is_left();
}

void sv_openib_end(void)
{
    if (NULL == library) {
        return;
    }
    close_component();
    /* Mapped it stays: OPAL's event base is run on until the end of MPI_Finalize, and a timer of udcm's that is
     * still in it must find its code. No epoch comes after this one. */
    library = NULL;
    release_what_is_left();
}

/* Every module begins as a copy of this one (btl_openib_component.c, init_one_port), whose limits are openib's
 * variables; a card only takes something away. */
static void learn_defaults(void)
{
    const mca_btl_base_module_t *template = dlsym(library, "mca_btl_openib_module");
    if (template) {
        defaults = *template;
        has_defaults = true;
    }
}

const mca_btl_base_module_t *sv_openib_defaults(void)
{
    return has_defaults ? &defaults : NULL;
}

int sv_openib_open(char *why, size_t size)
{
    library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    if (NULL == library) {
        snprintf(why, size, "dlopen: %s", dlerror());
        return -ELIBACC;
    }
    component = dlsym(library, "mca_btl_openib_component");
    if (NULL == component) {
        snprintf(why, size, "mca_btl_openib_component is not in %.900s", path);
        dlclose(library);
        library = NULL;
        return -ELIBBAD;
    }
    sv_roce_consider(false);
    sv_proxy.epoch++;
    if (OPAL_SUCCESS != component->btl_version.mca_register_component_params() ||
        OPAL_SUCCESS != component->btl_version.mca_open_component()) {
        snprintf(why, size, "openib's component does not open");
        sv_openib_unload();
        return -EIO;
    }
    learn_defaults();
    int count = 0;
    sv_ledger_begin();
    sv_caches_begin();
    mca_btl_base_module_t **modules = component->btl_init(&count, false, false);
    sv_caches_end();
    sv_ledger_end();
    if (NULL == modules || count < 1) {
        free(modules);
        snprintf(why, size, "openib found no usable port");
        sv_openib_unload();
        return -ENODEV;
    }
    sv_arrivals_attach();
    sv_proxy.openib = modules[0];
    sv_proxy.openib_progress = component->btl_progress;
    for (int i = 1; i < count; i++) {
        modules[i]->btl_finalize(modules[i]); /* btl_openib_max_btls 1 should have prevented it */
    }
    free(modules);
    if (sv_proxy.openib->btl_registration_handle_size > sizeof(((sv_handle_t *)0)->real)) {
        snprintf(why, size, "openib's registration handles have %zu bytes, more than this build knows",
                 sv_proxy.openib->btl_registration_handle_size);
        sv_proxy.openib->btl_finalize(sv_proxy.openib);
        sv_proxy.openib = NULL;
        sv_openib_unload();
        return -EOVERFLOW;
    }
    return 0;
}

/*
 * udcm leaves active events on the sync event base (btl_openib_connect_udcm.c: message events,
 * timeouts) that point into memory del_procs and finalize free: run the loop until the base has
 * none. The progress thread is paused, so no new ones come.
 */
static void run_out_events(void)
{
    enum { COUNT_ACTIVE = 1 /* EVENT_BASE_COUNT_ACTIVE of libevent 2.1 */, PASSES = 8, MOST = 10000 };
    opal_event_base_t *base = *sv_opal.sync_event_base;
    for (int i = 0; i < MOST; i++) {
        sv_opal.event_base_loop(base, OPAL_EVLOOP_NONBLOCK);
        if (sv_opal.event_base_get_num_events ? 0 == sv_opal.event_base_get_num_events(base, COUNT_ACTIVE)
                                              : i + 1 >= PASSES) {
            return;
        }
    }
    sv_warn("the event base is not quiet after %d passes", MOST);
}

/*
 * openib keeps what it knows of a peer (its address card, mca_btl_openib_proc_t) in a list of its component
 * for good, looked up by the OPAL proc (btl_openib_proc.c); asked for that peer again it would call its
 * old card. So the entry is taken out: the list is found in the component by its class, the entry by
 * its own and by the proc it points to; no private header. It is left to the component's memory: its
 * endpoint has been deleted, its few hundred bytes stay until the library is closed.
 */
static bool forget_proc(const opal_proc_t *proc)
{
    enum { FIRST = sizeof(opal_list_item_t) / sizeof(void *), LAST = 12 };
    Dl_info info;
    ElfW(Sym) *symbol = NULL;
    if (0 == dladdr1(component, &info, (void **)&symbol, RTLD_DL_SYMENT) || NULL == symbol) {
        return false;
    }
    char *const from = (char *)component + sizeof(mca_btl_base_component_t);
    for (char *at = from; at + sizeof(opal_list_t) <= (char *)component + symbol->st_size; at += sizeof(void *)) {
        opal_list_t *list = (opal_list_t *)(void *)at;
        if (((opal_object_t *)list)->obj_class != sv_opal.list_class) {
            continue;
        }
        opal_list_item_t *item;
        OPAL_LIST_FOREACH(item, list, opal_list_item_t) {
            void *const *words = (void *const *)(void *)item;
            if (0 != strcmp(((opal_object_t *)item)->obj_class->cls_name, "mca_btl_openib_proc_t")) {
                break;
            }
            for (int i = FIRST; i < LAST; i++) {
                if (words[i] == proc) {
                    opal_list_remove_item(list, item);
                    return true;
                }
            }
        }
    }
    return false;
}

int sv_openib_drop(const struct sv_ranks *peers, char *why, size_t size)
{
    if (NULL == sv_proxy.openib) {
        return 0;
    }
    const bool paused = OPAL_SUCCESS == sv_opal.progress_thread_pause(NULL);
    run_out_events();
    int rc = sv_endpoint_meet(peers, why, size);
    for (sv_endpoint_t *e = sv_proxy.endpoints; e; e = e->next) {
        if (NULL == e->openib || e->peer == sv_proxy.rank || !sv_ranks_has(peers, e->peer)) {
            continue;
        }
        sv_udcm_timers_end(e->openib);
        sv_endpoint_delete_openib(e);
        if (!forget_proc(e->proc) && 0 == rc) {
            snprintf(why, size, "openib has no record of rank %u that could be taken out", e->peer);
            rc = -ENOENT;
        }
    }
    if (paused) {
        sv_opal.progress_thread_resume(NULL);
    }
    return rc;
}

void sv_openib_finalize(void)
{
    if (NULL == sv_proxy.openib) {
        return;
    }
    const bool paused = OPAL_SUCCESS == sv_opal.progress_thread_pause(NULL);
    run_out_events();
    sv_proxy.openib->btl_finalize(sv_proxy.openib);
    sv_proxy.openib = NULL;
    if (paused) {
        sv_opal.progress_thread_resume(NULL);
    }
}

int sv_openib_close(char *why, size_t size, int *open_count)
{
    if (sv_proxy.openib) {
        const bool paused = OPAL_SUCCESS == sv_opal.progress_thread_pause(NULL);
        run_out_events();
        sv_registration_drop_all();
        if (sv_endpoint_strangers() && sv_endpoint_meet(NULL, why, size)) {
            sv_warn("%s", why); /* blurs the counts by peer, see sv_arrivals_forget_all */
        }
        sv_endpoint_disconnect_openib();
        sv_arrivals_forget_all();
        sv_proxy.openib->btl_finalize(sv_proxy.openib);
        sv_proxy.openib = NULL;
        sv_openib_unload();
        if (paused) {
            sv_opal.progress_thread_resume(NULL);
        }
    }
    *open_count = sv_release_scan(why, size);
    return *open_count ? -EBUSY : 0;
}
