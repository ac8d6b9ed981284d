package main

import (
	"time"

	"go.temporal.io/server/common/dynamicconfig"
)

// unlimited stands for "no limit" where 0 means "the default" to the server.
// It is far above what one machine can do.
const unlimited = 1_000_000

// dynamicConfig adapts the server's defaults, which are meant for a share of a
// cluster with many tenants, to one machine with one user.
func dynamicConfig() dynamicconfig.StaticClient {
	return dynamicconfig.StaticClient{
		// Requests. A burst of operations on one machine comes from the one user
		// who wants it; refusing it would only make the SDK repeat it later.
		dynamicconfig.FrontendRPS.Key():                           unlimited,
		dynamicconfig.FrontendMaxNamespaceRPSPerInstance.Key():    unlimited,
		dynamicconfig.HistoryRPS.Key():                            unlimited,
		dynamicconfig.MatchingRPS.Key():                           unlimited,
		dynamicconfig.FrontendGlobalWorkerDeploymentReadRPS.Key(): unlimited,
		// Listing workflows: the default is 10 a second, which a user interface
		// and one test exceed together.
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): unlimited,
		// Creating namespaces and search attributes: the default is 1 a second for
		// each namespace, and tests create their own.
		dynamicconfig.FrontendNamespaceReplicationInducingAPIsRPS.Key():                        unlimited,
		dynamicconfig.FrontendMaxNamespaceNamespaceReplicationInducingAPIsRPSPerInstance.Key(): unlimited,
		// Long polls and queries at the same time (despite the key's name,
		// frontend.namespaceCount): the default of 1,200 is less than a benchmark
		// with many waiting callers needs.
		dynamicconfig.FrontendMaxConcurrentLongRunningRequestsPerInstance.Key(): unlimited,

		// Database calls: one process owns the database and SQLite is its own
		// limit. A throttled call shows as a workflow that is slow for no reason.
		dynamicconfig.FrontendPersistenceMaxQPS.Key():        unlimited,
		dynamicconfig.HistoryPersistenceMaxQPS.Key():         unlimited,
		dynamicconfig.MatchingPersistenceMaxQPS.Key():        unlimited,
		dynamicconfig.WorkerPersistenceMaxQPS.Key():          unlimited,
		dynamicconfig.VisibilityPersistenceMaxReadQPS.Key():  unlimited,
		dynamicconfig.VisibilityPersistenceMaxWriteQPS.Key(): unlimited,

		// Dispatch. With the default of 20 polls a second every task waits about
		// 50 ms before it is handed out: a workflow of two activities takes 150 ms
		// instead of 24 ms.
		dynamicconfig.TransferProcessorMaxPollRPS.Key(): 1000,
		dynamicconfig.TimerProcessorMaxPollRPS.Key():    1000,
		// The same queue carries Nexus calls and completion callbacks.
		dynamicconfig.OutboundProcessorMaxPollRPS.Key(): 1000,
		// Timers look ahead by this much, so the default of 1 s makes every shorter
		// timer last a second.
		dynamicconfig.TimerProcessorMaxTimeShift.Key(): time.Millisecond,

		// One partition for each task queue. Partitions spread a queue over hosts;
		// on one host they only make pollers and tasks miss each other (with the
		// default of four, p99 doubles).
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,

		// Fairness between tenants is off on a self-hosted server unless this is
		// set; bellhop gives every operation its tenant as fairness key.
		dynamicconfig.MatchingEnableFairness.Key(): true,

		// A search attribute can be used as soon as it is added, not seconds later
		// when the caches are renewed.
		dynamicconfig.ForceSearchAttributesCacheRefreshOnRead.Key(): true,
		// The same for Nexus endpoints.
		dynamicconfig.ForceNexusEndpointRefreshOnRead.Key(): true,
		dynamicconfig.RefreshNexusEndpointsMinWait.Key():    time.Millisecond,

		// The server would report its version to its makers once a day. A server on
		// somebody's own machine calls nobody.
		dynamicconfig.EnableServerVersionCheck.Key(): false,
	}
}
