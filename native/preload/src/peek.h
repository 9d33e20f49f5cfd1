/* SPDX-License-Identifier: Apache-2.0 */
/* Looks at memory of this process that may not be there: by the kernel, which says so. */
#ifndef SV_PEEK_H
#define SV_PEEK_H

#include <stdbool.h>
#include <stddef.h>

bool sv_peek(const void *address, void *room, size_t size);
/* Whether there is an OPAL object of the class with that name. The address may be anything. */
bool sv_is_of_class(const void *address, const char *name);

#endif
