/* SPDX-License-Identifier: Apache-2.0 */
/* Proof that this process does not hold a card: openib's own return codes prove nothing (it skips
 * closing the verbs context after any earlier failure, btl_openib_component.c device_destruct). */
#ifndef SV_RELEASE_H
#define SV_RELEASE_H

#include <stddef.h>

/* Number of descriptors and mappings of verbs devices; the first ones are named in `what`. A list
 * that cannot be read counts as one. */
int sv_release_scan(char *what, size_t size);

#endif
