// Package scriptedecs plays Amazon ECS behind the real AWS SDK, for what no emulator shows: a rollout that takes its
// time or fails, the deployment circuit breaker and its rollback, a client token that is used again, a service that
// drains, a name that is taken, capacity that is not there, throttling, answers that get lost, and everything that is
// only eventually consistent.
//
// # What a workload does
//
// Its image says it, so that neither a test nor a worker process needs a side channel: bellhop.test/exits:1 exits. The
// names are in [Workloads]; any other image becomes ready. What takes ECS 5 to 30 seconds takes one [Options.Step].
//
// # Where it comes from
//
// The names and types on the wire are the SDK's own: a request is read into the SDK's types, and an answer is written by its
// implementation of the protocol. So a field cannot be misspelt here, and whether the SDK's idea of the wire is AWS's is
// for an emulator to show, not for this package. What is done and said is what the API reference, the developer guide and
// the sources of tools that deploy to ECS tell. Where they leave it open, this package does what is harder on its
// caller: a service deployment's record appears later than the deployment, and has an id of its own.
//
// # What it does not play
//
// Load balancers, service discovery, volumes, container instances, daemons, task sets, deployments other than rolling
// ones, and alarms: such parameters are kept and told again. Nobody is authenticated or authorized, except that an action
// can be denied ([Server.Deny]); who called is recorded. Pages of lists don't expire, and a service's client token is
// forgotten with its service.
//
// Beside ECS it answers for STS (AssumeRole), CloudWatch Logs (GetLogEvents: what the workloads printed) and SQS
// (ReceiveMessage, DeleteMessage, DeleteMessageBatch: ECS's events, as EventBridge puts them into a queue).
package scriptedecs
