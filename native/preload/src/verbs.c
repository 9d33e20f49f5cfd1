/* SPDX-License-Identifier: Apache-2.0 */
#include "verbs.h"

#include <dlfcn.h>
#include <stddef.h>

void *sv_verbs_real(const char *name)
{
    static void *verbs;
    /* openib is opened RTLD_LOCAL, so RTLD_NEXT alone may find nothing. */
    if (NULL == verbs) {
        verbs = dlopen("libibverbs.so.1", RTLD_NOLOAD | RTLD_LAZY);
    }
    if (NULL == verbs) {
        return NULL;
    }
    void *real = dlvsym(verbs, name, "IBVERBS_1.1");
    return real ? real : dlvsym(verbs, name, "IBVERBS_1.0");
}
