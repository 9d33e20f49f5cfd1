/* SPDX-License-Identifier: Apache-2.0 */
#include "openib.h"

#include "registration.h"
#include "release.h"
#include "roce.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char path[1024];
static void *library;
static mca_btl_base_component_t *component;

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

void sv_openib_unload(void)
{
    if (NULL == library) {
        return;
    }
    component->btl_version.mca_close_component();
    /* The variables point into the library. With project NULL the group is not found and
     * MPI_Finalize crashes (mca_base_var.c). */
    const int group = sv_opal.var_group_find(component->btl_version.mca_project_name, "btl", "openib");
    if (group >= 0) {
        sv_opal.var_group_deregister(group);
    }
    component = NULL;
    dlclose(library);
    library = NULL;
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
    sv_roce_consider(library);
    sv_proxy.epoch++;
    if (OPAL_SUCCESS != component->btl_version.mca_register_component_params() ||
        OPAL_SUCCESS != component->btl_version.mca_open_component()) {
        snprintf(why, size, "openib's component does not open");
        sv_openib_unload();
        return -EIO;
    }
    int count = 0;
    mca_btl_base_module_t **modules = component->btl_init(&count, false, false);
    if (NULL == modules || count < 1) {
        free(modules);
        snprintf(why, size, "openib found no usable port");
        sv_openib_unload();
        return -ENODEV;
    }
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

int sv_openib_close(char *why, size_t size, int *open_count)
{
    if (sv_proxy.openib) {
        const bool paused = OPAL_SUCCESS == sv_opal.progress_thread_pause(NULL);
        run_out_events();
        sv_registration_drop_all();
        sv_endpoint_disconnect_openib();
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
