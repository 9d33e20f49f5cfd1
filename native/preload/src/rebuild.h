/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building openib up again on the card there is now, in step with all other ranks over the board:
 * "blob" carries the address cards (modex), "handles" the live registrations. Both strategies go
 * through the same three parts; they differ in how they wait for the sets.
 */
#ifndef SV_REBUILD_H
#define SV_REBUILD_H

#include <stdbool.h>

/* The board key of a part in this attempt (several attempts may be made in one step). */
const char *sv_rebuild_key(const char *part);
/* Which attempt the following calls belong to, from 0. */
void sv_rebuild_attempt(unsigned attempt);

/* Each returns 0 or negative errno, with the reason in sv_status.detail. */

/* Loads openib in a new epoch and posts its address card, or the failure. */
int sv_rebuild_open(void);
/* Of a rank whose card stays open: posts that it has no new address card. 0 or negative errno. */
int sv_rebuild_keep(void);
/* When the "blob" set is complete: adds the peers without an endpoint, registers live memory again, posts the handles,
 * or the failure. `opened` is what sv_rebuild_open returned. */
int sv_rebuild_connect(int opened);
/* When the "handles" set is complete: from here on every peer can be reached over openib. */
int sv_rebuild_adopt(int connected);
/* Of a complete set "handles": some rank could not connect. */
bool sv_rebuild_handles_failed(void);
/* Posts whether this rank's endpoints are connected ("joined"); 0 or negative errno of the join. */
void sv_rebuild_post_joined(int error);
/* When the "joined" set is complete: 0 if every rank is connected. */
int sv_rebuild_joined(int joined);
/* Undoes open and connect: the card has no user in this process again. */
void sv_rebuild_take_back(void);

#endif
