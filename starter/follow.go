package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bellhop"
	"bellhop/operations"
)

// pace is how often an operation that is followed is looked at.
type pace struct {
	// first is the wait after the first look; it doubles up to every.
	first, every time.Duration
	// refresh is how long a running operation is only asked for what it knows before its resource is observed anew; it
	// grows by half up to maxRefresh. Each observation is about ten events in the workflow's history, a look is none.
	refresh, maxRefresh time.Duration
	// outage is for how long Temporal may be away before following it is given up.
	outage time.Duration
	// call bounds one look.
	call time.Duration
}

func defaultPace() pace {
	return pace{
		first: 100 * time.Millisecond, every: time.Second,
		refresh: 10 * time.Second, maxRefresh: 30 * time.Second,
		outage: time.Minute,
		call:   callTimeout,
	}
}

// view shows an operation as it changes.
type view interface {
	// show is called with each look, whether anything changed or not.
	show(report bellhop.Report)
	// note says something about the following itself; an empty text withdraws it.
	note(text string)
	// end leaves the last that was shown on the screen.
	end()
}

// follow shows an operation until done says that it is enough. The error of a ctx that ended is its cause; that of an
// interruption tells that the operation goes on.
func (a *app) follow(ctx context.Context, client *operations.Client, id, output string, done func(bellhop.Report) bool) (bellhop.Report, error) {
	var v view
	switch {
	case output == outputJSON:
		v = &documents{w: a.stdout, notes: a.stderr}
	case a.out.terminal:
		v = &block{screen: a.out, now: time.Now}
	default:
		v = &lines{screen: a.out, now: time.Now, told: map[bellhop.State]bool{}}
	}
	report, err := a.lookOn(ctx, client, id, v, done)
	v.end()
	if err != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return report, &problem{exitInterrupted, fmt.Errorf("stopped watching; operation %s goes on", id), []string{
			"see how it goes: " + a.again("status", id),
			"or give it up:   " + a.again("cancel", id),
		}}
	}
	return report, err
}

func (a *app) lookOn(ctx context.Context, client *operations.Client, id string, v view, done func(bellhop.Report) bool) (bellhop.Report, error) {
	var last bellhop.Report
	interval := a.pace.first
	anew := rhythm{interval: a.pace.refresh, most: a.pace.maxRefresh}
	answered := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return last, context.Cause(ctx)
		case <-timer.C:
		}
		look := client.Status
		if anew.due(last, time.Now()) {
			look = client.Refresh
		}
		asking, cancel := context.WithTimeout(ctx, a.pace.call)
		report, err := look(asking, id)
		cancel()
		switch {
		case ctx.Err() != nil:
			return last, context.Cause(ctx)
		case err == nil:
			answered = time.Now()
			last = report
			v.note("")
			v.show(report)
			if done(report) {
				return report, nil
			}
		case operations.Unreachable(err) && time.Since(answered) < a.pace.outage:
			v.note("Temporal does not answer (" + reason(err) + "); trying again")
		default:
			return last, err
		}
		timer.Reset(interval)
		interval = min(interval*2, a.pace.every)
	}
}

// rhythm says when a resource is to be observed anew.
type rhythm struct {
	// interval is the time until the next observation; it grows by half up to most.
	interval, most time.Duration
	// since is when the resource was last observed on our behalf, or was seen not to run yet.
	since time.Time
}

// due says whether it is time to, and if so begins to wait for the next time. An operation that does not run has
// nothing to observe, and one without a worker has nobody who would.
func (r *rhythm) due(last bellhop.Report, now time.Time) bool {
	if last.State != bellhop.Running || last.Silence != nil {
		r.since = now
		return false
	}
	if now.Sub(r.since) < r.interval {
		return false
	}
	r.since = now
	r.interval = min(r.interval*3/2, r.most)
	return true
}
