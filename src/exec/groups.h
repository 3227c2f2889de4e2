/* exec/groups.h - the instances of a version: made of the instance groups of a configuration, and changed
 * to those of another one while the version serves (for exec/version only).
 *
 * What both configurations ask for goes on as it is. What is new is initialised before anything that is not
 * asked for any more ends, so there is no gap; a batch that runs is finished. The queue and the statistics
 * are the version's and do not notice.
 *
 * Threads: a loading thread, one at a time for each version.
 */
#ifndef TIS_EXEC_GROUPS_H
#define TIS_EXEC_GROUPS_H

#include "exec/version.h"

/* Gives v the instances that the groups of `config` ask for. On error it keeps those it has. Errors:
 * the plug-in's, from the initialisation of an instance. */
MUST_USE tis_error *groups_apply(struct tis_version *v, struct model_config *config);

/* Ends all instances. The last that happens to v's queue. */
void groups_end(struct tis_version *v);

#endif
