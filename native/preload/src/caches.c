/* SPDX-License-Identifier: Apache-2.0 */
#include "caches.h"

#include "opal_symbols.h"

enum { MOST = 16 }; /* cards in a VM */
static opal_list_item_t *openibs[MOST], *last;
static int count;

void sv_caches_begin(void)
{
    count = 0;
    last = opal_list_get_last(sv_opal.rcache_modules); /* modules are appended; of an empty list: its sentinel */
}

void sv_caches_end(void)
{
    for (opal_list_item_t *item = opal_list_get_next(last);
         count < MOST && item != opal_list_get_end(sv_opal.rcache_modules); item = opal_list_get_next(item)) {
        openibs[count++] = item;
    }
}

int sv_caches_drop(void)
{
    opal_list_item_t *item, *next;
    int dropped = 0;
    OPAL_LIST_FOREACH_SAFE(item, next, sv_opal.rcache_modules, opal_list_item_t) {
        for (int i = 0; i < count; i++) {
            if (openibs[i] == item) {
                opal_list_remove_item(sv_opal.rcache_modules, item);
                dropped++;
                break;
            }
        }
    }
    count = 0;
    return dropped;
}
