/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registration caches of openib. Its device_destruct (btl_openib_component.c) gives up at the first verbs
 * object that cannot be destroyed, and its cache then stays among OPAL's (rcache_base_create.c): every free() of
 * the application and at last MPI_Finalize (rcache_base_frame.c) would call it, and it would call openib's
 * code and read openib's registrations, all of which are gone.
 */
#ifndef SV_CACHES_H
#define SV_CACHES_H

/* Caches that are made between these two are openib's, one a card. */
void sv_caches_begin(void);
void sv_caches_end(void);
/* Takes those of openib's caches that are still there from OPAL's list. Their memory, some ten KiB each, is left:
 * to free it is to run code that reads what openib has freed already. Returns how many there were. */
int sv_caches_drop(void);

#endif
