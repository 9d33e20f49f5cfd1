/* SPDX-License-Identifier: Apache-2.0 */
/* openib's address card (modex): captured when openib publishes it, served to it from the board
 * after the first epoch. PMIx may keep the old value of a key that is put twice. */
#ifndef SV_MODEX_H
#define SV_MODEX_H

#include <stddef.h>
#include <stdint.h>

void sv_modex_interpose(void);
/* What openib published last; valid until its next publication. */
const void *sv_modex_own(size_t *size);
/* Sets what openib will read of a rank from now on. 0 or negative errno. */
int sv_modex_set_peer(uint32_t rank, const void *bytes, size_t size);

#endif
