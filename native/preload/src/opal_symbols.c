/* SPDX-License-Identifier: Apache-2.0 */
#include "opal_symbols.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sv_opal sv_opal;

struct wanted {
    void *slot;       /* a pointer-sized member of sv_opal */
    const char *name;
    size_t size;      /* of a data symbol as this was built for, 0 = do not check */
};

static int resolve(void *library, const char *library_name, const struct wanted *w, char *why, size_t size)
{
    void *address = dlsym(library, w->name);
    if (NULL == address) {
        snprintf(why, size, "%s has no %s", library_name, w->name);
        return -1;
    }
    if (w->size) {
        Dl_info info;
        ElfW(Sym) *symbol = NULL;
        if (0 == dladdr1(address, &info, (void **)&symbol, RTLD_DL_SYMENT) || NULL == symbol ||
            symbol->st_size != w->size) {
            snprintf(why, size, "%s in %s has %zu bytes, this build knows %zu", w->name, library_name,
                     symbol ? (size_t)symbol->st_size : (size_t)0, w->size);
            return -1;
        }
    }
    memcpy(w->slot, &address, sizeof(address));
    return 0;
}

int sv_opal_resolve(char *why, size_t size)
{
    const struct wanted pal_symbols[] = {
        {&sv_opal.select, "mca_btl_base_select", 0},
        {&sv_opal.trigger, "mca_btl_base_active_message_trigger",
         MCA_BTL_TAG_MAX * sizeof(mca_btl_active_message_callback_t)},
        {&sv_opal.btl_framework, "opal_btl_base_framework", sizeof(mca_base_framework_t)},
        {&sv_opal.modules_initialized, "mca_btl_base_modules_initialized", sizeof(opal_list_t)},
        {&sv_opal.rcache_modules, "mca_rcache_base_modules", sizeof(opal_list_t)},
        {&sv_opal.pmix, "opal_pmix", sizeof(opal_pmix_base_module_t)},
        {&sv_opal.sync_event_base, "opal_sync_event_base", sizeof(void *)},
        {&sv_opal.component_close, "mca_base_component_close", 0},
        {&sv_opal.convertor_pack, "opal_convertor_pack", 0},
        {&sv_opal.progress, "opal_progress", 0},
        {&sv_opal.progress_register_lp, "opal_progress_register_lp", 0},
        {&sv_opal.progress_unregister, "opal_progress_unregister", 0},
        {&sv_opal.progress_thread_pause, "opal_progress_thread_pause", 0},
        {&sv_opal.progress_thread_resume, "opal_progress_thread_resume", 0},
        {&sv_opal.var_group_find, "mca_base_var_group_find", 0},
        {&sv_opal.var_group_deregister, "mca_base_var_group_deregister", 0},
        {&sv_opal.proc_local_get, "opal_proc_local_get", 0},
        {&sv_opal.proc_for_name, "opal_proc_for_name", sizeof(void *)},
        {&sv_opal.value_class, "opal_value_t_class", sizeof(opal_class_t)},
        {&sv_opal.list_class, "opal_list_t_class", sizeof(opal_class_t)},
        {&sv_opal.class_initialize, "opal_class_initialize", 0},
    };
    const struct wanted mpi_symbols[] = {
        {&sv_opal.mpi_get_library_version, "MPI_Get_library_version", 0},
        {&sv_opal.selected_pml, "mca_pml_base_selected_component", 0},
        {&sv_opal.thread_multiple, "ompi_mpi_thread_multiple", sizeof(bool)},
    };
    void *pal = dlopen("libopen-pal.so.40", RTLD_NOLOAD | RTLD_LAZY);
    void *mpi = dlopen("libmpi.so.40", RTLD_NOLOAD | RTLD_LAZY);
    if (NULL == pal || NULL == mpi) {
        snprintf(why, size, "libopen-pal.so.40 or libmpi.so.40 is not loaded");
        return -1;
    }
    for (size_t i = 0; i < sizeof(pal_symbols) / sizeof(pal_symbols[0]); i++) {
        if (resolve(pal, "libopen-pal.so.40", &pal_symbols[i], why, size)) {
            return -1;
        }
    }
    for (size_t i = 0; i < sizeof(mpi_symbols) / sizeof(mpi_symbols[0]); i++) {
        if (resolve(mpi, "libmpi.so.40", &mpi_symbols[i], why, size)) {
            return -1;
        }
    }
    /* libopen-pal brings libevent, its own copy (renamed symbols) or the system's */
    void *event = dlopen("libevent_core-2.1.so.7", RTLD_NOLOAD | RTLD_LAZY);
    const char *loop = event ? "event_base_loop" : "opal_libevent2022_event_base_loop";
    void *address = dlsym(event ? event : pal, loop);
    if (NULL == address) {
        snprintf(why, size, "no %s", loop);
        return -1;
    }
    memcpy(&sv_opal.event_base_loop, &address, sizeof(address));
    const struct {
        const char *name;
        void *pointer;
    } of_libevent[] = {
        {"event_base_get_num_events", &sv_opal.event_base_get_num_events},
        {"event_base_foreach_event", &sv_opal.event_base_foreach_event},
        {"event_get_callback_arg", &sv_opal.event_get_callback_arg},
        {"event_del", &sv_opal.event_del},
    };
    for (size_t i = 0; i < sizeof(of_libevent) / sizeof(of_libevent[0]); i++) {
        address = event ? dlsym(event, of_libevent[i].name) : NULL;
        memcpy(of_libevent[i].pointer, &address, sizeof(address));
    }
    return 0;
}

void sv_opal_version(char *version, size_t size)
{
    char text[2048];
    int length = 0;
    const char *mark = "Open MPI v";
    version[0] = '\0';
    if (0 != sv_opal.mpi_get_library_version(text, &length)) {
        return;
    }
    const char *from = strstr(text, mark);
    if (from) {
        from += strlen(mark);
        size_t n = strspn(from, "0123456789.");
        if (n >= size) {
            n = size - 1;
        }
        memcpy(version, from, n);
        version[n] = '\0';
    }
}

opal_value_t *sv_opal_new_value(void)
{
    opal_class_t *class = sv_opal.value_class;
    if (NULL == class->cls_construct_array) {
        sv_opal.class_initialize(class); /* OBJ_NEW does the same at a class's first use */
    }
    opal_object_t *object = calloc(1, class->cls_sizeof);
    if (NULL == object) {
        return NULL;
    }
    object->obj_class = class;
    object->obj_reference_count = 1;
    for (opal_construct_t *construct = class->cls_construct_array; *construct; construct++) {
        (*construct)(object);
    }
    return (opal_value_t *)object;
}

void sv_opal_free_value(opal_value_t *value)
{
    opal_object_t *object = (opal_object_t *)value;
    for (opal_destruct_t *destruct = object->obj_class->cls_destruct_array; *destruct; destruct++) {
        (*destruct)(object);
    }
    free(object);
}
