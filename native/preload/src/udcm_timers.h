/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of udcm that are not answered yet, to a peer whose openib endpoint is about to be deleted while the
 * module stays. udcm has a timer for each; neither the endpoint nor its connection data takes it away
 * (udcm_endpoint_finalize), so half a second later it would look into the endpoint that is gone.
 */
#ifndef SV_UDCM_TIMERS_H
#define SV_UDCM_TIMERS_H

/* Ends those of that endpoint of openib's. The progress thread must be paused. Needs libevent 2.1; with an
 * older one nothing is done. Returns how many there were. */
int sv_udcm_timers_end(const void *openib_endpoint);

#endif
