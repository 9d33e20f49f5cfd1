/* SPDX-License-Identifier: Apache-2.0 */
/* openib's registration caches in a list of the test's own. */
#include "caches.h"
#include "check.h"
#include "opal_symbols.h"

static opal_list_t modules;
static opal_list_item_t vaders, openibs, second, late;

/* OBJ_CONSTRUCT without OPAL. */
static void begin(void)
{
    modules.opal_list_sentinel.opal_list_next = &modules.opal_list_sentinel;
    modules.opal_list_sentinel.opal_list_prev = &modules.opal_list_sentinel;
    sv_opal.rcache_modules = &modules;
}

static void add(opal_list_item_t *item)
{
    opal_list_append(&modules, item);
}

CASE(what_openib_has_left_is_taken_out)
{
    begin();
    add(&vaders);
    sv_caches_begin();
    add(&openibs);
    add(&second);
    sv_caches_end();
    add(&late); /* made by others while openib is there */
    opal_list_remove_item(&modules, &second); /* this one it has destroyed */
    CHECK_EQ(sv_caches_drop(), 1);
    CHECK(&vaders == opal_list_get_first(&modules));
    CHECK(&late == opal_list_get_last(&modules));
    CHECK_EQ(opal_list_get_size(&modules), 2);
    CHECK_EQ(sv_caches_drop(), 0);
}

CASE(of_an_empty_list_too)
{
    begin();
    sv_caches_begin();
    add(&openibs);
    sv_caches_end();
    CHECK_EQ(sv_caches_drop(), 1);
    CHECK_EQ(opal_list_get_size(&modules), 0);
}

CASE(nothing_was_left)
{
    begin();
    sv_caches_begin();
    add(&openibs);
    sv_caches_end();
    opal_list_remove_item(&modules, &openibs);
    CHECK_EQ(sv_caches_drop(), 0);
}
