/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RoCE for an openib built with the udcm connection manager only (Debian's): udcm refuses Ethernet
 * link layers. The verbs calls openib makes are adapted so that a RoCE port looks like an
 * InfiniBand one whose LID is the low half of its IPv4 address; so the fabric must be one IPv4
 * subnet of /16 or smaller. SYMVIRT_ROCE=on|off overrides the default: on only where openib has no
 * rdmacm, and only for Ethernet ports.
 */
#ifndef SV_ROCE_H
#define SV_ROCE_H

#include <stdbool.h>

/* Decides for the openib library that is loaded. Adapted are only the devices that it opens (ledger.h), or all: for a
 * stock openib, of which nobody keeps a ledger. */
void sv_roce_consider(bool all_devices);
bool sv_roce_on(void);

#endif
