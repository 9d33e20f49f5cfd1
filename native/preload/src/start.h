/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The route a job begins on. openib only if every rank has a port: a rank whose machine has none yet
 * begins over tcp, and so do the others, as if the job had left its cards. It gets openib like any
 * job that runs over tcp, when the host tells it to.
 */
#ifndef SV_START_H
#define SV_START_H

#include <stdbool.h>

/* Tells the other ranks, at the modex, whether this one has a port. 0 or negative errno. */
int sv_start_announce(bool has_port);
/* After the modex: decides for all ranks alike. A rank whose port the others cannot use closes it. */
void sv_start_decide(void);

#endif
