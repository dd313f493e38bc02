# The policy of an image that was built without one: every request is refused.
# Initdata may bring another policy; so may an image built with --policy.
package agent_policy

default AllowRequestsFailingPolicy := false
