/* exec/host_policy.h - where the threads of instances run: processors and memory node.
 *
 * A host policy is a name with settings, from --host-policy=NAME,KEY=VALUE. An instance has the one that
 * its group names, else "cpu", "gpu_<id>" or "model" by its kind; a name without settings leaves
 * everything as it is. A runner applies its policy to its own thread before the plug-in hears of the
 * instance, so the threads and the memory of an engine follow.
 *
 * Settings, as in Triton: cpu-cores=0-3,8 and numa-node=0. A node alone stands for its processors
 * too. What the process may not use (its cpuset, taskset) is left out.
 *
 * Threads: create, destroy: the main thread. Everything else: any, the policies are constant.
 */
#ifndef TIS_EXEC_HOST_POLICY_H
#define TIS_EXEC_HOST_POLICY_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"

/* One --host-policy. */
struct host_policy_setting {
    const char *policy;
    const char *key;
    const char *value;
};

struct host_policy;
struct host_policies;

/* The strings are the caller's and must live as long.
 *   system_directory  /sys/devices/system; another place for tests
 * Errors: INVALID_ARG  an unknown key; a processor or node that this machine does not have; one that
 *                      leaves nothing of what the process may use */
MUST_USE tis_error *host_policies_create(const struct host_policy_setting *settings, uint32_t count,
                                         const char *system_directory,
                                         struct host_policies **ret_policies);
/* NULL is fine. */
void host_policies_destroy(struct host_policies *policies);

/* NULL: the name has no settings. `policies` may be NULL. */
const struct host_policy *host_policies_find(const struct host_policies *policies,
                                             const char *name);

/* Appends what plug-ins are told, {"NAME":{"cpu-cores":"0-3"}}; p may be NULL. */
void host_policy_append_json(struct bytes *out, const char *name, const struct host_policy *p);

/* Appends " cores=0-3 node=0", what there is of it, for the log; p may be NULL. */
void host_policy_describe(struct bytes *out, const struct host_policy *p);

/* Moves the calling thread. The kernel may refuse (the cpuset has changed, say): the thread then runs where
 * it was. p may be NULL. Errors: what the kernel said. */
MUST_USE tis_error *host_policy_apply(const struct host_policy *p);

#endif
