package ecs

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"bellhop"
)

// listAtOnce is how many names one page of a list has.
const listAtOnce = 100

// names lists the services of the cluster that are called as ours are. Those that are being removed are not among them.
func (c *clients) names(ctx context.Context) ([]string, error) {
	var names []string
	pages := ecs.NewListServicesPaginator(c.ecs, &ecs.ListServicesInput{
		Cluster: aws.String(c.cluster), MaxResults: aws.Int32(listAtOnce),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, classify(err, "list services of cluster "+c.cluster)
		}
		for _, arn := range page.ServiceArns {
			if name := lastPart(arn); strings.HasPrefix(name, prefix) {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// allTasks lists every task of the cluster that has not stopped, with few calls however many there are.
func (c *clients) allTasks(ctx context.Context) ([]types.Task, error) {
	arns, err := c.listTasks(ctx, ecs.ListTasksInput{}, types.DesiredStatusRunning, types.DesiredStatusStopped)
	if err != nil {
		return nil, err
	}
	tasks, err := c.describeTasks(ctx, arns)
	return slices.DeleteFunc(tasks, stopped), err
}

// ofService is the service that a task is of, or empty.
func ofService(task types.Task) string {
	name, _ := strings.CutPrefix(aws.ToString(task.Group), "service:")
	return name
}

// Inventory lists the services and tasks of ours that stand, by operation. Tasks of a service count as its own, also those
// that an earlier operation began.
func (p *Provider) Inventory(ctx context.Context) ([]bellhop.Holding, error) {
	ctx = patient(ctx)
	c := p.forAll()
	names, err := c.names(ctx)
	if err != nil {
		return nil, err
	}
	services := map[string]found{}
	for chunk := range slices.Chunk(names, describeAtOnce) {
		described, err := c.describe(ctx, chunk)
		if err != nil {
			return nil, err
		}
		for _, service := range described {
			if f := foundIn(service); f.ours && f.status() != statusInactive {
				services[aws.ToString(service.ServiceName)] = f
			}
		}
	}
	tasks, err := c.allTasks(ctx)
	if err != nil {
		return nil, err
	}
	held := map[string]*bellhop.Holding{}
	holding := func(id identity) *bellhop.Holding {
		at := id.tenant + "/" + id.resource + "/" + id.generation.OperationID
		if held[at] == nil {
			held[at] = &bellhop.Holding{
				TenantID: id.tenant, Resource: id.resource,
				OperationID: id.generation.OperationID, RequestedAt: id.generation.RequestedAt,
			}
		}
		return held[at]
	}
	for _, f := range services {
		holding(f.identity).ResourceIDs = f.ids(nil)
	}
	for _, task := range tasks {
		id, ours := identify(task.Tags)
		if f, standing := services[ofService(task)]; standing {
			id, ours = f.identity, true
		}
		if !ours {
			continue
		}
		h := holding(id)
		h.ResourceIDs.ClusterARN = aws.ToString(task.ClusterArn)
		h.ResourceIDs.TaskDefinitionARN = cmp.Or(h.ResourceIDs.TaskDefinitionARN, aws.ToString(task.TaskDefinitionArn))
		h.ResourceIDs.TaskARNs = append(h.ResourceIDs.TaskARNs, aws.ToString(task.TaskArn))
		if aws.ToString(task.LastStatus) == taskRunning {
			h.Running++
		}
	}
	var holdings []bellhop.Holding
	for _, h := range held {
		holdings = append(holdings, *h)
	}
	slices.SortFunc(holdings, func(a, b bellhop.Holding) int {
		return cmp.Or(strings.Compare(a.TenantID, b.TenantID), strings.Compare(a.Resource, b.Resource),
			strings.Compare(a.OperationID, b.OperationID))
	})
	return holdings, nil
}
