/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one function of Open MPI that is interposed: mca_btl_base_select. Before the real one runs,
 * the stock openib component is closed and its list entry taken by the proxy component, whose
 * btl_init loads openib itself; after it, tcp's modules are taken out of the PML's sight. Anything
 * that is not as this build knows it leaves the process as it was (inert).
 */
#include "cycle.h"
#include "modex.h"
#include "agent_link.h"
#include "openib.h"
#include "proxy.h"
#include "roce.h"
#include "start.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SV_EXPORT __attribute__((visibility("default")))

int mca_btl_base_select(bool enable_progress_threads, bool enable_mpi_threads);

static char openib_problem[256];

static mca_btl_base_component_t *find_component(const char *name, mca_base_component_list_item_t **item)
{
    mca_base_component_list_item_t *cli;
    OPAL_LIST_FOREACH(cli, &sv_opal.btl_framework->framework_components, mca_base_component_list_item_t) {
        if (0 == strcmp(cli->cli_component->mca_component_name, name)) {
            *item = cli;
            return (mca_btl_base_component_t *)cli->cli_component;
        }
    }
    return NULL;
}

static uint32_t number_from(const char *name, uint32_t otherwise)
{
    const char *text = getenv(name);
    return text ? (uint32_t)strtoul(text, NULL, 10) : otherwise;
}

/* NULL, or why this process is left alone. */
static const char *unsuitable(char *room, size_t size, char *version, size_t version_size)
{
    const char *disable = getenv("SYMVIRT_DISABLE");
    if (disable && *disable && 0 != strcmp(disable, "0")) {
        return "SYMVIRT_DISABLE is set";
    }
    if (!sv_link_available()) {
        return "there is no symvirt agent in this machine";
    }
    sv_opal_version(version, version_size);
    if (0 != strcmp(version, "4.1.4") && 0 != strcmp(version, "4.1.5") && 0 != strcmp(version, "4.1.6")) {
        snprintf(room, size, "Open MPI %s, this build knows 4.1.4 to 4.1.6", *version ? version : "of unknown version");
        return room;
    }
    if (*sv_opal.thread_multiple) {
        return "the application asked for MPI_THREAD_MULTIPLE";
    }
    return NULL;
}

static mca_btl_base_module_t **proxy_init(int *count, bool enable_progress_threads, bool enable_mpi_threads)
{
    mca_btl_base_module_t **modules = calloc(1, sizeof(*modules));
    *count = 0;
    if (NULL == modules) {
        return NULL;
    }
    const int rc = sv_openib_open(openib_problem, sizeof(openib_problem));
    if (rc && (-ENODEV != rc || NULL == sv_openib_defaults())) {
        free(modules);
        return NULL; /* select closes the component, as it does with stock openib then */
    }
    /* Without a port: the job begins over tcp, if there is that. */
    sv_proxy.via = SV_VIA_OPENIB;
    sv_proxy_build(sv_proxy.openib ? sv_proxy.openib : sv_openib_defaults(), &sv_proxy.component);
    sv_proxy.polling = NULL != sv_proxy.openib;
    modules[0] = &sv_proxy.module;
    *count = 1;
    return modules;
}

static int proxy_close(void)
{
    sv_openib_end();
    return OPAL_SUCCESS;
}

/* The proxy's module where the PML looks; NULL when it is not there. */
static mca_btl_base_selected_module_t *proxied(void)
{
    mca_btl_base_selected_module_t *selected;
    OPAL_LIST_FOREACH(selected, sv_opal.modules_initialized, mca_btl_base_selected_module_t) {
        if (&sv_proxy.module == selected->btl_module) {
            return selected;
        }
    }
    return NULL;
}

/* Takes it out of the PML's sight again. */
static void withdraw(void)
{
    mca_btl_base_selected_module_t *selected = proxied();
    if (selected) {
        opal_list_remove_item(sv_opal.modules_initialized, &selected->super);
        free(selected);
    }
}

static int select_over_openib(bool progress_threads, bool mpi_threads, const char *version)
{
    char why[256];
    mca_base_component_list_item_t *item = NULL;
    mca_btl_base_component_t *stock = find_component("openib", &item);
    if (NULL == stock) {
        sv_cycle_inert("openib is not among this job's BTLs");
        return sv_opal.select(progress_threads, mpi_threads);
    }
    if (stock->btl_version.mca_type_major_version != 3 || stock->btl_version.mca_type_minor_version != 1) {
        sv_cycle_inert("the BTL interface is not 3.1");
        return sv_opal.select(progress_threads, mpi_threads);
    }
    sv_proxy.component = *stock;
    sv_proxy.component.btl_version.mca_open_component = NULL;
    sv_proxy.component.btl_version.mca_register_component_params = NULL;
    sv_proxy.component.btl_version.mca_close_component = proxy_close;
    sv_proxy.component.btl_init = proxy_init;
    sv_proxy.component.btl_progress = sv_proxy_progress;
    /* One proxy stands for one port. Read when the component registers its variables. */
    setenv("OMPI_MCA_btl_openib_max_btls", "1", 0);
    /* udcm ends the job when a call stays unanswered for that many half seconds (25 by default,
     * btl_openib_connect_udcm.c): longer than a re-init waits, also for a rank that computes; it then gives
     * the card up instead. */
    setenv("OMPI_MCA_btl_openib_connect_udcm_max_retry", "240", 0);
    if (sv_openib_take_over(stock, why, sizeof(why))) {
        /* The stock component is closed already: without openib the job would silently change its
         * network, so say it loud. */
        sv_error("%s; running without openib", why);
        opal_list_remove_item(&sv_opal.btl_framework->framework_components, &item->super);
        sv_cycle_inert(why);
        return sv_opal.select(progress_threads, mpi_threads);
    }
    item->cli_component = (const mca_base_component_t *)&sv_proxy.component;
    sv_modex_interpose();
    const int rc = sv_opal.select(progress_threads, mpi_threads);
    if (OPAL_SUCCESS == rc && NULL == proxied()) {
        snprintf(why, sizeof(why), "openib does not begin: %.200s", openib_problem);
        sv_cycle_inert(why);
        return rc;
    }
    if (OPAL_SUCCESS == rc) {
        sv_tcp_adopt();
    }
    if (NULL == sv_proxy.openib && (0 == sv_proxy.tcp_count || sv_start_announce(false))) {
        withdraw();
        sv_tcp_give_back();
        snprintf(why, sizeof(why), "no openib module: %.200s", openib_problem);
        sv_cycle_inert(why);
        return rc;
    }
    if (OPAL_SUCCESS == rc) {
        /* Unsaid, the others take it for granted that this rank has one. */
        if (sv_proxy.openib && sv_start_announce(true)) {
            sv_warn("the other ranks could not be told of the port");
        }
        sv_proxy.undecided = true;
        sv_cycle_prepare(version);
        sv_opal.progress_register_lp(sv_proxy_safe_point);
    }
    return rc;
}

/* SYMVIRT_PROXY=tcp: the proxy over tcp alone, for tests and measurements on machines without a card. */
static int select_over_tcp(bool progress_threads, bool mpi_threads, const char *version)
{
    const int rc = sv_opal.select(progress_threads, mpi_threads);
    mca_btl_base_selected_module_t *selected;
    if (OPAL_SUCCESS != rc) {
        return rc;
    }
    OPAL_LIST_FOREACH(selected, sv_opal.modules_initialized, mca_btl_base_selected_module_t) {
        if (0 != strcmp(selected->btl_component->btl_version.mca_component_name, "tcp")) {
            continue;
        }
        sv_proxy.tcp_only = true;
        sv_proxy.via = SV_VIA_TCP;
        sv_proxy.epoch = 1;
        sv_proxy.tcp[sv_proxy.tcp_count++] = selected->btl_module;
        sv_proxy.component = *selected->btl_component;
        sv_proxy.component.btl_progress = sv_proxy_progress;
        sv_proxy_build(selected->btl_module, selected->btl_component);
        selected->btl_module = &sv_proxy.module;
        sv_cycle_prepare(version);
        sv_opal.progress_register_lp(sv_proxy_safe_point);
        return rc;
    }
    sv_cycle_inert("tcp is not among this job's BTLs");
    return rc;
}

SV_EXPORT int mca_btl_base_select(bool enable_progress_threads, bool enable_mpi_threads)
{
    char room[256], version[32] = "";
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    const char *proxy = secure_getenv("SYMVIRT_PROXY");
    sv_log_open(rank ? atoi(rank) : -1);
    if (sv_opal_resolve(room, sizeof(room))) {
        sv_info("inert: %s", room);
        if (NULL == sv_opal.select) {
            sv_opal.select = (int (*)(bool, bool))dlsym(RTLD_NEXT, "mca_btl_base_select");
        }
        if (NULL == sv_opal.select) {
            sv_error("the real mca_btl_base_select is not to be found");
            return OPAL_ERR_NOT_FOUND;
        }
        return sv_opal.select(enable_progress_threads, enable_mpi_threads);
    }
    if (NULL == rank) {
        sv_info("inert: not started by mpirun");
        return sv_opal.select(enable_progress_threads, enable_mpi_threads);
    }
    sv_proxy.rank = number_from("OMPI_COMM_WORLD_RANK", 0);
    sv_proxy.world_size = number_from("OMPI_COMM_WORLD_SIZE", 1);
    sv_proxy.local_rank = number_from("OMPI_COMM_WORLD_LOCAL_RANK", 0);
    const opal_proc_t *self = sv_opal.proc_local_get();
    sv_proxy.jobid = self ? self->proc_name.jobid : OPAL_JOBID_INVALID;
    const char *why = unsuitable(room, sizeof(room), version, sizeof(version));
    if (why) {
        sv_cycle_inert(why);
        return sv_opal.select(enable_progress_threads, enable_mpi_threads);
    }
    if (proxy && 0 == strcmp(proxy, "none")) {
        /* Stock openib, made to work over RoCE where it does not by itself: what to compare the proxy with. */
        sv_roce_consider(true);
        sv_cycle_inert("SYMVIRT_PROXY is none");
        return sv_opal.select(enable_progress_threads, enable_mpi_threads);
    }
    if (proxy && 0 == strcmp(proxy, "tcp")) {
        return select_over_tcp(enable_progress_threads, enable_mpi_threads, version);
    }
    return select_over_openib(enable_progress_threads, enable_mpi_threads, version);
}
