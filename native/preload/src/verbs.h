/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs library behind the functions this one interposes. It is not linked: a program without verbs stays so. */
#ifndef SV_VERBS_H
#define SV_VERBS_H

/* The real function, also where openib was opened RTLD_LOCAL. NULL: there is none. */
void *sv_verbs_real(const char *name);

#endif
