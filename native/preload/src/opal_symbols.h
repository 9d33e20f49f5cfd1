/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything used of libopen-pal, libmpi and libevent, resolved by name when an MPI rank selects its
 * BTLs. The preload must load into any program, so it may not refer to their symbols itself: an
 * undefined data symbol would end /bin/true (and mpirun -x also reaches wrapper scripts).
 */
#ifndef SV_OPAL_SYMBOLS_H
#define SV_OPAL_SYMBOLS_H

#include "opal_config.h"

#include "opal/mca/base/base.h"
#include "opal/mca/btl/base/base.h"
#include "opal/mca/btl/btl.h"
#include "opal/mca/event/event.h"
#include "opal/mca/pmix/pmix.h"
#include "opal/runtime/opal_progress.h"
#include "opal/util/proc.h"

struct sv_opal {
    int (*select)(bool, bool); /* the real mca_btl_base_select */
    mca_btl_active_message_callback_t *trigger;
    mca_base_framework_t *btl_framework;
    opal_list_t *modules_initialized;
    opal_list_t *rcache_modules;
    opal_pmix_base_module_t *pmix;
    opal_event_base_t **sync_event_base;
    int (*component_close)(const mca_base_component_t *, int);
    int (*convertor_pack)(struct opal_convertor_t *, struct iovec *, uint32_t *, size_t *);
    void (*progress)(void);
    int (*progress_register_lp)(opal_progress_callback_t);
    int (*progress_unregister)(opal_progress_callback_t);
    int (*progress_thread_pause)(const char *);
    int (*progress_thread_resume)(const char *);
    int (*var_group_find)(const char *, const char *, const char *);
    int (*var_group_deregister)(int);
    opal_proc_t *(*proc_local_get)(void);
    opal_proc_t *(**proc_for_name)(const opal_process_name_t);
    opal_class_t *value_class, *list_class;
    void (*class_initialize)(opal_class_t *);
    int (*event_base_loop)(opal_event_base_t *, int);
    /* libevent 2.1; NULL in older ones, then a bounded number of passes must do */
    int (*event_base_get_num_events)(opal_event_base_t *, unsigned int);
    int (*event_base_foreach_event)(opal_event_base_t *,
                                    int (*)(const opal_event_base_t *, const struct event *, void *), void *);
    void *(*event_get_callback_arg)(const struct event *);
    int (*event_del)(struct event *);
    int (*mpi_get_library_version)(char *, int *);
    const mca_base_component_t *selected_pml;
    const bool *thread_multiple;
};

extern struct sv_opal sv_opal;

/* 0, or -1 with the reason in `why`: a library or symbol is missing or has another size than this
 * was built for. `mca_btl_base_select` of the caller is always found if this is an MPI process. */
int sv_opal_resolve(char *why, size_t size);

/* The Open MPI release, e.g. "4.1.4"; empty if it cannot be told. */
void sv_opal_version(char *version, size_t size);

/* OBJ_NEW(opal_value_t) without referring to OPAL's data symbols. */
opal_value_t *sv_opal_new_value(void);
/* OBJ_RELEASE of one that nobody else holds. */
void sv_opal_free_value(opal_value_t *value);

#endif
