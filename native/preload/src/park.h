/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strategy park (the SymVirt paper's): the rank drains, tears openib down and is held at its safe
 * point until a want lets it run again.
 */
#ifndef SV_PARK_H
#define SV_PARK_H

#include "agent_link.h"

/* Obeys a PARK want. Returns when the rank runs again: after the hold, or at once because a newer
 * want came (or no agent for a minute) before anything was given up. */
void sv_park(const struct sv_want *want);

#endif
