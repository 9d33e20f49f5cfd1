/* SPDX-License-Identifier: Apache-2.0 */
#include "peek.h"

#include "opal_symbols.h"

#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

bool sv_peek(const void *address, void *room, size_t size)
{
    const struct iovec to = {room, size}, from = {(void *)(uintptr_t)address, size};
    return (ssize_t)size == process_vm_readv(getpid(), &to, 1, &from, 1, 0);
}

bool sv_is_of_class(const void *address, const char *name)
{
    const opal_class_t *class;
    const char *class_name;
    char text[64] = "";
    const size_t size = strlen(name) + 1;
    return size <= sizeof(text) && address && 0 == (uintptr_t)address % sizeof(void *) &&
           sv_peek((const char *)address + offsetof(opal_object_t, obj_class), &class, sizeof(class)) &&
           sv_peek((const char *)class + offsetof(opal_class_t, cls_name), &class_name, sizeof(class_name)) &&
           sv_peek(class_name, text, size) && 0 == memcmp(text, name, size);
}
